"""Hedging: the second question is asked in time, paid for, and never instead of the first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from labkit.budget import RetryBudget
from labkit.clock import FakeClock
from labkit.deadline import deadline, remaining_s
from labkit.errors import ConfigurationError, TransientError
from labkit.hedging import Hedge
from labkit.signals import Signal, Signals

SOON_S = 30.0  # a test that waits this long hangs


class Replica:
    """The first request hangs until it is let go; what each does then is said."""

    def __init__(self, first: Callable[[], str], second: Callable[[], str]) -> None:
        self.requests = 0
        self.arrived = threading.Event()
        self.let_go = threading.Event()
        self.ended = threading.Semaphore(0)
        self._answers = [first, second]
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
        try:
            if number == 0:
                self.arrived.set()
                assert self.let_go.wait(SOON_S)
            return self._answers[number]()
        finally:
            if number == 1:
                self.ended.release()


class InOrder(RetryBudget):
    """A budget that pays for a hedge once the first request has arrived."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self.replica = replica

    def take(self) -> bool:
        assert self.replica.arrived.wait(SOON_S)
        return super().take()


def fail(said: str) -> Callable[[], str]:
    def raise_() -> str:
        raise TransientError(said)

    return raise_


@pytest.fixture
def heard() -> list[Signal]:
    return []


def words(heard: list[Signal]) -> list[str]:
    return [each.what for each in heard]


def test_a_late_answer_is_asked_for_again_and_the_first_good_one_taken(
    heard: list[Signal],
) -> None:
    replica = Replica(lambda: "late", lambda: "quick")

    hedge = Hedge("stock", after_s=0.0, budget=InOrder(replica), signals=Signals(heard.append))
    assert hedge.call(replica, idempotent=True) == "quick"
    replica.let_go.set()

    assert (replica.requests, words(heard)) == (2, ["hedged", "won"])


def test_an_answer_in_time_is_not_hedged(heard: list[Signal]) -> None:
    hedge = Hedge("stock", after_s=SOON_S, signals=Signals(heard.append))

    assert hedge.call(lambda: "quick", idempotent=True) == "quick"
    assert heard == []


def test_a_hedge_that_fails_leaves_the_first_answer() -> None:
    replica = Replica(lambda: "late", fail("second"))
    answers: list[str] = []
    hedge = Hedge("stock", after_s=0.0, budget=InOrder(replica))
    caller = threading.Thread(target=lambda: answers.append(hedge.call(replica, idempotent=True)))
    caller.start()
    assert replica.ended.acquire(timeout=SOON_S)
    replica.let_go.set()
    caller.join()

    assert answers == ["late"]


def test_a_first_request_that_fails_leaves_the_hedges_answer() -> None:
    failed = threading.Event()

    def fail_first() -> str:
        failed.set()
        raise TransientError("first")

    def answer_then() -> str:
        replica.let_go.set()
        assert failed.wait(SOON_S)
        return "second"

    replica = Replica(fail_first, answer_then)
    hedge = Hedge("stock", after_s=0.0, budget=InOrder(replica))

    assert hedge.call(replica, idempotent=True) == "second"


def test_when_both_fail_the_first_error_comes_out() -> None:
    replica = Replica(fail("first"), fail("second"))
    replica.let_go.set()

    with pytest.raises(TransientError, match="first"):
        Hedge("stock", after_s=0.0, budget=InOrder(replica)).call(replica, idempotent=True)


def test_without_budget_the_first_request_goes_on(heard: list[Signal]) -> None:
    budget = RetryBudget(0.0, 0.0, most=1)
    assert budget.take()
    replica = Replica(lambda: "late", lambda: "quick")
    signals = Signals(heard.append, lambda _: replica.let_go.set())

    hedge = Hedge("stock", after_s=0.0, budget=budget, signals=signals)
    assert hedge.call(replica, idempotent=True) == "late"

    assert (replica.requests, words(heard)) == (1, ["no budget"])


def test_without_a_free_thread_the_request_is_made_by_the_caller() -> None:
    replica = Replica(lambda: "late", lambda: "quick")
    hedge = Hedge("stock", after_s=0.0, most=1)
    losing = threading.Thread(target=lambda: hedge.call(replica, idempotent=True))
    losing.start()
    while not hedge._threads.running:
        pass
    here: list[bool] = []
    main = threading.current_thread()

    hedge.call(lambda: here.append(threading.current_thread() is main), idempotent=True)
    replica.let_go.set()
    losing.join()

    assert here == [True]


def test_the_percentile_is_learned_and_nothing_is_hedged_before(clock: FakeClock) -> None:
    hedge = Hedge("stock", percentile=0.9, clock=clock)
    for n in range(19):
        hedge.call(clock.advance, float(n), idempotent=True)
    assert hedge.after_s is None

    hedge.call(clock.advance, 19.0, idempotent=True)

    assert hedge.after_s == 18.0


def test_a_request_in_another_thread_knows_the_deadline(clock: FakeClock) -> None:
    with deadline(5.0, clock=clock):
        left_s = Hedge("stock", after_s=SOON_S).call(remaining_s, idempotent=True)

    assert left_s == 5.0


def test_what_nobody_declared_idempotent_is_not_asked_twice() -> None:
    with pytest.raises(ConfigurationError, match="idempotent=True"):
        Hedge("stock", after_s=0.0).call(lambda: 1)


@pytest.mark.parametrize("wrong", [{"percentile": 1.5}, {"after_s": -1}, {"most": 0}])
def test_a_hedge_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Hedge("stock", **wrong)
