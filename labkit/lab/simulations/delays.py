"""How long to wait before trying again: the policies that `labkit.retry` waits by, and none at all.

Model: `base` doubles with every attempt up to `cap`; jitter takes a random part of it. The formulas
are those of `labkit.jitter`; the unit of time is the caller's.
Assumptions: the first wait is already twice the base, as in the simulator of the source.
It does not show: what a policy costs the server. That is `backoff` and `metastable`.

Source: Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from labkit.jitter import DECORRELATED, EQUAL, FULL, NONE, Jitter, delay_s

Random = Callable[[], float]


class Wait(NamedTuple):
    """What a policy looks at: which `attempt` failed (from 1) and how long was waited before."""

    attempt: int
    previous: float
    base: float
    cap: float


Policy = Callable[[Wait, Random], float]


def _at_once(wait: Wait, random: Random) -> float:  # noqa: ARG001 - one shape for all
    return 0.0


def _growing(jitter: Jitter) -> Policy:
    def delay(wait: Wait, random: Random) -> float:
        return delay_s(
            wait.attempt + 1,
            base_s=wait.base,
            cap_s=wait.cap,
            jitter=jitter,
            random=random,
            previous_s=wait.previous,
        )

    return delay


POLICIES: Mapping[str, Policy] = {
    "none": _at_once,
    "exponential": _growing(NONE),
    "equal": _growing(EQUAL),
    "full": _growing(FULL),
    "decorrelated": _growing(DECORRELATED),
}
