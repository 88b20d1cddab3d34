"""Retry: again when it may help, and only then."""

from __future__ import annotations

import asyncio
import random
import threading
import types
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pybreaker
import pytest
from hypothesis import given, strategies as st

from labkit.budget import RetryBudget
from labkit.clock import FakeClock
from labkit.deadline import deadline
from labkit.errors import (
    BreakerOpenError,
    BulkheadFullError,
    ConfigurationError,
    PermanentError,
    TransientError,
)
from labkit.jitter import Jitter
from labkit.retry import DECORRELATED, EQUAL, FULL, NONE, Retry, delay_s, idempotent
from labkit.signals import Signal, Signals


@types.coroutine
def others_go_on() -> Generator[None, None, None]:
    """Give the loop back once: no time passes, and tasks change places in a known order."""
    yield


class BusyError(TransientError):
    """Come back in `retry_after_s`."""

    def __init__(self, retry_after_s: Any = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("busy")


class Flaky:
    """Raises the given errors, one per call, and then answers."""

    def __init__(self, *errors: BaseException, answer: Any = "ok") -> None:
        self.errors = list(errors)
        self.answer = answer
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.answer

    async def later(self) -> Any:
        await others_go_on()
        return self()


class Patient:
    """Sleeps on a fake clock, and remembers."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def later(self, seconds: float) -> None:
        await others_go_on()
        self(seconds)


@pytest.fixture
def patient(clock: FakeClock) -> Patient:
    return Patient(clock)


@pytest.fixture
def heard() -> list[Signal]:
    return []


@pytest.fixture
def make(patient: Patient, heard: list[Signal]) -> Callable[..., Retry]:
    signals = Signals(heard.append, clock=patient.clock)
    usual: dict[str, Any] = {
        "jitter": NONE,
        "clock": patient.clock,
        "sleep": patient,
        "sleep_async": patient.later,
        "signals": signals,
    }
    return lambda **options: Retry("stock", **usual | options)


def test_what_works_at_once_is_called_once(make: Callable[..., Retry], patient: Patient) -> None:
    flaky = Flaky()

    assert make().call(flaky, idempotent=True) == "ok"
    assert (flaky.calls, patient.slept) == (1, [])


def test_arguments_reach_the_function(make: Callable[..., Retry]) -> None:
    tries: list[tuple[Any, ...]] = []

    def reserve(*args: Any, **options: Any) -> None:
        tries.append((*args, options))
        if len(tries) < 2:
            raise TimeoutError

    make().call(reserve, "RES-1", qty=2, idempotent=True)

    assert tries == [("RES-1", {"qty": 2})] * 2


def test_what_fails_for_a_while_works_in_the_end_after_growing_pauses(
    make: Callable[..., Retry], patient: Patient, heard: list[Signal]
) -> None:
    flaky = Flaky(TimeoutError(), ConnectionError(), TransientError())

    assert make(attempts=4, base_s=0.5).call(flaky, idempotent=True) == "ok"
    assert (flaky.calls, patient.slept) == (4, [0.5, 1.0, 2.0])
    assert [each.what for each in heard] == ["retry", "retry", "retry", "recovered"]
    assert heard[0].detail == "attempt 2 in 0.500 s, TimeoutError"


def test_the_last_error_itself_comes_out(make: Callable[..., Retry], heard: list[Signal]) -> None:
    last = TransientError("third")

    with pytest.raises(TransientError, match="third") as caught:
        make().call(Flaky(TransientError("1"), TransientError("2"), last), idempotent=True)

    assert caught.value is last
    assert heard[-1].what == "gave up"
    assert heard[-1].detail.startswith("attempts: 3 attempts, 0.300 s, TransientError")


def test_how_long_it_took_includes_the_first_attempt(
    make: Callable[..., Retry], clock: FakeClock, heard: list[Signal]
) -> None:
    errors = [TimeoutError()]

    def slow() -> None:
        clock.advance(2.0)
        if errors:
            raise errors.pop()

    make(base_s=0.5).call(slow, idempotent=True)

    assert [(each.what, each.detail) for each in heard[1:]] == [("recovered", "after 4.500 s")]


def test_one_attempt_means_one_attempt(make: Callable[..., Retry], patient: Patient) -> None:
    flaky = Flaky(TimeoutError())

    with pytest.raises(TimeoutError):
        make(attempts=1).call(flaky, idempotent=True)
    assert (flaky.calls, patient.slept) == (1, [])


@pytest.mark.parametrize(
    "refusal",
    [
        BreakerOpenError("stock", 1.0),
        BulkheadFullError("stock", 3),
        pybreaker.CircuitBreakerError("open"),
        PermanentError("never"),
        ConfigurationError("wrong"),
    ],
)
@pytest.mark.parametrize("earlier", [0, 1])
def test_a_refusal_is_never_tried_again_whatever_on_says(
    make: Callable[..., Retry], refusal: Exception, earlier: int
) -> None:
    flaky = Flaky(*[TimeoutError()] * earlier, refusal)

    with pytest.raises(type(refusal)):
        make(on=lambda _: True).call(flaky, idempotent=True)
    assert flaky.calls == earlier + 1


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit()])
@pytest.mark.parametrize("earlier", [0, 1])
def test_bugs_and_interruptions_are_not_tried_again(
    make: Callable[..., Retry], error: BaseException, earlier: int
) -> None:
    flaky = Flaky(*[TimeoutError()] * earlier, error)

    with pytest.raises(type(error)):
        make().call(flaky, idempotent=True)
    assert flaky.calls == earlier + 1


def test_which_errors_are_worth_it_can_be_said(make: Callable[..., Retry]) -> None:
    by_type, by_word = Flaky(KeyError()), Flaky(ValueError("try again"))

    assert make(on=(KeyError,)).call(by_type, idempotent=True) == "ok"
    assert make(on=lambda e: "again" in str(e)).call(by_word, idempotent=True) == "ok"


def test_a_result_can_be_worth_another_attempt_and_the_last_one_is_returned(
    make: Callable[..., Retry], heard: list[Signal]
) -> None:
    statuses = iter([503, 503, 200])
    assert make(on_result=lambda s: s == 503).call(lambda: next(statuses), idempotent=True) == 200

    flaky = Flaky(answer=503)
    assert make(on_result=lambda s: s == 503).call(flaky, idempotent=True) == 503
    assert flaky.calls == 3
    assert heard[-1].what == "gave up"


def test_what_nobody_declared_idempotent_is_refused_before_it_is_called(
    make: Callable[..., Retry],
) -> None:
    flaky = Flaky()

    with pytest.raises(ConfigurationError, match="idempotent=True"):
        make().call(flaky)
    assert flaky.calls == 0


def test_a_function_or_a_method_can_be_declared_once(make: Callable[..., Retry]) -> None:
    @idempotent
    def reserve() -> str:
        return "reserved"

    class Client:
        @idempotent
        def release(self) -> str:
            return "released"

    assert make().call(reserve) == "reserved"
    assert make().call(Client().release) == "released"
    with pytest.raises(ConfigurationError, match="declare it at the call"):
        idempotent(len)


def test_a_coroutine_function_is_refused_instead_of_going_unprotected(
    make: Callable[..., Retry],
) -> None:
    retry: Any = make()
    with pytest.raises(ConfigurationError, match="acall"):
        retry.call(Flaky().later, idempotent=True)


# --- how long ---


def test_retry_after_is_waited_for_and_the_pause_is_added(
    make: Callable[..., Retry], patient: Patient
) -> None:
    make(base_s=0.5).call(Flaky(BusyError(3.0)), idempotent=True)

    assert patient.slept == [3.5]


def test_another_word_for_retry_after_can_be_given(
    make: Callable[..., Retry], patient: Patient
) -> None:
    make(base_s=0.0, retry_after=lambda e: float(str(e))).call(
        Flaky(TimeoutError("2")), idempotent=True
    )

    assert patient.slept == [2.0]


@pytest.mark.parametrize("nonsense", ["soon", -5, float("nan")])
def test_a_retry_after_that_is_no_time_is_ignored(
    make: Callable[..., Retry], patient: Patient, nonsense: Any
) -> None:
    make(base_s=0.5).call(Flaky(BusyError(nonsense)), idempotent=True)

    assert patient.slept == [0.5]


@pytest.mark.parametrize("too_long_s", [10.1, float("inf")])
def test_who_asks_for_more_time_than_was_agreed_to_is_left_alone(
    make: Callable[..., Retry], patient: Patient, heard: list[Signal], too_long_s: float
) -> None:
    with pytest.raises(BusyError):
        make(cap_s=10).call(Flaky(BusyError(too_long_s)), idempotent=True)

    assert patient.slept == []
    assert heard[-1].detail.startswith("retry-after")


def test_nobody_sleeps_past_the_deadline(
    make: Callable[..., Retry], patient: Patient, heard: list[Signal]
) -> None:
    last = TransientError("second")
    flaky = Flaky(TransientError("first"), last)
    with deadline(1.0, clock=patient.clock), pytest.raises(TransientError) as caught:
        make(attempts=9, base_s=0.4).call(flaky, idempotent=True)

    # 0.4 fit, another 0.8 would not.
    assert (caught.value, patient.slept) == (last, [0.4])
    assert heard[-1].detail.startswith("deadline")


@given(
    attempt=st.integers(1, 10_000),
    seconds=st.tuples(st.floats(0, 100), st.floats(0, 1000), st.none() | st.floats(0, 1000)),
    jitter=st.sampled_from(list(Jitter)),
    seed=st.integers(),
)
def test_no_pause_is_negative_or_longer_than_the_cap(
    attempt: int, seconds: tuple[float, float, float | None], jitter: Jitter, seed: int
) -> None:
    base_s, cap_s, previous_s = seconds
    pause_s = delay_s(
        attempt,
        base_s=base_s,
        cap_s=cap_s,
        jitter=jitter,
        random=random.Random(seed).random,
        previous_s=previous_s,
    )

    assert 0 <= pause_s <= cap_s


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [(NONE, 8, 8), (FULL, 0, 8), (EQUAL, 4, 8), (DECORRELATED, 1, 12)],
)
def test_jitter_spreads_pauses_over_its_range(jitter: Jitter, least: float, most: float) -> None:
    def at(chance: float) -> float:
        return delay_s(4, base_s=1, cap_s=60, jitter=jitter, random=lambda: chance, previous_s=4)

    assert (at(0.0), at(1 - 1e-12)) == pytest.approx((least, most))


def test_decorrelated_pauses_grow_from_the_pause_before(
    make: Callable[..., Retry], patient: Patient
) -> None:
    flaky = Flaky(*[TimeoutError()] * 3)
    retry = make(attempts=4, base_s=1.0, cap_s=60, jitter=DECORRELATED, random=lambda: 0.5)

    retry.call(flaky, idempotent=True)

    # 1 + (3p - 1) / 2 each time, beginning with p = 1.
    assert patient.slept == [2.0, 3.5, 5.75]


def test_ten_thousand_attempts_overflow_nowhere(
    make: Callable[..., Retry], patient: Patient
) -> None:
    flaky = Flaky(*[TimeoutError()] * 9_999)

    assert make(attempts=10_000, cap_s=5).call(flaky, idempotent=True) == "ok"
    assert max(patient.slept) == 5


# --- together ---


def test_calls_that_share_a_budget_stop_retrying_together(
    make: Callable[..., Retry], clock: FakeClock, heard: list[Signal]
) -> None:
    budget = RetryBudget(0.1, 0.0, most=3, clock=clock)
    stock, prices = make(budget=budget), make(budget=budget)
    calls = 0
    for retry in (stock, prices, stock, prices):
        flaky = Flaky(*[TimeoutError()] * 3)
        with pytest.raises(TimeoutError):
            retry.call(flaky, idempotent=True)
        calls += flaky.calls

    assert calls == 4 + 3
    assert heard[-1].detail.startswith("budget")


def test_each_success_pays_into_the_budget_once_also_after_a_retry(
    make: Callable[..., Retry], clock: FakeClock
) -> None:
    budget = RetryBudget(0.5, 0.0, most=2, clock=clock)
    retry = make(budget=budget)

    retry.call(Flaky(TimeoutError()), idempotent=True)
    assert budget.saved == 1.5
    retry.call(Flaky(), idempotent=True)

    assert budget.saved == 2.0


def test_a_result_that_is_given_up_pays_nothing(
    make: Callable[..., Retry], clock: FakeClock
) -> None:
    budget = RetryBudget(0.5, 0.0, most=9, clock=clock)

    make(budget=budget, on_result=lambda _: True).call(Flaky(), idempotent=True)

    assert budget.saved == 7


def test_threads_that_share_a_retry_count_their_own_attempts(clock: FakeClock) -> None:
    retry = Retry("stock", attempts=3, sleep=lambda _: None, clock=clock)
    calls: list[int] = []
    together = threading.Barrier(8)

    def use() -> None:
        flaky = Flaky(*[TimeoutError()] * 2)
        together.wait()
        retry.call(flaky, idempotent=True)
        calls.append(flaky.calls)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == [3] * 8


def test_tasks_that_share_a_retry_count_their_own_attempts(make: Callable[..., Retry]) -> None:
    retry = make(attempts=3)
    flaky = [Flaky(*[TimeoutError()] * (n % 3)) for n in range(30)]

    async def all_at_once() -> list[Any]:
        calls = [retry.acall(each.later, idempotent=True) for each in flaky]
        return await asyncio.gather(*calls)

    assert asyncio.run(all_at_once()) == ["ok"] * 30
    assert [each.calls for each in flaky] == [1 + n % 3 for n in range(30)]


def test_an_awaited_call_keeps_the_same_rules(
    make: Callable[..., Retry], patient: Patient, heard: list[Signal]
) -> None:
    retry = make(attempts=2, base_s=0.5, on_result=lambda s: s == 503)
    unavailable, refused = Flaky(answer=503), Flaky(PermanentError("no"))
    broken = Flaky(TimeoutError(), TimeoutError("last"))

    assert asyncio.run(retry.acall(unavailable.later, idempotent=True)) == 503
    with pytest.raises(PermanentError):
        asyncio.run(retry.acall(refused.later, idempotent=True))
    with pytest.raises(TimeoutError, match="last"):
        asyncio.run(retry.acall(broken.later, idempotent=True))
    with pytest.raises(ConfigurationError):
        asyncio.run(retry.acall(broken.later))
    assert (unavailable.calls, refused.calls, broken.calls) == (2, 1, 2)
    assert patient.slept == [0.5, 0.5]


def test_a_cancelled_task_is_not_tried_again(make: Callable[..., Retry]) -> None:
    flaky = Flaky(TimeoutError(), asyncio.CancelledError())

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(make().acall(flaky.later, idempotent=True))
    assert flaky.calls == 2


def test_a_retry_inside_a_retry_multiplies(make: Callable[..., Retry]) -> None:
    # Not a feature: it is why there is a budget, and why one layer retries.
    flaky = Flaky(*[TimeoutError()] * 99)
    nested = partial(make(attempts=3).call, flaky, idempotent=True)

    with pytest.raises(TimeoutError):
        make(attempts=3).call(nested, idempotent=True)
    assert flaky.calls == 9


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"base_s": -1}, {"cap_s": float("nan")}, {"attempts": 1.5}]
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Retry("stock", **wrong)
