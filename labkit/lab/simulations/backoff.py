"""Backoff: clients that all want the same row, and what waiting between tries costs or saves.

Model: N clients start at once. Each reads a row's version and writes with it; the write fails when
another came first, and the client waits by its policy and starts again. Every hop over the network
takes |N(10, 2)| ms. Base 5 ms, cap 2,000 ms.
Assumptions: the server answers at once, however many ask: it has infinite capacity.
It does not show: that waiting helps a server that is overloaded. Here nobody waits for a server, so
whoever never waits ends first; what is saved is work. See `metastable` for a server that saturates.
Exponential waiting without jitter saves little: clients that failed together come back together.

Source: Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog (2015), and its simulator,
aws-samples/aws-arch-backoff-simulator.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from labkit.lab.simulations.delays import POLICIES, Policy, Wait

BASE_MS, CAP_MS = 5.0, 2_000.0
HOP_MS, HOP_SD_MS = 10.0, 2.0


@dataclass(frozen=True)
class Contention:
    """What one run took.

    Attributes:
        writes_ms: when the server received each write, in order; most were refused.
        completion_ms: when the last client knew that it had written.
    """

    writes_ms: tuple[float, ...]
    completion_ms: float

    @property
    def calls(self) -> int:
        """How many writes the server received."""
        return len(self.writes_ms)


class _Arrival(NamedTuple):
    """A request that reaches the server; `version` is None for a read."""

    at: float
    order: int
    client: int
    version: int | None


def run(clients: int, policy: str, *, seed: int = 1) -> Contention:
    """Let clients contend for one row until each has written once.

    Args:
        clients: how many start at once.
        policy: one of `delays.POLICIES`.
        seed: of the network's delays and the jitter.
    """
    return _Race(clients, POLICIES[policy], random.Random(seed)).run()


class _Race:
    def __init__(self, clients: int, policy: Policy, rng: random.Random) -> None:
        self._policy, self._rng = policy, rng
        self._waits = [Wait(0, BASE_MS, BASE_MS, CAP_MS)] * clients
        self._queue: list[_Arrival] = []
        self._sent = 0
        self._version = 0
        self._writes: list[float] = []
        self._done = 0.0
        for client in range(clients):
            self._send(self._hop(), client, None)

    def run(self) -> Contention:
        while self._queue:
            arrival = heapq.heappop(self._queue)
            if arrival.version is None:
                self._send(arrival.at + self._hop() + self._hop(), arrival.client, self._version)
            else:
                self._write(arrival)
        return Contention(tuple(self._writes), self._done)

    def _write(self, arrival: _Arrival) -> None:
        self._writes.append(arrival.at)
        answered = arrival.at + self._hop()
        if arrival.version == self._version:
            self._version += 1
            self._done = max(self._done, answered)
        else:
            waited = self._wait(arrival.client)
            self._send(answered + waited + self._hop(), arrival.client, None)

    def _wait(self, client: int) -> float:
        before = self._waits[client]
        wait = before._replace(attempt=before.attempt + 1)
        delay = self._policy(wait, self._rng.random)
        self._waits[client] = wait._replace(previous=delay)
        return delay

    def _send(self, at: float, client: int, version: int | None) -> None:
        self._sent += 1
        heapq.heappush(self._queue, _Arrival(at, self._sent, client, version))

    def _hop(self) -> float:
        return abs(self._rng.normalvariate(HOP_MS, HOP_SD_MS))


def compare(clients: int = 100, *, runs: int = 20, seed: int = 1) -> pd.DataFrame:
    """Return calls and completion of every policy.

    Args:
        clients: how many start at once.
        runs: how many times each policy runs; run n of each has the same seed.
        seed: of the first run.

    Returns:
        The index `policy`; mean, standard deviation, 5th and 95th percentile of each.
    """
    rows = {name: _summary(clients, name, runs, seed) for name in POLICIES}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def _summary(clients: int, policy: str, runs: int, seed: int) -> dict[str, float]:
    found = [run(clients, policy, seed=seed + n) for n in range(runs)]
    measured = {
        "calls": pd.Series([each.calls for each in found]),
        "completion_ms": pd.Series([each.completion_ms for each in found]),
    }
    return {
        f"{name}{suffix}": float(value)
        for name, values in measured.items()
        for suffix, value in (
            ("", values.mean()),
            ("_sd", values.std(ddof=0)),
            ("_p5", values.quantile(0.05)),
            ("_p95", values.quantile(0.95)),
        )
    }


def growth(
    clients: Sequence[int] = (10, 40, 70, 100, 130, 160, 190), *, runs: int = 3, seed: int = 1
) -> pd.DataFrame:
    """Return how calls and completion grow with the number of clients.

    Returns:
        The columns `policy`, `clients`, `calls` and `completion_ms` (means).
    """
    rows = [
        {"policy": name, "clients": n, **_summary(n, name, runs, seed)}
        for name in POLICIES
        for n in clients
    ]
    return pd.DataFrame(rows, columns=["policy", "clients", "calls", "completion_ms"])


def write_times(clients: int = 100, *, seed: int = 1) -> pd.DataFrame:
    """Return when the writes of one run reached the server, by policy.

    Returns:
        The columns `policy` and `at_ms`, one row per write.
    """
    rows = [(name, at) for name in POLICIES for at in run(clients, name, seed=seed).writes_ms]
    return pd.DataFrame(rows, columns=["policy", "at_ms"])
