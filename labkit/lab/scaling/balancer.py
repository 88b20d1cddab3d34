"""Load balancing over four real HTTP workers, one of them ten times slower than the others.

Eight clients send the next request when they have their answer, and the balancer
says to which worker. It knows what it sent and what came back, and nothing else.

Policies as in `simulations.balancing`: round robin, the less busy of two random ones, the least
busy of all; and round robin that leaves a worker out, for the next 40 requests, when its last
three answers took three times as long as the median of all workers.

Guarantee: every request is answered once, by a real process; none is left when `workers` ends.
Not guaranteed: the same figures twice. And since a client waits for its answer before it sends
again, no queue is longer than the clients are many: under round robin all of them wait at the slow
worker, where requests that come anyway would make its queue grow for ever.

Source: Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing* (2001); Envoy,
*Outlier detection*.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pandas as pd

from labkit.lab.scaling.http_workers import get, workers

SERVICE_S = 0.004
SLOWER = 10
WORKERS, CLIENTS, REQUESTS = 4, 8, 120
_LOOKED_AT, _TIMES_MEDIAN, _OUT_FOR = 3, 3.0, 40


class Balancer:
    """Knows how many requests each worker holds, and how long its last answers took.

    Args:
        count: how many workers there are.
        choose: the policy.
        eject: leave out a worker that is much slower than the others.
        seed: of random choices.
    """

    def __init__(self, count: int, choose: Choose, *, eject: bool = False, seed: int = 1) -> None:
        self.held = [0] * count
        self.sent = [0] * count
        self.random = random.Random(seed)
        self._choose, self._eject = choose, eject
        self._last: list[deque[float]] = [deque(maxlen=_LOOKED_AT) for _ in range(count)]
        self._out_until = [0] * count
        self._lock = Lock()

    def take(self) -> int:
        """Choose a worker for the next request."""
        with self._lock:
            chosen = self._choose(self, self._in_use())
            self.held[chosen] += 1
            self.sent[chosen] += 1
            return chosen

    def give_back(self, worker: int, took_s: float) -> None:
        """Note an answer, and leave the worker out if it is too slow."""
        with self._lock:
            self.held[worker] -= 1
            self._last[worker].append(took_s)
            if self._eject and self._is_outlier(worker):
                self._out_until[worker] = sum(self.sent) + _OUT_FOR
                self._last[worker].clear()

    def _in_use(self) -> list[int]:
        # Why not by the clock: counted in requests, it is the same on a slow machine.
        now = sum(self.sent)
        return [n for n, until in enumerate(self._out_until) if until <= now]

    def _is_outlier(self, worker: int) -> bool:
        means = {n: statistics.mean(seen) for n, seen in enumerate(self._last) if len(seen) > 1}
        return (
            len(self._last[worker]) == _LOOKED_AT
            and len(self._in_use()) == len(self.held)  # never more than one at once
            and means[worker] > _TIMES_MEDIAN * statistics.median(means.values())
        )


Choose = Callable[[Balancer, Sequence[int]], int]


def round_robin(balancer: Balancer, workers: Sequence[int]) -> int:
    """Take one after the other."""
    return workers[sum(balancer.sent) % len(workers)]


def two_choices(balancer: Balancer, workers: Sequence[int]) -> int:
    """Look at two random ones, and take the less busy."""
    return min(balancer.random.sample(workers, 2), key=balancer.held.__getitem__)


def least_connections(balancer: Balancer, workers: Sequence[int]) -> int:
    """Look at all, and take the least busy; among equals, a random one."""
    return min(workers, key=lambda n: (balancer.held[n], balancer.random.random()))


POLICIES: Mapping[str, tuple[Choose, bool]] = {
    "round robin": (round_robin, False),
    "two choices": (two_choices, False),
    "least connections": (least_connections, False),
    "round robin, ejection": (round_robin, True),
}


def compare(requests: int = REQUESTS) -> pd.DataFrame:
    """Send as many requests under each policy to the same four workers.

    Args:
        requests: how many under each.

    Returns:
        The index `policy`; `mean` and `p99` of the latency, in service times of a fast worker; and
        `slow_share`, the share of the requests that went to the slow one.
    """
    with workers([SERVICE_S * SLOWER] + [SERVICE_S] * (WORKERS - 1)) as addresses:
        rows = {policy: _run(addresses, policy, requests) for policy in POLICIES}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def _run(addresses: Sequence[str], policy: str, requests: int) -> dict[str, float]:
    choose, eject = POLICIES[policy]
    balancer = Balancer(len(addresses), choose, eject=eject)

    def send(_: int) -> float:
        worker = balancer.take()
        began_s = time.perf_counter()
        get(addresses[worker])
        took_s = time.perf_counter() - began_s
        balancer.give_back(worker, took_s)
        return took_s / SERVICE_S

    with ThreadPoolExecutor(CLIENTS) as clients:
        took = list(clients.map(send, range(requests)))
    return {
        "mean": statistics.mean(took),
        "p99": float(np.quantile(took, 0.99)),
        "slow_share": balancer.sent[0] / requests,
    }
