"""Hedging: a second request when the first is late, and what it costs.

Model: a latency is lognormal around 10 ms, and one in fifty is ten times as long. After a time a
second, independent request is sent, and the first answer counts.
Assumptions: the two are independent (another server, another disk), and the extra load slows
nobody down. The request may be made twice: it only reads, or it is idempotent.
It does not show: what happens when all servers are slow at once. Then hedging only adds load.

Source: Dean and Barroso, *The Tail at Scale*, CACM (2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

MEDIAN_MS, SIGMA = 10.0, 0.3
SLOW_SHARE, SLOW_TIMES = 0.02, 10.0


def latencies(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return latencies in milliseconds."""
    slow = rng.random(count) < SLOW_SHARE
    return rng.lognormal(np.log(MEDIAN_MS), SIGMA, count) * np.where(slow, SLOW_TIMES, 1.0)


def compare(
    after: Sequence[float] = (0.5, 0.9, 0.95, 0.99), *, requests: int = 200_000, seed: int = 1
) -> pd.DataFrame:
    """Return p50, p99 and the extra load when the second request goes after a percentile.

    Args:
        after: percentiles of the latency, from 0 to 1.
        requests: how many.
        seed: of the latencies.

    Returns:
        The columns `after` (NaN: no hedging), `after_ms`, `p50_ms`, `p99_ms` and `extra_load`
        (second requests per request).
    """
    rng = np.random.default_rng(seed)
    first, second = latencies(rng, requests), latencies(rng, requests)
    rows = [_row(np.nan, np.inf, first, second)]
    rows += [_row(share, float(np.quantile(first, share)), first, second) for share in after]
    return pd.DataFrame(rows)


def _row(share: float, wait: float, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    answered = np.minimum(first, wait + second)
    return {
        "after": share,
        "after_ms": wait,
        "p50_ms": float(np.quantile(answered, 0.5)),
        "p99_ms": float(np.quantile(answered, 0.99)),
        "extra_load": float((first > wait).mean()),
    }
