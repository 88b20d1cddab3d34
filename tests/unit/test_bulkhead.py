"""A bulkhead lets so many in, and the adaptive one finds out how many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from labkit.adaptive import AdaptiveLimit
from labkit.bulkhead import Bulkhead
from labkit.clock import FakeClock
from labkit.deadline import deadline
from labkit.errors import BulkheadFullError, ConfigurationError, TransientError
from labkit.signals import Signal, Signals

SOON_S = 30.0  # a test that waits this long hangs


@contextmanager
def inside(limiter: Bulkhead | AdaptiveLimit, calls: int) -> Iterator[Callable[[], None]]:
    """Keep so many calls inside; yield a function that lets them out."""
    entered, leave = threading.Semaphore(0), threading.Event()

    def stay() -> None:
        entered.release()
        assert leave.wait(SOON_S)

    threads = [threading.Thread(target=limiter.call, args=(stay,)) for _ in range(calls)]
    for thread in threads:
        thread.start()
        assert entered.acquire(timeout=SOON_S)

    def let_out() -> None:
        leave.set()
        for thread in threads:
            thread.join()

    try:
        yield let_out
    finally:
        let_out()


def test_one_more_than_the_limit_is_refused_and_not_called() -> None:
    heard, called = list[Signal](), list[int]()
    bulkhead = Bulkhead("stock", 2, signals=Signals(heard.append))

    with inside(bulkhead, 2), pytest.raises(BulkheadFullError) as caught:
        bulkhead.call(called.append, 1)

    assert (caught.value.limit, called) == (2, [])
    assert [(s.pattern, s.name, s.what) for s in heard] == [("bulkhead", "stock", "refused")]


def test_a_place_is_free_again_after_an_answer_and_after_an_error() -> None:
    bulkhead = Bulkhead("stock", 1)

    assert bulkhead.call(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        bulkhead.call(lambda: 1 / 0)
    assert bulkhead.call(max, 2, 3) == 3


def test_who_may_wait_gets_the_place_that_becomes_free() -> None:
    bulkhead = Bulkhead("stock", 1, wait_s=SOON_S)
    answers: list[int] = []
    with inside(bulkhead, 1) as let_out:
        waiting = threading.Thread(target=lambda: answers.append(bulkhead.call(lambda: 7)))
        waiting.start()
        let_out()
        waiting.join()

    assert answers == [7]


def test_nobody_waits_longer_than_agreed_or_past_the_deadline(clock: FakeClock) -> None:
    with inside(brief := Bulkhead("stock", 1, wait_s=0.001), 1), pytest.raises(BulkheadFullError):
        brief.call(lambda: 1)

    started_s = time.monotonic()
    with (
        inside(patient := Bulkhead("stock", 1, wait_s=SOON_S), 1),
        deadline(0.0, clock=clock),
        pytest.raises(BulkheadFullError),
    ):
        patient.call(lambda: 1)
    # Who waits past the deadline is refused as well, only much later.
    assert time.monotonic() - started_s < SOON_S / 2


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1.5}, {"limit": 1, "wait_s": -1}])
def test_a_bulkhead_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Bulkhead("stock", **wrong)


# --- adaptive ---


@pytest.fixture
def limit(clock: FakeClock) -> AdaptiveLimit:
    return AdaptiveLimit("stock", 4, least=2, most=5, slow_s=1.0, shrink=0.5, clock=clock)


def test_no_more_calls_are_inside_than_the_limit_says(limit: AdaptiveLimit) -> None:
    with inside(limit, 4), pytest.raises(BulkheadFullError) as caught:
        limit.call(lambda: 1)

    assert caught.value.limit == 4


def test_a_round_of_good_calls_adds_a_place(limit: AdaptiveLimit) -> None:
    with inside(limit, 4) as let_out:
        let_out()
    # The first ones to leave left a full house, the last ones an empty one.
    with inside(limit, 3):
        for _ in range(4):
            limit.call(lambda: 1)

    assert limit.limit == 5


def test_a_limit_that_is_not_used_does_not_grow(limit: AdaptiveLimit) -> None:
    for _ in range(1000):
        limit.call(lambda: 1)

    assert limit.limit == 4


def slow(clock: FakeClock) -> None:
    clock.advance(1.001)


def late(_: FakeClock) -> None:
    raise TimeoutError


def refused(_: FakeClock) -> None:
    raise BulkheadFullError("further in", 1)


@pytest.mark.parametrize("sign", [slow, late, refused])
def test_a_sign_of_overload_takes_a_part_of_the_places(
    limit: AdaptiveLimit, clock: FakeClock, sign: Callable[[FakeClock], None]
) -> None:
    heard = list[Signal]()
    limit.signals = Signals(heard.append)
    with suppress(TimeoutError, BulkheadFullError):
        limit.call(sign, clock)

    assert limit.limit == 2
    assert [(s.pattern, s.what, s.detail) for s in heard] == [("adaptive", "shrank", "limit 2")]


@pytest.mark.parametrize("error", [ValueError("a bug"), TransientError("an error of theirs")])
def test_an_error_that_says_nothing_about_the_load_changes_nothing(
    limit: AdaptiveLimit, error: Exception
) -> None:
    def fail() -> None:
        raise error

    with inside(limit, 3):
        for _ in range(20):
            with pytest.raises(type(error)):
                limit.call(fail)
        assert limit.limit == 4


def test_calls_of_one_round_that_all_time_out_shrink_the_limit_once() -> None:
    limit = AdaptiveLimit("stock", 64, shrink=0.5)
    together = threading.Barrier(32)

    def time_out() -> None:
        together.wait(SOON_S)
        raise TimeoutError

    def call() -> None:
        with pytest.raises(TimeoutError):
            limit.call(time_out)

    threads = [threading.Thread(target=call) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert limit.limit == 32


@given(slowness=st.lists(st.booleans(), max_size=100))
def test_the_limit_stays_between_its_bounds_whatever_happens(slowness: list[bool]) -> None:
    clock = FakeClock()
    limit = AdaptiveLimit("stock", 3, least=1, most=4, slow_s=1.0, clock=clock)
    for is_slow in slowness:
        limit.call(clock.advance, 2.0 if is_slow else 0.5)
        assert 1 <= limit.limit <= 4


@pytest.mark.parametrize("wrong", [{"start": 0}, {"start": 300}, {"shrink": 1.0}, {"slow_s": -1}])
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        AdaptiveLimit("stock", **wrong)
