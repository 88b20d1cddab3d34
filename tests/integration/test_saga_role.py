"""The role `saga`: a process that wakes sagas whose time is over, and does nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from labkit import db
from labkit.clock import FakeClock
from labkit.lab.servers import Stack
from labkit.transports.redis_streams import RedisStreams
from tests import saga_flow
from tests.saga_flow import Play, ordering
from tests.waiting import eventually


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    """Return the flow."""
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    saga_flow.broken.clear()
    peers.dispose()


def test_the_role_is_its_deadlines_and_nothing_else(
    engine: Engine, transport: RedisStreams
) -> None:
    workers = ordering.workers("saga", engine, transport, batch=7)
    assert list(map(str, workers)) == ["deadlines of toy"]


def test_all_wakes_sagas_too(engine: Engine, transport: RedisStreams) -> None:
    assert "deadlines of toy" in map(str, ordering.workers("all", engine, transport))


def test_a_process_of_this_role_wakes_what_is_due(play: Play, servers: Stack) -> None:
    play.start("S-1")
    with play.engine.begin() as connection:
        connection.execute(text("update saga set due_at = due_at - interval '100 years'"))
    with play.engine.begin() as connection:
        state = 'replace(state, \'"due_at":"20\', \'"due_at":"19\')'
        connection.execute(text(f"update saga set state = {state}"))
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "labkit", "run", "tests.saga_flow:ordering", "--role=saga"),
            *(f"--database={play.engine.url.database}", f"--prefix={play.transport.prefix}"),
            "--json",
        ],
        env=os.environ | {"LABKIT_HOME": str(servers.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: play.state("S-1").sent, False)
    finally:
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert list(json.loads(said)) == ["deadlines of toy"]
