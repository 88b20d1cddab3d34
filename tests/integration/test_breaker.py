"""The rules of a breaker, the same in memory and in Redis, strict and cached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import pybreaker
import pytest

from labkit.breaker import CircuitOpenError, LocalBreaker
from labkit.errors import BreakerOpenError, BulkheadFullError, ConfigurationError
from labkit.lab.servers import Stack
from labkit.signals import Signal, Signals
from tests.breaking import KINDS, Rig, SickError, attempt, fail, open_up, rig_of, work


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, servers: Stack) -> Iterator[Rig]:
    with rig_of(request.param, servers.redis_url) as made:
        yield made


def test_it_opens_when_half_of_enough_calls_failed(rig: Rig) -> None:
    breaker = rig.make(min_calls=4)

    assert attempt(breaker, work, 2) == ["done"] * 2
    assert attempt(breaker, fail, 2) == ["SickError"] * 2
    assert attempt(breaker, work) == ["CircuitOpenError"]
    assert breaker.events()[-1].why == "2 of 4 calls failed"


def test_it_stays_closed_while_too_few_calls_were_seen(rig: Rig) -> None:
    breaker = rig.make(min_calls=4)

    assert attempt(breaker, fail, 3) == ["SickError"] * 3
    assert breaker.current_state == "closed"
    assert breaker.seen() == (3, 3, 0)


def test_it_stays_closed_below_the_failure_rate(rig: Rig) -> None:
    breaker = rig.make(min_calls=4, failure_rate=0.5)

    attempt(breaker, work, 10)
    attempt(breaker, fail, 9)

    assert breaker.current_state == "closed"


def test_old_calls_leave_the_window(rig: Rig) -> None:
    breaker = rig.make(min_calls=4, window_s=10.0)

    attempt(breaker, fail, 3)
    rig.advance(11)
    attempt(breaker, fail, 3)

    assert breaker.seen() == (3, 3, 0)
    assert breaker.current_state == "closed"


def test_slow_calls_open_it_too(rig: Rig) -> None:
    breaker = rig.make(min_calls=4, slow_call_s=1.0, slow_rate=0.5)

    def slow() -> str:
        rig.clock.advance(1.0)
        return "late"

    attempt(breaker, work, 2)
    assert attempt(breaker, slow, 2) == ["late"] * 2

    assert breaker.current_state == "open"
    assert breaker.events()[-1].why == "2 of 4 calls were slow"


def test_a_refused_call_says_when_to_come_back_and_calls_nothing(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0)
    open_up(breaker)
    called = list[int]()

    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(called.append, 1)

    assert not called
    assert 4.0 < refused.value.retry_after_s <= 5.0
    assert isinstance(refused.value, BreakerOpenError)
    assert isinstance(refused.value, pybreaker.CircuitBreakerError)


def test_a_trial_that_goes_well_closes_it_with_an_empty_window(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0)
    open_up(breaker)

    rig.advance(5.1)

    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"
    assert breaker.seen() == (0, 0, 0)
    assert [each.after for each in breaker.events()] == ["open", "half-open", "closed"]


def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_the_cap(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0, max_open_s=15.0)
    open_up(breaker)

    for wait_s in (5.1, 10.1, 15.1):
        rig.advance(wait_s)
        assert attempt(breaker) == ["SickError"]

    opened = [each.wait_s for each in breaker.events() if each.after == "open"]
    assert opened == [5.0, 10.0, 15.0, 15.0]


def test_a_closed_breaker_forgets_how_often_it_opened(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0)
    open_up(breaker)
    rig.advance(5.1)
    attempt(breaker)
    rig.advance(10.1)
    attempt(breaker, work)

    open_up(breaker)

    assert breaker.events()[-1].wait_s == 5.0


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)])
def test_the_open_time_differs_by_a_tenth_either_way(
    rig: Rig, chance: float, wait_s: float
) -> None:
    breaker = rig.make(open_s=5.0, random=lambda: chance)

    open_up(breaker)

    assert breaker.events()[-1].wait_s == pytest.approx(wait_s, abs=0.002)


def test_it_closes_after_as_many_good_trials_as_asked(rig: Rig) -> None:
    breaker = rig.make(success_threshold=3, open_s=5.0)
    open_up(breaker)
    rig.advance(5.1)

    attempt(breaker, work, 2)
    assert (breaker.current_state, breaker.success_counter) == ("half-open", 2)
    attempt(breaker, work)
    assert breaker.current_state == "closed"


def test_only_one_trial_runs_at_a_time(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0, trial_lease_s=2.0)
    open_up(breaker)
    rig.advance(5.1)

    with breaker.calling():
        assert attempt(breaker, work) == ["CircuitOpenError"]

    assert breaker.current_state == "closed"


def test_a_trial_that_never_ends_is_followed_by_another_after_its_lease(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0, trial_lease_s=2.0)
    open_up(breaker)
    rig.advance(5.1)

    with breaker.calling():
        rig.advance(1.9)
        assert attempt(breaker, work) == ["CircuitOpenError"]
        rig.advance(0.2)
        assert attempt(breaker, work) == ["done"]


def test_a_trial_of_an_earlier_half_open_state_holds_no_permit(rig: Rig) -> None:
    breaker = rig.make()
    breaker.half_open()

    with breaker.calling():
        breaker.open()
        breaker.half_open()
        assert attempt(breaker, fail) == ["SickError"]

    assert breaker.current_state == "open"


def test_a_slow_trial_opens_it_again(rig: Rig) -> None:
    breaker = rig.make(slow_call_s=1.0)
    open_up(breaker)
    rig.advance(5.1)

    with breaker.calling():
        rig.clock.advance(1.0)

    assert breaker.events()[-1].why == "a trial was slow"


def test_a_result_of_an_earlier_generation_counts_for_nothing(rig: Rig) -> None:
    breaker = rig.make(min_calls=1)

    def outlast_an_outage() -> NoReturn:
        breaker.open()
        breaker.close()
        fail()

    assert attempt(breaker, outlast_an_outage) == ["SickError"]

    assert breaker.current_state == "closed"
    assert breaker.seen() == (0, 0, 0)


def test_an_excluded_exception_neither_fails_nor_succeeds(rig: Rig) -> None:
    class OutOfStock(Exception):  # noqa: N818 - a business no, not an error
        pass

    def no() -> NoReturn:
        raise OutOfStock

    breaker = rig.make(exclude=[OutOfStock, lambda error: str(error) == "404"])

    def missing() -> NoReturn:
        raise RuntimeError("404")

    attempt(breaker, fail, 3)
    assert attempt(breaker, no, 9) == ["OutOfStock"] * 9
    assert attempt(breaker, missing, 9) == ["RuntimeError"] * 9
    assert breaker.seen() == (3, 3, 0)


@pytest.mark.parametrize(
    "error", [BulkheadFullError("payments", 3), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_what_says_nothing_about_the_dependency_does_not_count(
    rig: Rig, error: BaseException
) -> None:
    breaker = rig.make(min_calls=1)

    with pytest.raises(type(error)), breaker.calling():
        raise error

    assert breaker.seen() == (0, 0, 0)


def test_a_trial_that_is_ignored_makes_room_for_the_next_at_once(rig: Rig) -> None:
    breaker = rig.make(exclude=[LookupError])
    open_up(breaker)
    rig.advance(5.1)

    with pytest.raises(LookupError), breaker.calling():
        raise LookupError

    assert breaker.current_state == "half-open"
    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"


def test_forced_open_stays_until_it_is_closed(rig: Rig) -> None:
    breaker = rig.make()
    breaker.force_open("maintenance")

    rig.advance(86_400)

    assert attempt(breaker, work) == ["CircuitOpenError"]
    assert breaker.events()[-1].why == "maintenance"
    breaker.close()
    assert attempt(breaker, work) == ["done"]


def test_a_disabled_breaker_lets_everything_pass_and_counts_nothing(rig: Rig) -> None:
    breaker = rig.make()
    breaker.disable()

    assert attempt(breaker, fail, 50) == ["SickError"] * 50
    assert breaker.current_state == "disabled"
    assert breaker.seen() == (0, 0, 0)


def test_a_breaker_opened_by_hand_makes_a_trial_after_its_open_time(rig: Rig) -> None:
    breaker = rig.make(open_s=5.0)

    assert breaker.open() is False
    assert attempt(breaker, work) == ["CircuitOpenError"]
    rig.advance(5.1)
    assert attempt(breaker, work) == ["done"]


def test_coroutines_are_protected_by_acall_and_by_the_decorator(rig: Rig) -> None:
    breaker: LocalBreaker = rig.make(min_calls=3)

    @breaker
    async def sick() -> NoReturn:
        """Fail."""
        fail()

    async def well(answer: str) -> str:
        return answer

    assert asyncio.run(breaker.acall(well, answer="done")) == "done"
    for _ in range(2):
        with pytest.raises(SickError):
            asyncio.run(sick())
    with pytest.raises(CircuitOpenError):
        asyncio.run(sick())
    assert (sick.__name__, sick.__doc__) == ("sick", "Fail.")


def test_a_coroutine_or_a_generator_is_refused_by_call(rig: Rig) -> None:
    breaker = rig.make()

    async def later() -> None: ...

    def pieces() -> Iterator[int]:
        yield 1

    for func in (later, partial(later), pieces):
        with pytest.raises(TypeError, match="has not run yet"):
            breaker.call(func)
    assert breaker.seen() == (0, 0, 0)


def test_a_cancelled_trial_gives_its_permit_back(rig: Rig) -> None:
    breaker = rig.make()
    open_up(breaker)
    rig.advance(5.1)

    async def cancelled() -> None:
        task = asyncio.create_task(breaker.acall(asyncio.sleep, 30))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())

    assert attempt(breaker, work) == ["done"]


def test_signals_tell_transitions_and_refusals(rig: Rig) -> None:
    heard = list[Signal]()
    breaker = rig.make(signals=Signals(heard.append, clock=rig.clock))

    open_up(breaker)
    attempt(breaker, work)
    rig.advance(5.1)
    attempt(breaker, work)

    told = [(each.pattern, each.name, each.what) for each in heard]
    assert told == [
        ("breaker", rig.name, what) for what in ("open", "rejected", "half-open", "closed")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_rate": 0.0},
        {"failure_rate": 1.1},
        {"slow_rate": 0.0},
        {"slow_call_s": 0.0},
        {"min_calls": 0},
        {"window_s": 0.0},
        {"open_s": float("nan")},
        {"open_s": 5.0, "max_open_s": 4.0},
        {"success_threshold": 0},
        {"trial_lease_s": -1.0},
        {"name": ""},
        {"name": "a{b}"},
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_at_once(rig: Rig, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        rig.make(**wrong)
