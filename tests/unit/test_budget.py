"""A retry budget: retries cost what successes have saved."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, strategies as st

from labkit.budget import RetryBudget
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError


def test_ten_successes_pay_for_one_retry(clock: FakeClock) -> None:
    budget = RetryBudget(0.1, 0.0, most=1, clock=clock)
    assert budget.take()

    for _ in range(9):
        budget.deposit()
    assert not budget.take()
    budget.deposit()

    assert budget.take()


def test_the_floor_lets_rare_callers_retry(clock: FakeClock) -> None:
    budget = RetryBudget(0.0, 0.5, most=1, clock=clock)
    assert budget.take()
    clock.advance(1.9)
    assert not budget.take()
    clock.advance(0.1)

    assert budget.take()


@given(
    ratio=st.floats(0, 1),
    floor=st.floats(0, 5),
    most=st.floats(1, 50),
    steps=st.lists(st.sampled_from(["success", "retry", "second"]), max_size=200),
)
def test_no_order_of_calls_gets_more_retries_than_were_saved(
    ratio: float, floor: float, most: float, steps: list[str]
) -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio, floor, most=most, clock=clock)
    taken = 0
    for step in steps:
        if step == "success":
            budget.deposit()
        elif step == "second":
            clock.advance(1.0)
        else:
            taken += budget.take()

    earned = ratio * steps.count("success") + floor * steps.count("second")
    assert taken <= most + earned + 1e-6
    assert 0 <= budget.saved <= most


def test_threads_together_take_no_more_than_there_is(clock: FakeClock) -> None:
    budget = RetryBudget(0.0, 0.0, most=100, clock=clock)
    taken: list[bool] = []

    def take_fifty() -> None:
        taken.extend(budget.take() for _ in range(50))

    threads = [threading.Thread(target=take_fifty) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(taken) == 100


@pytest.mark.parametrize("wrong", [{"ratio": -1}, {"floor_per_s": "1"}, {"most": 0}])
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryBudget(**wrong)
