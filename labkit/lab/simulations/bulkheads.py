"""Bulkheads: what a slow dependency does to those who do not need it.

Model: twenty workers serve two kinds of requests. The victim's, 100 a second, take 50 ms. The
other's, 20 a second, take 100 ms, and 5 s from second 20 to 40. Without a bulkhead the other may
hold all workers; with one it holds at most six places, and whoever finds them taken is refused at
once.
Assumptions: times are exponential around those means; nobody gives up, nobody asks again.
It does not show: how to choose the limit. Little's law does: rate × time, and something to spare.

Source: Nygard, *Release It!*, 2nd ed., ch. 5 ("Bulkheads").
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import simpy

WORKERS, LIMIT = 20, 6
VICTIM_PER_S, VICTIM_S = 100.0, 0.05
OTHER_PER_S, OTHER_S, SLOW_S = 20.0, 0.1, 5.0
SLOW = (20.0, 40.0)
END_S = 60.0

Process = Generator[simpy.Event, Any, None]


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        victim: when each of the victim's requests came, and how long it took, in seconds.
        other_served: requests of the other kind that were served.
        other_refused: those that were refused.
    """

    victim: list[tuple[float, float]] = field(default_factory=list)
    other_served: int = 0
    other_refused: int = 0

    def frame(self) -> pd.DataFrame:
        """Return the victim's requests: the columns `at_s` and `latency_s`."""
        return pd.DataFrame(sorted(self.victim), columns=["at_s", "latency_s"])

    def victim_s(self, quantile: float, during: tuple[float, float] = SLOW) -> float:
        """Return a quantile of the latency of the victim's requests that came in a stretch."""
        return float(
            np.quantile([took for at, took in self.victim if during[0] <= at < during[1]], quantile)
        )


def run(limit: int | None, *, seed: int = 1) -> Outcome:
    """Let one dependency become slow.

    Args:
        limit: how many workers its requests may hold; None: no bulkhead.
        seed: of arrivals and service times.
    """
    return _Pool(math.inf if limit is None else limit, random.Random(seed)).run()


class _Pool:
    def __init__(self, limit: float, rng: random.Random) -> None:
        self._limit, self._rng = limit, rng
        self._world = simpy.Environment()
        self._workers = simpy.Resource(self._world, WORKERS)
        self._inside = 0
        self._seen = Outcome()

    def run(self) -> Outcome:
        self._world.process(self._victims())
        self._world.process(self._others())
        self._world.run()
        return self._seen

    def _victims(self) -> Process:
        while self._world.now < END_S:
            yield self._world.timeout(self._rng.expovariate(VICTIM_PER_S))
            self._world.process(self._victim())

    def _victim(self) -> Process:
        since = self._world.now
        yield from self._work(VICTIM_S)
        self._seen.victim.append((since, self._world.now - since))

    def _others(self) -> Process:
        while self._world.now < END_S:
            yield self._world.timeout(self._rng.expovariate(OTHER_PER_S))
            if self._inside < self._limit:
                self._world.process(self._other())
            else:
                self._seen.other_refused += 1

    def _other(self) -> Process:
        self._inside += 1
        slow = SLOW[0] <= self._world.now < SLOW[1]
        yield from self._work(SLOW_S if slow else OTHER_S)
        self._inside -= 1
        self._seen.other_served += 1

    def _work(self, mean_s: float) -> Process:
        with self._workers.request() as turn:
            yield turn
            yield self._world.timeout(self._rng.expovariate(1 / mean_s))


def compare(*, seed: int = 1) -> pd.DataFrame:
    """Return the victim's latency before and during the trouble, and what became of the other.

    Returns:
        The index `bulkhead` (`without`, `with`); the columns `calm_p99_s`, `slow_p50_s`,
        `slow_p99_s`, `other_served` and `other_refused`.
    """
    rows = {
        name: _row(run(limit, seed=seed)) for name, limit in (("without", None), ("with", LIMIT))
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("bulkhead")


def _row(outcome: Outcome) -> dict[str, float]:
    return {
        "calm_p99_s": outcome.victim_s(0.99, (0.0, SLOW[0])),
        "slow_p50_s": outcome.victim_s(0.5),
        "slow_p99_s": outcome.victim_s(0.99),
        "other_served": outcome.other_served,
        "other_refused": outcome.other_refused,
    }
