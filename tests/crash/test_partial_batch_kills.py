"""A worker is killed between the parts of a batch, and each message has its effect once."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import Engine, text

from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.crash.conftest import PATIENCE_S, Crew, until

TARGET = "tests.toy_batches:target"
# All on one partition, so that they come as one batch.
KEY = "a"
OTHER = next(
    key
    for key in map(str, range(100))
    if toy.SOURCE.partition_of(key) == toy.SOURCE.partition_of(KEY)
)


def left_behind(target: Engine) -> tuple[list[int], int]:
    """Return the effects and the number of messages that are held."""
    with target.connect() as connection:
        held: int = connection.execute(text("select count(*) from held")).scalar_one()
    return toy.effects_of(target), held


@pytest.mark.parametrize(
    ("passage", "left"),
    [
        # The rest has committed; what failed is neither held nor acknowledged.
        (1, ([1, 9], 0)),
        # What failed is held; it and what is behind it are not acknowledged.
        (2, ([1, 9], 1)),
        # What is behind it is held as well, and not acknowledged.
        (3, ([1, 9], 2)),
    ],
)
def test_a_worker_killed_between_the_parts_of_a_batch_loses_and_doubles_nothing(
    crew: Crew, transport: RedisStreams, passage: int, left: tuple[list[int], int]
) -> None:
    source, target = crew.engine("source"), crew.engine("target")
    toy.source.create_tables(source)
    toy.target.create_tables(target)
    toy.happen(source, KEY, 1)
    toy.happen(source, KEY, 2, behaviour="until 2")
    toy.happen(source, KEY, 3)
    toy.happen(source, OTHER, 9)
    toy.source.relay(source, transport, lease_s=PATIENCE_S).run_once()

    victim = crew.start(TARGET, "consumer", faults=f"consumer.after_commit:kill:@{passage}")
    until(lambda: victim.exitcode is not None, "the victim is killed")
    assert victim.exitcode == -signal.SIGKILL
    assert left_behind(target) == left
    crew.start(TARGET, "consumer")
    until(lambda: left_behind(target) == ([1, 9, 2, 3], 0), "the next worker has done the rest")

    for engine in (source, target):
        engine.dispose()
