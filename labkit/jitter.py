"""Jitter: how long to wait before the next attempt, spread over clients and over time.

Guarantee: a pause is never longer than `cap_s`, at attempt 10,000 neither.
Not guaranteed: less load. Jitter spreads attempts, it does not reduce them; a budget does.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from enum import StrEnum

_MOST_DOUBLINGS = 1000  # a float knows few more


class Jitter(StrEnum):
    """How pauses are spread, so that clients which failed together do not come back together."""

    FULL = "full"
    EQUAL = "equal"
    DECORRELATED = "decorrelated"
    NONE = "none"


FULL, EQUAL, DECORRELATED, NONE = Jitter


def delay_s(
    attempt: int,
    *,
    base_s: float,
    cap_s: float,
    jitter: Jitter = FULL,
    random: Callable[[], float] = random_module.random,
    previous_s: float | None = None,
) -> float:
    """Return the pause after a failed attempt, in seconds.

    Args:
        attempt: the number of the attempt that failed, from 1.
        base_s: the longest pause after the first.
        cap_s: the longest pause of all.
        jitter: full: anywhere up to the longest; equal: in its upper half; decorrelated: from
            `base_s` to three times the pause before; none: the longest.
        random: numbers from 0 up to, not including, 1.
        previous_s: the pause before, for decorrelated.
    """
    if jitter is DECORRELATED:
        before_s = max(base_s, previous_s or base_s)
        return min(cap_s, base_s + random() * (before_s * 3 - base_s))
    # In this order, because a float that grows too large is an error and not infinity.
    longest_s = min(cap_s, base_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
    if jitter is NONE:
        return longest_s
    return random() * longest_s if jitter is FULL else (1 + random()) * longest_s / 2
