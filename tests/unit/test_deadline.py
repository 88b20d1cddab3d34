"""A deadline is one moment that calls and messages hand down, and the nearer one holds."""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, strategies as st

from labkit.clock import FakeClock
from labkit.deadline import check, deadline, deadline_headers, is_late, of_message, remaining_s
from labkit.errors import ConfigurationError, DeadlineExceededError
from labkit.messages import Event, Message
from labkit.wire import DEADLINE, read_time

NOON = datetime(2026, 2, 17, 12, 0, tzinfo=UTC)


class Asked(Event, frozen=True):
    topic: ClassVar[str] = "asked.v1"


def message(headers: dict[str, str], sent: datetime = NOON) -> Message[Any]:
    return Message(
        message_id="M-1",
        correlation_id="C-1",
        event=Asked(),
        occurred_at=sent,
        key="C-1",
        headers=headers,
    )


def test_what_is_left_shrinks_with_the_clock_and_is_none_outside(clock: FakeClock) -> None:
    with deadline(2.0, clock=clock):
        clock.advance(0.5)
        assert remaining_s() == 1.5

    assert remaining_s() is None


def test_a_deadline_that_has_passed_ends_what_asks(clock: FakeClock) -> None:
    check()
    with deadline(1.0, clock=clock):
        check()
        clock.advance(1.0)
        with pytest.raises(DeadlineExceededError):
            check()


@given(seconds=st.lists(st.floats(0, 1000), min_size=1, max_size=6))
def test_of_nested_deadlines_the_nearest_holds_and_the_outer_one_comes_back(
    seconds: list[float],
) -> None:
    clock = FakeClock()
    scopes = [deadline(each, clock=clock) for each in seconds]
    for n, scope in enumerate(scopes, start=1):
        scope.__enter__()
        assert remaining_s() == min(seconds[:n])
    for n in range(len(scopes) - 1, 0, -1):
        scopes[n].__exit__()
        assert remaining_s() == min(seconds[:n])
    scopes[0].__exit__()
    assert remaining_s() is None


def test_deadlines_on_two_clocks_are_compared_by_what_is_left() -> None:
    early, late = FakeClock(), FakeClock()
    early.advance(hours=1)

    with deadline(5.0, clock=early), deadline(3.0, clock=late):
        assert remaining_s() == 3.0
    with deadline(3.0, clock=early), deadline(5.0, clock=late):
        assert remaining_s() == 3.0


def test_a_thread_has_the_deadline_only_in_a_copy_of_the_context(clock: FakeClock) -> None:
    seen: list[float | None] = []
    with deadline(2.0, clock=clock):
        context = copy_context()
        for target in (
            lambda: seen.append(remaining_s()),
            lambda: context.run(lambda: seen.append(remaining_s())),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    assert seen == [None, 2.0]


@pytest.mark.parametrize("seconds", [-1, float("nan"), "2", True])
def test_a_deadline_that_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="a deadline in seconds"):
        deadline(seconds)


def test_the_header_is_the_moment_in_utc_and_is_read_back(clock: FakeClock) -> None:
    assert deadline_headers() == {}
    with deadline(2.5, clock=clock):
        headers = deadline_headers()

    assert headers == {DEADLINE: "2026-02-17T16:00:02.500Z"}
    scope = of_message(message(headers), clock)
    assert scope is not None
    with scope:
        assert remaining_s() == 2.5


@pytest.mark.parametrize("header", ["soon", "", "2026-13-01T00:00:00Z"])
def test_a_header_that_is_no_time_is_no_deadline(header: str, clock: FakeClock) -> None:
    asked = message({DEADLINE: header})

    assert of_message(asked, clock) is None
    assert not is_late(asked, NOON + timedelta(days=9))


@pytest.mark.parametrize(("after_s", "late"), [(0.0, False), (4.999, False), (5.0, True)])
def test_half_of_the_time_is_the_limit(after_s: float, late: bool) -> None:
    asked = message({DEADLINE: "2026-02-17T12:00:10.000Z"})

    assert is_late(asked, NOON + timedelta(seconds=after_s)) is late


def test_a_message_without_a_time_of_its_own_is_late_at_its_deadline() -> None:
    asked = message({DEADLINE: "2026-02-17T12:00:10.000Z"}, sent=read_time(None))

    assert not is_late(asked, NOON + timedelta(seconds=9))
    assert is_late(asked, NOON + timedelta(seconds=10))


def test_a_message_sent_after_its_deadline_is_late() -> None:
    asked = message({DEADLINE: "2026-02-17T11:00:00.000Z"})

    assert is_late(asked, NOON)
