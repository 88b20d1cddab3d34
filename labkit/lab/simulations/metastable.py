"""The system that does not come back: a short fault whose consequence keeps itself alive.

Model: requests arrive at random, 80 a second, at a server that works off 100 a second, one after
another. A client waits 1 s for an answer. From second 20 to 30 the server manages only 20 a second;
then it is well again. A defence says what the client and the server do about it.
Assumptions: the server does not know that a client has gone, unless it looks at the age of a
request; to throw one away costs it nothing. Times between arrivals and of service are exponential.
It does not show: a queue of limited length, or several servers.

What the figures say: jitter moves retries, it does not make them fewer; only what makes them fewer
(a budget, a breaker, work thrown away in time) lets the system come back. A request that is thrown
away only at its deadline leaves the server busy with those that are about to expire.

Source: Huang et al., *Metastable Failures in the Wild*, OSDI 2022; Brooker, *Fixing retries with
token buckets and circuit breakers* (2022).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from labkit.lab.simulations.delays import POLICIES, Wait
from labkit.lab.simulations.events import Agenda

LOAD_PER_S, CAPACITY_PER_S, TROUBLE_PER_S = 80.0, 100.0, 20.0
TIMEOUT_S = 1.0
TROUBLE_S = (20.0, 30.0)
END_S = 160
JITTER_BASE_S, JITTER_CAP_S = 0.1, 2.0
# Back to normal: five seconds in a row whose mean is at least this part of the load.
_NORMAL, _STRETCH_S = 0.9, 5
_LEAST_CALLS, _WINDOW_S, _OPEN_S = 20, 2.0, 5.0
_MOST_TOKENS = 10.0


@dataclass(frozen=True)
class Defence:
    """What is done about a failure.

    Attributes:
        retries: how often a client tries again.
        jitter: it waits a random time before; otherwise it tries again at once.
        budget: what a success adds to the bucket from which each retry takes 1; None: no bucket.
        breaker: calls are refused while at least half of them fail.
        drop_after_s: the server throws away what waited longer; None: it serves all.
    """

    retries: int = 0
    jitter: bool = False
    budget: float | None = None
    breaker: bool = False
    drop_after_s: float | None = None


DEFENCES: Mapping[str, Defence] = {
    "none": Defence(),
    "retries": Defence(3),
    "retries, jitter": Defence(3, jitter=True),
    "retries, budget": Defence(3, jitter=True, budget=0.1),
    "retries, breaker": Defence(3, jitter=True, breaker=True),
    "retries, drop at deadline": Defence(3, jitter=True, drop_after_s=TIMEOUT_S),
    "retries, drop at half": Defence(3, jitter=True, drop_after_s=TIMEOUT_S / 2),
    "budget, drop at half": Defence(3, jitter=True, budget=0.1, drop_after_s=TIMEOUT_S / 2),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a defence, per second.

    Attributes:
        goodput: answers that a client still waited for.
        offered: requests that reached the server, retries included.
        refused: requests that the breaker did not let through.
    """

    goodput: np.ndarray
    offered: np.ndarray
    refused: np.ndarray

    def mean_goodput(self, since_s: int, until_s: int) -> float:
        """Return the answers per second between two seconds."""
        return float(self.goodput[since_s:until_s].mean())

    @property
    def peak_offered(self) -> int:
        """The most requests of one second."""
        return int(self.offered.max())

    @property
    def recovered_at_s(self) -> int | None:
        """The first second from which five in a row are normal again, after the cause is gone."""
        for second in range(int(TROUBLE_S[1]), END_S - _STRETCH_S + 1):
            if self.mean_goodput(second, second + _STRETCH_S) >= _NORMAL * LOAD_PER_S:
                return second
        return None


def run(defence: Defence, *, seed: int = 5) -> Outcome:
    """Let a defence meet the trouble.

    Args:
        defence: one of `DEFENCES`, or your own.
        seed: of arrivals, service times and jitter.
    """
    return _System(defence, random.Random(seed)).run()


