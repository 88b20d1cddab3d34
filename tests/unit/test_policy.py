"""A policy: its layers do what they say together, in one order."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pybreaker
import pytest

from labkit.adaptive import AdaptiveLimit
from labkit.attempts import AttemptTimeout
from labkit.bulkhead import Bulkhead
from labkit.clock import FakeClock
from labkit.deadline import deadline, remaining_s
from labkit.errors import (
    AttemptTimeoutError,
    BulkheadFullError,
    ConfigurationError,
    DeadlineExceededError,
    RejectedError,
    TransientError,
)
from labkit.faults import Faults
from labkit.policy import Deadline, Fallback, Policy
from labkit.retry import NONE, Retry, idempotent
from labkit.signals import Signal, Signals

SOON_S = 30.0  # a test that waits this long hangs


@pytest.fixture
def heard() -> list[Signal]:
    return []


@pytest.fixture
def signals(heard: list[Signal]) -> Signals:
    return Signals(heard.append)


def retry_of(clock: FakeClock, attempts: int = 3) -> Retry:
    return Retry("stock", attempts, 0.5, jitter=NONE, clock=clock, sleep=clock.advance)


def breaker_of(fail_max: int = 5) -> pybreaker.CircuitBreaker:
    return pybreaker.CircuitBreaker(
        fail_max=fail_max,
        reset_timeout=3600,
        exclude=[RejectedError],
        throw_new_error_on_trip=False,
    )


def words(heard: list[Signal]) -> list[tuple[str, str]]:
    return [(each.pattern, each.what) for each in heard]


class Down:
    """A dependency that is down, and counts its calls."""

    calls = 0

    def __call__(self) -> str:
        self.calls += 1
        raise TransientError("down")


def test_a_policy_without_layers_calls_the_function() -> None:
    assert Policy("stock").call(max, 1, 2) == 2


def test_all_layers_let_an_answer_through(clock: FakeClock, signals: Signals) -> None:
    policy = Policy(
        "stock",
        fallback=lambda _: "unknown",
        deadline_s=2.0,
        retry=retry_of(clock),
        breaker=breaker_of(),
        bulkhead=Bulkhead("stock", 2),
        attempt_timeout_s=SOON_S,
        faults=Faults("stock"),
        signals=signals,
        clock=clock,
    )

    assert policy.call(lambda sku, qty=0: (sku, qty), "S-1", qty=2, idempotent=True) == ("S-1", 2)


def test_the_breaker_sees_each_attempt_and_an_open_one_ends_the_retries(clock: FakeClock) -> None:
    down, breaker = Down(), breaker_of(fail_max=2)
    policy = Policy("stock", retry=retry_of(clock, attempts=9), breaker=breaker)

    with pytest.raises(pybreaker.CircuitBreakerError):
        policy.call(down, idempotent=True)

    assert (down.calls, breaker.current_state) == (2, "open")


def test_a_full_bulkhead_does_not_open_a_breaker_that_ignores_refusals() -> None:
    breaker, bulkhead = breaker_of(fail_max=1), Bulkhead("stock", 1)
    policy = Policy("stock", breaker=breaker, bulkhead=bulkhead)

    with pytest.raises(BulkheadFullError):
        bulkhead.call(policy.call, lambda: 1)
    assert breaker.current_state == "closed"


def test_the_deadline_bounds_all_attempts_together(clock: FakeClock) -> None:
    down = Down()
    policy = Policy("stock", deadline_s=1.2, retry=retry_of(clock, attempts=9), clock=clock)

    with pytest.raises(TransientError):
        policy.call(down, idempotent=True)

    # 0.5 s of pause fit, another 1.0 s would not.
    assert (down.calls, clock.monotonic_s()) == (2, 0.5)


def test_nothing_is_called_when_the_deadline_outside_has_passed(
    clock: FakeClock, signals: Signals, heard: list[Signal]
) -> None:
    down = Down()
    policy = Policy("stock", deadline_s=5.0, signals=signals, clock=clock)

    with deadline(0.0, clock=clock), pytest.raises(DeadlineExceededError):
        policy.call(down)
    assert (down.calls, words(heard)) == (0, [("deadline", "refused")])


def test_the_fallback_gets_the_error_and_is_told_to_the_signals(
    signals: Signals, heard: list[Signal]
) -> None:
    policy = Policy("stock", fallback=lambda error: f"unknown: {error}", signals=signals)

    assert policy.call(Down()) == "unknown: down"
    assert [tuple(each[1:]) for each in heard] == [
        ("fallback", "stock", "answered", "TransientError")
    ]


@pytest.mark.parametrize("error", [ConfigurationError("wrong"), ValueError("a bug")])
def test_a_fallback_hides_no_bug(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        Policy("stock", fallback=lambda _: None).call(fail)


def test_a_fallback_that_fails_shows_both_errors() -> None:
    def no_cache(_: Exception) -> str:
        raise LookupError("nothing stored")

    with pytest.raises(LookupError, match="nothing stored") as caught:
        Policy("stock", fallback=no_cache).call(Down())
    assert isinstance(caught.value.__context__, TransientError)


def test_one_bus_hears_all_layers_that_have_none_of_their_own(
    clock: FakeClock, signals: Signals, heard: list[Signal]
) -> None:
    own: list[Signal] = []
    faults = Faults("stock", error_rate=1.0, signals=Signals(own.append))
    policy = Policy(
        "stock",
        fallback=lambda _: None,
        retry=retry_of(clock, attempts=2),
        faults=faults,
        signals=signals,
    )

    policy.call(lambda: 1, idempotent=True)

    assert words(heard) == [("retry", "retry"), ("retry", "gave up"), ("fallback", "answered")]
    assert words(own) == [("faults", "error")] * 2


def test_a_policy_that_retries_asks_for_idempotency(clock: FakeClock) -> None:
    @idempotent
    def reserve() -> str:
        return "reserved"

    policy = Policy("stock", retry=retry_of(clock))

    assert policy.call(reserve) == "reserved"
    with pytest.raises(ConfigurationError, match="idempotent=True"):
        policy.call(lambda: 1)
    assert Policy("stock").call(lambda: 1) == 1


def test_a_coroutine_function_is_refused() -> None:
    async def later() -> int:
        return 1

    policy: Any = Policy("stock")
    with pytest.raises(ConfigurationError, match="coroutine"):
        policy.call(later)


def test_callers_that_come_too_late_do_not_shrink_the_limit_of_the_others(
    clock: FakeClock,
) -> None:
    limit = AdaptiveLimit("stock", 20)
    policy = Policy("stock", bulkhead=limit, attempt_timeout_s=SOON_S)

    for _ in range(9):
        with deadline(0.0, clock=clock), pytest.raises(DeadlineExceededError):
            policy.call(lambda: 1)

    assert limit.limit == 20


# --- order ---


def layers_of(clock: FakeClock) -> dict[str, Any]:
    return {
        "fallback": Fallback("stock", lambda _: None),
        "deadline": Deadline("stock", 1.0),
        "retry": retry_of(clock),
        "breaker": breaker_of(),
        "bulkhead": AdaptiveLimit("stock"),
        "attempt timeout": AttemptTimeout("stock", 1.0),
        "faults": Faults("stock"),
    }


NAMES = list(layers_of(FakeClock()))


def test_layers_in_order_are_taken_and_gaps_are_no_matter(clock: FakeClock) -> None:
    layers = list(layers_of(clock).values())

    for count in range(len(layers) + 1):
        for chosen in itertools.combinations(layers, count):
            assert Policy.of(*chosen).layers == chosen


@pytest.mark.parametrize(("outer", "inner"), list(itertools.combinations(NAMES, 2)))
def test_two_layers_the_wrong_way_round_are_refused_with_the_reason(
    outer: str, inner: str, clock: FakeClock
) -> None:
    layers = layers_of(clock)

    with pytest.raises(ConfigurationError, match=f"^{outer} belongs outside of {inner}: .{{20}}"):
        Policy.of(layers[inner], layers[outer])


def test_a_wrong_order_is_seen_further_in_as_well(clock: FakeClock) -> None:
    layers = layers_of(clock)

    with pytest.raises(ConfigurationError, match="its attempts count as one call"):
        Policy.of(layers["fallback"], layers["breaker"], layers["retry"], layers["faults"])


def test_two_of_a_kind_and_what_is_no_layer_are_refused() -> None:
    bulkhead: Any = Bulkhead("stock", 1)

    with pytest.raises(ConfigurationError, match="two layers of one kind"):
        Policy.of(AdaptiveLimit("stock"), bulkhead)
    with pytest.raises(ConfigurationError, match="is no layer of a policy"):
        Policy.of(lambda: 1)  # type: ignore[arg-type]


def test_anything_with_a_call_can_be_the_breaker() -> None:
    class Counting:
        current_state = "closed"
        calls = 0

        def call(self, function: Any, /, *args: Any, **options: Any) -> Any:
            self.calls += 1
            return function(*args, **options)

    breaker = Counting()
    Policy("stock", breaker=breaker).call(lambda: 1)
    Policy.of(breaker, Bulkhead("stock", 1)).call(lambda: 1)

    assert breaker.calls == 2


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"deadline_s": 0.0}, {"attempt_timeout_s": -1.0}):
        with pytest.raises(ConfigurationError):
            Policy("stock", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="error_rate"):
        Faults("stock", error_rate=2.0)


# --- attempt timeout ---


class Hung:
    """Hangs until it is let go, and then has its effect."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.effects = threading.Semaphore(0)

    def __call__(self) -> None:
        assert self.let_go.wait(SOON_S)
        self.effects.release()


