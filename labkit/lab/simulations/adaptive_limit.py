"""A limit that finds itself: how many requests may be inside while the capacity changes.

Model: 90 requests a second come at random to 10 workers that need 100 ms each; from second 60 to
120 only 4 work, so that at most 40 a second can be answered. Whoever finds the limit reached is
refused at once. An answer later than 0.4 s is of no use. AIMD: an answer in time raises the limit
by 1/limit, one that is late takes 15 % of it (additive increase, multiplicative decrease).
Assumptions: who was refused does not come back; service times are exponential; one queue for all.
It does not show: how several clients share a limit, or retries (see `metastable`).

What the figures say: without a limit, and with one that fits the good days, all that is answered in
the bad stretch is too late. The limit that adapts pays with a few refusals in calm.

Source: Jacobson, *Congestion Avoidance and Control* (1988); Netflix concurrency-limits.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from labkit.lab.simulations.events import Agenda

LOAD_PER_S, SERVICE_S, TIMEOUT_S = 90.0, 0.1, 0.4
WORKERS, FEW_WORKERS = 10, 4
TROUBLE_S = (60, 120)
END_S = 180
CALM, TROUBLE, AFTER = (20, 60), (70, 120), (150, 180)


@dataclass
class Aimd:
    """The limit that adapts; `decrease` is what a late answer leaves of it."""

    limit: float = 15.0
    decrease: float = 0.85
    least: float = 1.0

    def answered(self, latency_s: float) -> None:
        """Learn from an answer."""
        if latency_s <= TIMEOUT_S:
            self.limit += 1 / self.limit
        else:
            self.limit = max(self.least, self.limit * self.decrease)


@dataclass
class Fixed:
    """A limit that somebody wrote down; infinite: no limit."""

    limit: float = float("inf")

    def answered(self, latency_s: float) -> None:
        """Learn nothing."""


Limit = Aimd | Fixed
LIMITS: dict[str, Callable[[], Limit]] = {
    "none": Fixed,
    "fixed": lambda: Fixed(40),
    "adaptive": Aimd,
}


@dataclass(frozen=True)
class Outcome:
    """What came of a limit.

    Attributes:
        goodput: answers in time, per second.
        refused: refusals, per second.
        limit: the limit at the end of each second.
        latencies: when each answer came, and how long it took, in seconds.
    """

    goodput: np.ndarray
    refused: np.ndarray
    limit: np.ndarray
    latencies: np.ndarray

    def p99_s(self, since_s: int, until_s: int) -> float:
        """Return the latency that one answer in a hundred exceeds, in seconds."""
        at = self.latencies[:, 0]
        return float(np.quantile(self.latencies[(since_s <= at) & (at < until_s), 1], 0.99))


def run(limit: Limit, *, seed: int = 1) -> Outcome:
    """Let a limit meet the loss of six workers.

    Args:
        limit: `Aimd()` or `Fixed(n)`.
        seed: of arrivals and service times.
    """
    return _System(limit, random.Random(seed)).run()


def compare(*, seed: int = 1) -> pd.DataFrame:
    """Return goodput, p99, limit and refusals of each limit, in calm, in trouble and after it."""
    rows = []
    for name, limit in LIMITS.items():
        outcome = run(limit(), seed=seed)
        for stretch, (since, until) in {"calm": CALM, "trouble": TROUBLE, "after": AFTER}.items():
            rows.append(
                {
                    "limit": name,
                    "stretch": stretch,
                    "goodput": outcome.goodput[since:until].mean(),
                    "p99_s": outcome.p99_s(since, until),
                    "mean_limit": outcome.limit[since:until].mean(),
                    "refused": outcome.refused[since:until].mean(),
                }
            )
    return pd.DataFrame(rows).set_index(["limit", "stretch"])


@dataclass
class _System:
    limit: Limit
    rng: random.Random
    agenda: Agenda = field(default_factory=Agenda)
    queue: deque[float] = field(default_factory=deque)
    busy: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = {name: np.zeros(END_S) for name in ("goodput", "refused", "limit")}

    def run(self) -> Outcome:
        self._arrive_later()
        for second in range(END_S):
            self.agenda.at(second + 0.999, self._note_limit)
        # The workers that come back have nobody who calls them.
        self.agenda.at(TROUBLE_S[1], self._serve)
        self.agenda.run(until=END_S - 1e-9)
        return Outcome(**self.seen, latencies=np.array(self.latencies))

    def _arrive_later(self) -> None:
        self.agenda.at(self.agenda.now + self.rng.expovariate(LOAD_PER_S), self._arrive)

    def _arrive(self) -> None:
        if self.busy + len(self.queue) < self.limit.limit:
            self.queue.append(self.agenda.now)
            self._serve()
        else:
            self._count("refused", 1)
        self._arrive_later()

    def _serve(self) -> None:
        troubled = TROUBLE_S[0] <= self.agenda.now < TROUBLE_S[1]
        while self.queue and self.busy < (FEW_WORKERS if troubled else WORKERS):
            since = self.queue.popleft()
            self.busy += 1
            duration = self.rng.expovariate(1 / SERVICE_S)
            self.agenda.at(self.agenda.now + duration, partial(self._answer, since))

    def _answer(self, since: float) -> None:
        self.busy -= 1
        latency = self.agenda.now - since
        self.latencies.append((self.agenda.now, latency))
        self.limit.answered(latency)
        if latency <= TIMEOUT_S:
            self._count("goodput", 1)
        self._serve()

    def _note_limit(self) -> None:
        self._count("limit", self.limit.limit)

    def _count(self, what: str, amount: float) -> None:
        self.seen[what][int(self.agenda.now)] += amount