def compare(*, seed: int = 5) -> pd.DataFrame:
    """Return the table of all defences.

    Returns:
        The index `defence`; mean goodput in three stretches, the peak of the load, and the second
        of recovery (NaN: never).
    """
    outcomes = {name: run(defence, seed=seed) for name, defence in DEFENCES.items()}
    rows = {
        name: {
            "30-40 s": outcome.mean_goodput(30, 40),
            "60-80 s": outcome.mean_goodput(60, 80),
            "140-160 s": outcome.mean_goodput(140, 160),
            "peak_offered": outcome.peak_offered,
            "recovered_at_s": outcome.recovered_at_s,
        }
        for name, outcome in outcomes.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("defence")


@dataclass(eq=False)
class _Attempt:
    number: int
    since: float
    epoch: int
    waited: float = 0.0
    answered: bool = False


@dataclass
class _Breaker:
    """Opens when half of the calls of 2 s failed; then lets one through."""

    epoch: int = 0
    _opened: float | None = None
    _trying: bool = False
    _results: deque[tuple[float, bool]] = field(default_factory=deque)

    def admits(self, now: float) -> bool:
        if self._opened is None:
            return True
        if self._trying or now < self._opened + _OPEN_S:
            return False
        self._trying = True
        return True

    def record(self, now: float, epoch: int, *, ok: bool) -> None:
        # A call that began before the last change says nothing about now.
        if epoch != self.epoch:
            return
        if self._opened is not None:
            self._change(None if ok else now)
            return
        self._results.append((now, ok))
        while self._results[0][0] < now - _WINDOW_S:
            self._results.popleft()
        if not ok and self._half_fails():
            self._change(now)

    def _half_fails(self) -> bool:
        failed = sum(not ok for _, ok in self._results)
        return len(self._results) >= _LEAST_CALLS and failed * 2 >= len(self._results)

    def _change(self, opened: float | None) -> None:
        self._opened, self._trying = opened, False
        self._results.clear()
        self.epoch += 1


class _System:
    def __init__(self, defence: Defence, rng: random.Random) -> None:
        self._defence, self._rng = defence, rng
        self._agenda = Agenda()
        self._queue: deque[_Attempt] = deque()
        self._busy = False
        self._tokens = 0.0
        self._breaker = _Breaker()
        self._seen = {name: np.zeros(END_S, int) for name in ("goodput", "offered", "refused")}

    def run(self) -> Outcome:
        self._arrive_later()
        # Nothing is counted at the end itself.
        self._agenda.run(until=END_S - 1e-9)
        return Outcome(**self._seen)

    def _arrive_later(self) -> None:
        when = self._agenda.now + self._rng.expovariate(LOAD_PER_S)
        self._agenda.at(when, self._arrive)

    def _arrive(self) -> None:
        self._call(1, 0.0)
        self._arrive_later()

    def _call(self, number: int, waited: float) -> None:
        if self._defence.breaker and not self._breaker.admits(self._agenda.now):
            self._count("refused")
            return
        self._count("offered")
        attempt = _Attempt(number, self._agenda.now, self._breaker.epoch, waited)
        self._agenda.at(attempt.since + TIMEOUT_S, lambda: self._time_out(attempt))
        self._queue.append(attempt)
        self._serve()

    def _serve(self) -> None:
        self._drop_old()
        if self._busy or not self._queue:
            return
        self._busy = True
        attempt = self._queue.popleft()
        troubled = TROUBLE_S[0] <= self._agenda.now < TROUBLE_S[1]
        duration = self._rng.expovariate(TROUBLE_PER_S if troubled else CAPACITY_PER_S)
        self._agenda.at(self._agenda.now + duration, lambda: self._answer(attempt))

    def _drop_old(self) -> None:
        limit = self._defence.drop_after_s
        while limit and self._queue and self._agenda.now - self._queue[0].since > limit:
            self._queue.popleft()

    def _answer(self, attempt: _Attempt) -> None:
        self._busy = False
        if self._agenda.now - attempt.since <= TIMEOUT_S:
            attempt.answered = True
            self._count("goodput")
            self._tokens = min(_MOST_TOKENS, self._tokens + (self._defence.budget or 0.0))
            self._breaker.record(self._agenda.now, attempt.epoch, ok=True)
        self._serve()

    def _time_out(self, attempt: _Attempt) -> None:
        if attempt.answered:
            return
        self._breaker.record(self._agenda.now, attempt.epoch, ok=False)
        if attempt.number <= self._defence.retries and self._may_retry():
            self._retry(attempt)

    def _may_retry(self) -> bool:
        if self._defence.budget is None:
            return True
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _retry(self, attempt: _Attempt) -> None:
        wait = Wait(attempt.number, attempt.waited, JITTER_BASE_S, JITTER_CAP_S)
        delay = POLICIES["full"](wait, self._rng.random) if self._defence.jitter else 0.0
        self._agenda.at(self._agenda.now + delay, lambda: self._call(attempt.number + 1, delay))

    def _count(self, what: str) -> None:
        self._seen[what][int(self._agenda.now)] += 1
