"""Load balancing: to which server the next request goes, and what that does to its latency.

Model: requests arrive at random at n servers with a queue each; service is exponential with mean 1.
Policies: at random, round robin, the shorter of two random queues, the shortest of all. One server
may be slower. Ejection: every 20 time units, a server whose mean latency in them is more than three
times the median of all is left out, each time for 30 more; never more than one at once.
Assumptions: the balancer knows how many requests each server holds, at once and for free.
It does not show: several balancers with knowledge of different age, or retries. Ejection also hits
healthy servers that had bad luck, and the slow one gets requests again whenever it comes back.
Theory: at random, each server is an M/M/1 of mean 1/(1-ρ) and p99 ln(100)/(1-ρ); one queue for all
(M/M/n) is the best that can be. n balls into n bins: the fullest holds about ln n / ln ln n, with
two choices ln ln n / ln 2.

Source: Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing* (2001); Envoy,
*Outlier detection*.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from labkit.lab.simulations.queueing import mean_wait

SERVERS = 10
_CHECK_EVERY, _OUT_FOR, _TIMES_MEDIAN, _FEW_ANSWERS = 20.0, 30.0, 3.0, 5


@dataclass
class _Server:
    """Its queue, as the times at which its requests will leave."""

    number: int
    slower: float = 1.0
    leaving: deque[float] = field(default_factory=deque)

    def accept(self, now: float, service: float) -> float:
        """Take a request, and return when it leaves."""
        start = max(now, self.leaving[-1]) if self.leaving else now
        self.leaving.append(start + service * self.slower)
        return self.leaving[-1]

    def held(self, now: float) -> int:
        """Return how many requests are here."""
        while self.leaving and self.leaving[0] <= now:
            self.leaving.popleft()
        return len(self.leaving)


Choose = Callable[[Sequence[_Server], float, int, random.Random], _Server]


def _at_random(servers: Sequence[_Server], _now: float, _n: int, rng: random.Random) -> _Server:
    return servers[int(rng.random() * len(servers))]


def _round_robin(servers: Sequence[_Server], _now: float, n: int, _rng: random.Random) -> _Server:
    return servers[n % len(servers)]


def _two_choices(servers: Sequence[_Server], now: float, _n: int, rng: random.Random) -> _Server:
    one, other = rng.sample(servers, 2)
    return one if one.held(now) <= other.held(now) else other


def _least(servers: Sequence[_Server], now: float, _n: int, rng: random.Random) -> _Server:
    return min(servers, key=lambda server: (server.held(now), rng.random()))


POLICIES: Mapping[str, Choose] = {
    "random": _at_random,
    "round robin": _round_robin,
    "two choices": _two_choices,
    "least connections": _least,
}


@dataclass(frozen=True)
class Outcome:
    """What a policy gave.

    Attributes:
        latencies: of each request, waiting and service.
        ejections: server, since when, until when.
    """

    latencies: np.ndarray
    ejections: tuple[tuple[int, float, float], ...] = ()

    @property
    def mean(self) -> float:
        """The mean latency."""
        return float(self.latencies.mean())

    @property
    def p99(self) -> float:
        """The latency that one request in a hundred exceeds."""
        return float(np.quantile(self.latencies, 0.99))


def run(
    policy: str,
    *,
    load: float = 0.9,
    slow: float = 1.0,
    eject: bool = False,
    requests: int = 50_000,
    seed: int = 1,
) -> Outcome:
    """Send requests to ten servers.

    Args:
        policy: one of `POLICIES`.
        load: ρ of ten equal servers.
        slow: how many times longer server 0 takes.
        eject: leave out a server that is much slower than the others.
        requests: how many.
        seed: of arrivals, services and choices.
    """
    rng = random.Random(seed)
    servers = [_Server(n, slow if n == 0 else 1.0) for n in range(SERVERS)]
    choose, ejector = POLICIES[policy], _Ejector(servers) if eject else None
    now, found = 0.0, []
    for n in range(requests):
        now += rng.expovariate(load * SERVERS)
        in_use = ejector.in_use(now) if ejector else servers
        server = choose(in_use, now, n, rng)
        left = server.accept(now, rng.expovariate(1.0))
        found.append(left - now)
        if ejector:
            ejector.note(server.number, left, left - now)
    return Outcome(np.array(found), tuple(ejector.ejections) if ejector else ())


class _Ejector:
    def __init__(self, servers: Sequence[_Server]) -> None:
        self._servers = servers
        self._answers: list[deque[tuple[float, float]]] = [deque() for _ in servers]
        self._next = _CHECK_EVERY
        self._times = dict.fromkeys(range(len(servers)), 0)
        self._in_use = list(servers)
        self.ejections: list[tuple[int, float, float]] = []

    def note(self, server: int, left: float, latency: float) -> None:
        """Note an answer, which nobody knows before it is given."""
        self._answers[server].append((left, latency))

    def in_use(self, now: float) -> Sequence[_Server]:
        if now >= self._next:
            self._look(self._next)
            self._next += _CHECK_EVERY
        return self._in_use

    def _look(self, now: float) -> None:
        means = {n: self._mean(n, now) for n in range(len(self._servers))}
        known = {n: mean for n, mean in means.items() if mean is not None}
        out = {n for n, _, until in self.ejections if until > now}
        if known and not out:
            worst = max(known, key=lambda n: known[n])
            if known[worst] > _TIMES_MEDIAN * float(np.median(list(known.values()))):
                self._times[worst] += 1
                self.ejections.append((worst, now, now + _OUT_FOR * self._times[worst]))
                out = {worst}
        self._in_use = [server for server in self._servers if server.number not in out]

    def _mean(self, server: int, now: float) -> float | None:
        answers, seen = self._answers[server], []
        while answers and answers[0][0] <= now:
            seen.append(answers.popleft()[1])
        return sum(seen) / len(seen) if len(seen) >= _FEW_ANSWERS else None


def compare(
    *, load: float = 0.9, slow: float = 1.0, requests: int = 50_000, seed: int = 1
) -> pd.DataFrame:
    """Return mean and p99 of each policy; with a slow server also of round robin with ejection.

    Returns:
        The index `policy`, the columns `mean` and `p99`.
    """
    chosen = [(policy, False) for policy in POLICIES]
    chosen += [("round robin", True)] if slow > 1 else []
    rows = {}
    for policy, eject in chosen:
        found = run(policy, load=load, slow=slow, eject=eject, requests=requests, seed=seed)
        rows[f"{policy}, ejection" if eject else policy] = {"mean": found.mean, "p99": found.p99}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def theory(load: float = 0.9) -> dict[str, float]:
    """Return the mean latency at random, and that of one queue for all servers."""
    return {"random": 1 / (1 - load), "one queue": 1 + mean_wait(SERVERS, load)}


def fullest_bin(bins: int = 10_000, *, choices: int, seed: int = 1) -> int:
    """Throw as many balls as there are bins, and return how many the fullest holds.

    Args:
        bins: how many of both.
        choices: how many random bins a ball looks at; it takes the emptiest.
        seed: of the throws.
    """
    rng = random.Random(seed)
    held = [0] * bins
    for _ in range(bins):
        held[min((rng.randrange(bins) for _ in range(choices)), key=held.__getitem__)] += 1
    return max(held)
