"""How long to wait before trying again: the five policies, as pure functions of the attempt.

Model: `base` doubles with every attempt up to `cap`; jitter takes a random part of it.
Assumptions: none; the unit of time is the caller's.
It does not show: what a policy costs the server. That is `backoff` and `metastable`.

Source: Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Random = Callable[[], float]


class Wait(NamedTuple):
    """What a policy looks at: which `attempt` failed (from 1) and how long was waited before."""

    attempt: int
    previous: float
    base: float
    cap: float


Policy = Callable[[Wait, Random], float]


def exponential(wait: Wait, random: Random) -> float:  # noqa: ARG001 - one shape for all
    """Return base × 2ⁿ, at most cap: everybody waits equally long."""
    return _grown(wait)


def equal_jitter(wait: Wait, random: Random) -> float:
    """Return half of the exponential wait, and a random part of the other half."""
    half = _grown(wait) / 2
    return half + half * random()


def full_jitter(wait: Wait, random: Random) -> float:
    """Return a random part of the exponential wait."""
    return _grown(wait) * random()


def decorrelated_jitter(wait: Wait, random: Random) -> float:
    """Return a random time between base and three times the wait before, at most cap."""
    longest = max(wait.base, wait.previous * 3)
    return min(wait.cap, wait.base + (longest - wait.base) * random())


def none(wait: Wait, random: Random) -> float:  # noqa: ARG001 - one shape for all
    """Return no wait at all."""
    return 0.0


POLICIES: Mapping[str, Policy] = {
    "none": none,
    "exponential": exponential,
    "equal": equal_jitter,
    "full": full_jitter,
    "decorrelated": decorrelated_jitter,
}


def _grown(wait: Wait) -> float:
    # Why not base * 2**n alone: after a day of failures the power no longer fits in a float.
    return min(wait.cap, wait.base * 2.0 ** min(wait.attempt, 60))
