"""The order of the layers: the same retry, breaker and fallback, put together in four ways.

Model: real nested functions around a dependency. In calm, one call in ten fails; then everything
fails, for a hundred requests. Retry tries three times. The breaker opens when half of its last
twenty calls failed, and stays open. The fallback answers something else.
Assumptions: no time passes: the outage ends before the breaker would let a trial through.
It does not show: waiting, budgets, or deadlines. `labkit.policy` builds the good order, and refuses
the others.

Source: resilience4j issues 515, 558 and 614: where people put the fallback and the retry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from labkit.errors import BreakerOpenError, TransientError
from labkit.lab.simulations.trip import Rate

CALM_REQUESTS, OUTAGE_REQUESTS, CALM_FAILURES = 2_000, 100, 0.1
ATTEMPTS = 3
ANSWER, INSTEAD = "answer", "instead"

Call = Callable[[], str]
Layer = Callable[[Call], Call]


@dataclass
class Dependency:
    """What is protected; it counts how often it is called."""

    rng: random.Random
    fails: float = CALM_FAILURES
    calls: int = 0

    def __call__(self) -> str:
        """Answer, or fail."""
        self.calls += 1
        if self.rng.random() < self.fails:
            raise TransientError
        return ANSWER


@dataclass
class Breaker:
    """Opens by a rate of failures, and does not close."""

    rule: Rate = field(default_factory=lambda: Rate(least_calls=20, window=20))
    is_open: bool = False
    refused: int = 0

    def around(self, call: Call) -> Call:
        """Return the call, protected."""

        def protected() -> str:
            if self.is_open:
                self.refused += 1
                raise BreakerOpenError("dependency", 5.0)
            try:
                answer = call()
            except TransientError:
                self.is_open = self.rule.trips(failed=True)
                raise
            self.rule.trips(failed=False)
            return answer

        return protected


def retry(on: tuple[type[Exception], ...]) -> Layer:
    """Return a layer that tries three times after these errors."""

    def around(call: Call) -> Call:
        def again() -> str:
            for _ in range(ATTEMPTS - 1):
                try:
                    return call()
                except on:
                    continue
            return call()

        return again

    return around


def fallback(call: Call) -> Call:
    """Return a layer that answers something else after any failure."""

    def around() -> str:
        try:
            return call()
        except (TransientError, BreakerOpenError):
            return INSTEAD

    return around


Order = Callable[[Breaker], list[Layer]]
# From the outside to the inside.
ORDERS: Mapping[str, Order] = {
    "fallback > retry > breaker": lambda b: [fallback, retry((TransientError,)), b.around],
    "fallback > breaker > retry": lambda b: [fallback, b.around, retry((TransientError,))],
    "fallback > retry of refusals > breaker": lambda b: [
        fallback,
        retry((TransientError, BreakerOpenError)),
        b.around,
    ],
    "retry > breaker > fallback": lambda b: [retry((TransientError,)), b.around, fallback],
}


def run(order: Order, *, seed: int = 1) -> dict[str, float | None]:
    """Let an order meet calm and outage.

    Args:
        order: one of `ORDERS`.
        seed: of the failures in calm.

    Returns:
        `calm_success`: real answers in calm, from 0 to 1; `calls_to_open`: calls that reached the
        dependency in the outage before the breaker opened (None: it never did); `calls`: all that
        reached it in the outage; `refused`: how often the breaker was asked in vain.
    """
    dependency, breaker = Dependency(random.Random(seed)), Breaker()
    call: Call = dependency
    for layer in reversed(order(breaker)):
        call = layer(call)
    calm = sum(_answer(call) == ANSWER for _ in range(CALM_REQUESTS))
    dependency.fails, dependency.calls = 1.0, 0
    opened: int | None = None
    for _ in range(OUTAGE_REQUESTS):
        _answer(call)
        opened = dependency.calls if breaker.is_open and opened is None else opened
    return {
        "calm_success": calm / CALM_REQUESTS,
        "calls_to_open": opened,
        "calls": dependency.calls,
        "refused": breaker.refused,
    }


def compare(*, seed: int = 1) -> pd.DataFrame:
    """Return what each of `ORDERS` gives; the index is `order`, from the outside to the inside."""
    rows = {name: run(order, seed=seed) for name, order in ORDERS.items()}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis("order")


def _answer(call: Call) -> str | None:
    try:
        return call()
    except (TransientError, BreakerOpenError):
        return None
