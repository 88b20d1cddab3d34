"""Choosing a time limit: what a short one breaks, and what a long one costs.

Model: the answers of a dependency take a lognormal time around 50 ms; one call in a hundred is
never answered (its process died, the packet is lost). A limit that is shorter than the answer is a
*false timeout*: the work was or will be done, and the caller does not know. A limit that is longer
lets the caller wait for an answer that never comes.
Assumptions: latencies are independent of the load and of the limit.
It does not show: the outcome of what timed out. It is unknown, neither success nor failure: only an
idempotency key makes asking again safe.

Source: Brooker, *Timeouts, retries, and backoff with jitter*, Amazon Builders' Library: choose the
share of false timeouts that you accept, and take that percentile of the latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

MEDIAN_MS, SIGMA = 50.0, 0.6
LOST_SHARE = 0.01
MARKS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Dependency:
    """Latencies in milliseconds of the calls that are answered, infinite for those that are not."""

    latencies_ms: np.ndarray

    @property
    def answered_ms(self) -> np.ndarray:
        """The latencies of the calls that are answered."""
        answered: np.ndarray = self.latencies_ms[np.isfinite(self.latencies_ms)]
        return answered

    def percentile_ms(self, share: float) -> float:
        """Return the limit that this share of the answers keeps."""
        return float(np.quantile(self.answered_ms, share))

    def false_timeouts(self, limit_ms: float) -> float:
        """Return the share of the answers that come after the limit."""
        return float((self.answered_ms > limit_ms).mean())

    def waiting_ms(self, limit_ms: float) -> float:
        """Return the mean time that a caller waits, answered or not."""
        return float(np.minimum(self.latencies_ms, limit_ms).mean())


def observe(calls: int = 200_000, *, seed: int = 1) -> Dependency:
    """Return the latencies of calls without any limit."""
    rng = np.random.default_rng(seed)
    latencies = rng.lognormal(math.log(MEDIAN_MS), SIGMA, calls)
    return Dependency(np.where(rng.random(calls) < LOST_SHARE, math.inf, latencies))


def false_timeouts_in_theory(limit_ms: float) -> float:
    """Return the probability that a lognormal answer exceeds the limit."""
    return 0.5 * math.erfc(math.log(limit_ms / MEDIAN_MS) / SIGMA / math.sqrt(2))


def curve(dependency: Dependency, limits_ms: Sequence[float] | None = None) -> pd.DataFrame:
    """Return what each limit breaks and costs.

    Args:
        dependency: from `observe`.
        limits_ms: 40 from 20 ms to 30 s when not given.

    Returns:
        The columns `limit_ms`, `false_timeouts` (share of the answers), `theory`, `waiting_ms`
        (mean over all calls) and `waiting_lost_ms` (mean that the unanswered add to each call).
    """
    limits = np.geomspace(20, 30_000, 40) if limits_ms is None else limits_ms
    rows = [_row(dependency, float(limit)) for limit in limits]
    return pd.DataFrame(rows)


def marks(dependency: Dependency) -> pd.DataFrame:
    """Return the same at p50, p99 and p99.9 of the answers; the index is `mark`."""
    rows = {
        name: _row(dependency, dependency.percentile_ms(share)) for name, share in MARKS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mark")


def _row(dependency: Dependency, limit_ms: float) -> dict[str, float]:
    lost = float(np.isinf(dependency.latencies_ms).mean())
    return {
        "limit_ms": limit_ms,
        "false_timeouts": dependency.false_timeouts(limit_ms),
        "theory": false_timeouts_in_theory(limit_ms),
        "waiting_ms": dependency.waiting_ms(limit_ms),
        "waiting_lost_ms": lost * limit_ms,
    }
