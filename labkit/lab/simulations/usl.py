"""The Universal Scalability Law, fitted to measured throughput, and Amdahl's beside it.

Model: n workers together manage X(n) = λn / (1 + σ(n-1) + κn(n-1)). σ is what they wait for each
other (a lock, a hot row), κ what they must agree about, each with each. With κ = 0 it is Amdahl's
law, with σ = κ = 0 a straight line. The peak is at N* = √((1-σ)/κ).
Fit: n/X is linear in 1, n-1 and n(n-1), so least squares give all three; each point counts by its
relative error. A coefficient that would be negative is set to zero and the rest fitted again.
Assumptions: one more worker is like the last, and the load suffices for all.
It does not show: why. And it tells little from few points: measure beyond the peak before you
believe one.

Source: Gunther, *Guerrilla Capacity Planning* (2007); Amdahl (1967).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Law:
    """A law of scaling.

    Attributes:
        single: λ, what one worker manages.
        sigma: contention.
        kappa: coherence.
        r2: the share of the variance of the throughput that it explains; NaN if not fitted.
    """

    single: float
    sigma: float
    kappa: float
    r2: float = math.nan

    def throughput(self, workers: float) -> float:
        """Return what so many workers manage together."""
        n = workers
        return self.single * n / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))

    @property
    def peak(self) -> float:
        """N*, the number of workers from which one more makes it less; infinite without one."""
        return math.sqrt(max(0.0, 1 - self.sigma) / self.kappa) if self.kappa else math.inf


def fit(workers: Sequence[float], throughput: Sequence[float]) -> Law:
    """Fit the Universal Scalability Law.

    Args:
        workers: numbers of workers.
        throughput: what each number managed, above zero.

    Raises:
        ValueError: fewer than three different numbers of workers.
    """
    return _fit(workers, throughput, terms=2)


def amdahl(workers: Sequence[float], throughput: Sequence[float]) -> Law:
    """Fit Amdahl's law: the same with κ = 0.

    Raises:
        ValueError: fewer than two different numbers of workers.
    """
    return _fit(workers, throughput, terms=1)


def linear(workers: Sequence[float], throughput: Sequence[float]) -> Law:
    """Return the straight line through the first point: nobody waits for anybody."""
    return _explained(Law(throughput[0] / workers[0], 0.0, 0.0), workers, throughput)


def _fit(workers: Sequence[float], throughput: Sequence[float], terms: int) -> Law:
    if len(set(workers)) <= terms:
        raise ValueError(
            f"para ajustar {terms + 1} parámetros hacen falta al menos {terms + 1} números de "
            "procesos distintos"
        )
    n, measured = np.asarray(workers, float), np.asarray(throughput, float)
    columns = np.stack([np.ones_like(n), n - 1, n * (n - 1)])
    for kept in range(terms, -1, -1):
        laws = [
            _explained(law, workers, throughput)
            for chosen in combinations(range(1, terms + 1), kept)
            if (law := _solve(columns, n / measured, chosen)) is not None
        ]
        if laws:
            return max(laws, key=lambda law: law.r2)
    raise AssertionError("a straight line has no coefficient that could be negative")


def _solve(columns: np.ndarray, inverse: np.ndarray, chosen: Sequence[int]) -> Law | None:
    """Return the law with the chosen terms, None when one of them is negative."""
    rows = columns[[0, *chosen]].T / inverse[:, None]
    found, *_ = np.linalg.lstsq(rows, np.ones_like(inverse), rcond=None)
    if (found <= 0).any():
        return None
    terms = dict(zip(chosen, (found[1:] / found[0]).tolist(), strict=True))
    return Law(float(1 / found[0]), terms.get(1, 0.0), terms.get(2, 0.0))


def _explained(law: Law, workers: Sequence[float], throughput: Sequence[float]) -> Law:
    measured = np.asarray(throughput, float)
    missed = measured - np.array([law.throughput(n) for n in workers])
    spread = float(((measured - measured.mean()) ** 2).sum())
    r2 = 1 - float((missed**2).sum()) / spread if spread else math.nan
    return Law(law.single, law.sigma, law.kappa, r2)