def test_a_timeout_lets_the_caller_go_and_does_not_kill_the_work(
    signals: Signals, heard: list[Signal]
) -> None:
    hung = Hung()
    policy = Policy("stock", attempt_timeout_s=0.001, signals=signals)

    with pytest.raises(AttemptTimeoutError, match=r"no answer after 0\.001 s") as caught:
        policy.call(hung)
    hung.let_go.set()

    assert hung.effects.acquire(timeout=SOON_S)
    assert caught.value.after_s == 0.001
    assert words(heard) == [("timeout", "timed out")]


def test_abandoned_attempts_have_a_limit(signals: Signals, heard: list[Signal]) -> None:
    hung = Hung()
    timeout = AttemptTimeout("stock", 0.001, most=2, signals=signals)
    for _ in range(2):
        with pytest.raises(AttemptTimeoutError):
            timeout.call(hung)

    with pytest.raises(BulkheadFullError):
        timeout.call(hung)
    assert timeout.running == 2
    hung.let_go.set()
    for _ in range(2):
        assert hung.effects.acquire(timeout=SOON_S)
    assert words(heard)[-1] == ("timeout", "refused")


def test_a_dependency_that_hangs_gets_no_more_threads_than_its_bulkhead_has_places() -> None:
    hung = Hung()
    policy = Policy("stock", bulkhead=Bulkhead("stock", 2), attempt_timeout_s=0.01)
    for _ in range(2):
        with pytest.raises(AttemptTimeoutError):
            policy.call(hung)

    with pytest.raises(BulkheadFullError):
        policy.call(hung)
    hung.let_go.set()
    for _ in range(2):
        assert hung.effects.acquire(timeout=SOON_S)


