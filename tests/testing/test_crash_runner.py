"""A real worker is killed at every point, at its 1st and 7th passage, and the books agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from labkit import crash
from labkit.lab.servers import Stack
from labkit.testing.crash_runner import (
    PASSAGES,
    SAMPLE,
    VICTIMS,
    CrashRunner,
    NeverReachedError,
    Row,
    place_orders,
    table_of,
)

POINTS = sorted(point for point in crash.POINTS if point.partition(".")[0] in VICTIMS)


@pytest.mark.slow
@pytest.mark.parametrize("passage", PASSAGES)
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_a_point_loses_doubles_and_reorders_nothing(
    servers: Stack, point: str, passage: int
) -> None:
    row = CrashRunner(servers, SAMPLE).kill_at(point, passage)

    assert row.finding is None
    # The window is where it says to be.
    assert (row.repeated > 0) == (point == "relay.after_publish")
    in_hand = {"consumer.before_commit", "consumer.after_commit"}
    assert (row.redelivered > 0) == (point in in_hand)


@pytest.mark.slow
def test_a_point_that_is_never_reached_is_an_error(servers: Stack) -> None:
    few = replace(SAMPLE, workload=lambda engine: place_orders(engine, count=1))

    with pytest.raises(NeverReachedError, match="passage 7 was never reached"):
        CrashRunner(servers, few).kill_at("relay.after_mark", 7)


def test_a_point_that_nobody_passes_is_an_error(servers: Stack) -> None:
    with pytest.raises(NeverReachedError, match="no worker of the scenario passes"):
        CrashRunner(servers, SAMPLE).kill_at("kitchen.after_lunch", 1)


@pytest.mark.slow
def test_a_loss_shows_as_a_finding_of_its_row(servers: Stack) -> None:
    def place_and_spoil(engine: Engine) -> None:
        place_orders(engine)
        with engine.begin() as connection:
            done = "update outbox_messages set published_at = now() where message_id = 'ORD-48'"
            connection.execute(text(done))

    row = CrashRunner(servers, replace(SAMPLE, workload=place_and_spoil)).kill_at(
        "relay.after_claim", 1
    )

    assert row.finding is not None
    assert row.finding.startswith("lost: ORD-48")


def test_a_table_has_a_line_per_death() -> None:
    rows = [Row("relay.after_mark", 7, 0, 0, None, 1.5)]

    assert table_of(rows).splitlines()[1].split() == [
        "relay.after_mark",
        "7",
        "0",
        "0",
        "1.50",
        "-",
    ]
