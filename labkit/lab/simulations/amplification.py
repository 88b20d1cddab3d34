"""Retries multiply: by attempt, and by layer.

Model: a call fails with probability x, each time anew; whoever calls tries up to n times. Theory:
success 1-xⁿ, load (1-xⁿ)/(1-x) calls per request, n when all fail. With a budget, a retry takes a
token and a success puts a tenth of one back. The layers are real nested functions, each of which
tries three times, and the calls that reach the last one are counted.
Assumptions: failures are independent. In an outage they are not: there, the theory's n is certain.
It does not show: waiting (see `backoff`), nor what the load does to the server (see `metastable`).

Source: Beyer et al., *Site Reliability Engineering*, ch. 22; Brooker, *Fixing retries with token
buckets and circuit breakers* (2022).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

ATTEMPTS = 4
FAILURES = tuple(n / 10 for n in range(11))
DEPOSIT, MOST_TOKENS = 0.1, 10.0


class Effect(NamedTuple):
    """What a policy brings and costs: `success` (0 to 1), and `load` in calls per request."""

    success: float
    load: float


def theory(x: float, attempts: int = ATTEMPTS) -> Effect:
    """Return what independent failures give.

    Args:
        x: the probability that a call fails.
        attempts: at most how many calls per request.

    >>> theory(0.5, 4)
    Effect(success=0.9375, load=1.875)
    """
    success = 1 - x**attempts
    return Effect(success, success / (1 - x) if x < 1 else float(attempts))


def simulate(
    x: float,
    attempts: int = ATTEMPTS,
    *,
    deposit: float | None = None,
    requests: int = 5_000,
    seed: int = 1,
) -> Effect:
    """Count successes and calls.

    Args:
        x: the probability that a call fails.
        attempts: at most how many calls per request.
        deposit: what a success puts into the bucket of tokens; None: retries need no token.
        requests: how many.
        seed: of the failures.
    """
    rng = random.Random(seed)
    tokens, won, calls = MOST_TOKENS, 0, 0
    for _ in range(requests):
        for attempt in range(attempts):
            if attempt and deposit is not None:
                if tokens < 1:
                    break
                tokens -= 1
            calls += 1
            if rng.random() >= x:
                won += 1
                tokens = min(MOST_TOKENS, tokens + (deposit or 0))
                break
    return Effect(won / requests, calls / requests)


def curves(xs: Sequence[float] = FAILURES, *, seed: int = 1) -> pd.DataFrame:
    """Return success and load against the probability of failure.

    Returns:
        The columns `policy` (`none`, `retries`, `budget`), `x`, `success`, `load`, and what theory
        says: `theory_success`, `theory_load`, empty for the budget.
    """
    policies = {"none": (1, None), "retries": (ATTEMPTS, None), "budget": (ATTEMPTS, DEPOSIT)}
    rows = []
    for policy, (attempts, deposit) in policies.items():
        for x in xs:
            found = simulate(x, attempts, deposit=deposit, seed=seed)
            said = theory(x, attempts) if deposit is None else Effect(float("nan"), float("nan"))
            rows.append((policy, x, *found, *said))
    names = ["policy", "x", "success", "load", "theory_success", "theory_load"]
    return pd.DataFrame(rows, columns=names)


class DownError(Exception):
    """The last layer does not answer."""


def layered(depth: int, attempts: int = 3) -> int:
    """Call through layers that each try again, and count what reaches the last one.

    Args:
        depth: how many layers retry.
        attempts: how often each tries.

    Returns:
        The number of calls that a request causes while everything is down.
    """
    reached = 0

    def down() -> None:
        nonlocal reached
        reached += 1
        raise DownError

    call: Callable[[], None] = down
    for _ in range(depth):
        call = _retrying(call, attempts)
    try:
        call()
    except DownError:
        return reached
    raise AssertionError("the last layer always fails")


def layers(depths: Sequence[int] = (1, 2, 3, 4), attempts: int = 3) -> pd.DataFrame:
    """Return the calls by depth, with theory's `attempts ** depth` beside them."""
    rows = [(depth, layered(depth, attempts), attempts**depth) for depth in depths]
    return pd.DataFrame(rows, columns=["depth", "calls", "theory"])


def _retrying(call: Callable[[], None], attempts: int) -> Callable[[], None]:
    def again() -> None:
        for _ in range(attempts - 1):
            try:
                return call()
            except DownError:
                continue
        return call()

    return again