def test_an_attempt_is_not_given_more_time_than_the_deadline(clock: FakeClock) -> None:
    hung = Hung()
    timeout = AttemptTimeout("stock", SOON_S)

    with deadline(0.001, clock=clock), pytest.raises(AttemptTimeoutError, match=r"after 0\.001 s"):
        timeout.call(hung)
    with deadline(0.0, clock=clock), pytest.raises(DeadlineExceededError):
        timeout.call(hung)
    hung.let_go.set()


def test_answers_errors_and_the_deadline_cross_the_thread(clock: FakeClock) -> None:
    timeout = AttemptTimeout("stock", SOON_S)

    with deadline(5.0, clock=clock):
        assert timeout.call(remaining_s) == 5.0
    with pytest.raises(TransientError, match="down"):
        timeout.call(Down())
    assert timeout.running == 0


# --- faults ---


def outcomes(faults: Faults, calls: int = 200) -> list[str]:
    found = []
    for _ in range(calls):
        try:
            found.append(faults.call(lambda: "real"))
        except TransientError:
            found.append("error")
    return found


def test_the_same_seed_gives_the_same_faults() -> None:
    def made(seed: int) -> list[str]:
        return outcomes(
            Faults("s", error_rate=0.3, outcome_rate=0.3, outcome=lambda: "fake", seed=seed)
        )

    assert made(1) == made(1) != made(2)
    assert set(made(1)) == {"real", "error", "fake"}


def test_a_rate_that_is_changed_moves_no_other_fault() -> None:
    few, many = (
        outcomes(Faults("s", error_rate=0.2, outcome_rate=rate, outcome=lambda: "fake"))
        for rate in (0.1, 0.5)
    )

    assert [each == "error" for each in few] == [each == "error" for each in many]


def test_latency_is_slept_and_told(clock: FakeClock, signals: Signals, heard: list[Signal]) -> None:
    slept: list[float] = []
    faults = Faults("stock", latency_rate=1.0, latency_s=2.0, sleep=slept.append, signals=signals)

    assert faults.call(lambda: "real") == "real"
    assert (slept, words(heard)) == ([2.0], [("faults", "latency")])
