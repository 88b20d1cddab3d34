"""The rules of a breaker by themselves, and what it keeps of pybreaker's surface."""

from __future__ import annotations

import inspect
from typing import Any

import pybreaker
import pytest
from hypothesis import given, strategies as st

from labkit.breaker import Counts, LocalBreaker, Rules
from labkit.breaker.circuit import Window
from labkit.breaker.rules import JITTER
from labkit.breaker.tally import Tally
from labkit.clock import FakeClock

# Ours alone, or named otherwise: fail_max is min_calls, and nobody sets a rule of a live breaker.
PYBREAKER_NAMES = {
    name for name, _ in inspect.getmembers(pybreaker.CircuitBreaker) if not name.startswith("_")
}


@given(opened=st.integers(0, 10_000), chance=st.floats(0, 1))
def test_the_open_time_never_leaves_its_bounds(opened: int, chance: float) -> None:
    rules = Rules(open_s=2.0, max_open_s=30.0)

    open_for_s = rules.open_for_s(opened, chance)

    least = min(2.0 * 2 ** min(opened, 10), 30.0)
    assert least * (1 - JITTER) <= open_for_s <= least * (1 + JITTER)


@given(calls=st.integers(0, 1_000), failures=st.integers(0, 1_000), slow=st.integers(0, 1_000))
def test_it_opens_exactly_when_a_rate_is_reached(calls: int, failures: int, slow: int) -> None:
    rules = Rules(min_calls=10, failure_rate=0.5, slow_rate=0.9, slow_call_s=1.0)
    seen = Counts(calls, min(failures, calls), min(slow, calls))

    reached = seen.failures >= 0.5 * calls or seen.slow >= 0.9 * calls
    assert bool(rules.reason_to_open(seen)) == (calls >= 10 and reached)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=50))
def test_the_window_holds_what_is_newer_than_it_is_long(calls: list[tuple[float, bool]]) -> None:
    window, now_s, added = Window(10.0), 0.0, list[tuple[float, Counts]]()
    for pause_s, failed in calls:
        now_s += pause_s
        counts = Counts(1, int(failed), 0)
        window.add(counts, now_s)
        added.append((now_s, counts))

    seen = window.seen(now_s)

    # Whole buckets leave it, so what is between nine and ten seconds old may be in or out.
    for at_least, age_s in ((True, 9.0), (False, 10.0)):
        young = [counts for at_s, counts in added if now_s - at_s <= age_s]
        calls_of_age = sum(counts.calls for counts in young)
        assert seen.calls >= calls_of_age if at_least else seen.calls <= calls_of_age


def test_a_tally_counts_one_generation() -> None:
    tally = Tally(window_s=10.0)
    tally.begin(1)
    tally.add(1)
    tally.begin(2)
    tally.add(1)
    tally.add(2)

    assert tally.take(5.0) == (1, 2)
    assert tally.take(5.0) == (0, 2)


@pytest.fixture
def breaker() -> LocalBreaker:
    return LocalBreaker("payments", min_calls=3, open_s=7.0, clock=FakeClock())


def test_it_has_every_name_that_a_breaker_of_pybreaker_has(breaker: LocalBreaker) -> None:
    assert {name for name in dir(breaker) if not name.startswith("_")} >= PYBREAKER_NAMES
    assert isinstance(breaker, pybreaker.CircuitBreaker)


def test_pybreakers_settings_can_be_read_and_not_set(breaker: LocalBreaker) -> None:
    told = {
        "name": "payments",
        "fail_max": 3,
        "reset_timeout": 7.0,
        "success_threshold": 1,
        "fail_counter": 0,
        "success_counter": 0,
    }

    assert {name: getattr(breaker, name) for name in told} == told
    for name in told:
        with pytest.raises(AttributeError):
            setattr(breaker, name, 5)


@pytest.mark.parametrize(
    ("change", "state"),
    [("open", "open"), ("half_open", "half-open"), ("close", "closed"), ("disable", "disabled")],
)
def test_a_state_has_pybreakers_name(breaker: LocalBreaker, change: str, state: str) -> None:
    getattr(breaker, change)()

    assert breaker.current_state == state
    assert breaker.state.name == state
    assert isinstance(breaker.state, pybreaker.CircuitBreakerState)


def test_listeners_and_exclusions_come_and_go_as_in_pybreaker(breaker: LocalBreaker) -> None:
    listener = pybreaker.CircuitBreakerListener()
    breaker.add_listeners(listener)
    breaker.add_excluded_exceptions(LookupError, ValueError)
    assert breaker.listeners == (listener,)
    assert not breaker.is_system_error(KeyError())

    breaker.remove_listener(listener)
    breaker.remove_excluded_exception(LookupError)
    assert not breaker.listeners
    assert breaker.is_system_error(KeyError())


def test_a_function_keeps_its_name_and_its_arguments(breaker: LocalBreaker) -> None:
    @breaker
    def plain(a: int, *, b: int) -> int:
        """Add."""
        return a + b

    @breaker()
    def called(a: int) -> int:
        return a

    class Account:
        @breaker
        def own(self) -> Any:
            return self

    account = Account()
    assert (plain(1, b=2), called(3), account.own()) == (3, 3, account)
    assert (plain.__name__, plain.__doc__) == ("plain", "Add.")


def test_a_block_is_protected_and_its_error_is_raised(breaker: LocalBreaker) -> None:
    with breaker.calling():
        pass
    for _ in range(2):
        with pytest.raises(LookupError, match="gone"), breaker.calling():
            raise LookupError("gone")

    assert breaker.current_state == "open"
    with pytest.raises(pybreaker.CircuitBreakerError), breaker.calling():
        pytest.fail("it was let in")


def test_tornados_coroutines_are_refused_by_name(breaker: LocalBreaker) -> None:
    with pytest.raises(TypeError, match="use acall"):
        breaker.call_async(print)
