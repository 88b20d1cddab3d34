"""Clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from labkit.clock import Clock, FakeClock, SystemClock
from labkit.errors import ConfigurationError


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
def test_every_clock_shows_utc_and_never_runs_backwards(clock: Clock) -> None:
    first_s, first = clock.monotonic_s(), clock.now()

    assert clock.now().utcoffset() == timedelta(0)
    assert clock.now() >= first
    assert clock.monotonic_s() >= first_s


def test_the_system_clock_shows_the_machines_time() -> None:
    before = datetime.now(UTC)

    assert before <= SystemClock().now() <= datetime.now(UTC)


def test_a_fake_clock_moves_only_when_told_to() -> None:
    clock = FakeClock(datetime(2026, 2, 17, 16, tzinfo=UTC))

    clock.advance(1.5)
    clock.advance(hours=2)

    assert clock.now() == datetime(2026, 2, 17, 18, 0, 1, 500_000, UTC)
    assert clock.monotonic_s() == 7201.5


def test_a_fake_clock_translates_its_start_to_utc() -> None:
    start = datetime(2026, 2, 17, 18, tzinfo=timezone(timedelta(hours=2)))

    assert FakeClock(start).now().isoformat() == "2026-02-17T16:00:00+00:00"


def test_a_fake_clock_refuses_a_start_without_zone() -> None:
    with pytest.raises(ConfigurationError, match="no time zone"):
        FakeClock(datetime(2026, 2, 17))  # noqa: DTZ001 - the point of the test


def test_a_fake_clock_does_not_go_back() -> None:
    clock = FakeClock()

    with pytest.raises(ConfigurationError, match=r"from 0\.0 .* not -1\.0"):
        clock.advance(-1.0)

    assert clock.monotonic_s() == 0.0
