"""Queueing: why waiting explodes before all servers are busy, beside the theory that says so.

Model: M/M/c. Arrivals at random times, exponential service of mean 1, c servers, one queue, first
come first served. Theory: Erlang's C formula for the mean wait; Little's law, L = λW.
Assumptions: arrivals do not react to the queue, which has no limit.
It does not show: bursts, or long service times that are more varied than exponential: both wait
more than Erlang says. Near ρ = 1 a run must be long: with 200,000 arrivals allow 10 %.

Two ways to run it, which give the same waits for the same customers: SimPy, to be read, and a heap
of the times at which servers become free, to be fast.

Source: Erlang (1917); Little, *A Proof for the Queuing Formula L = λW* (1961).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import simpy


@dataclass(frozen=True)
class Customers:
    """When they arrive, and how long each is served; the mean service is 1."""

    arrivals: np.ndarray
    services: np.ndarray


def customers(servers: int, load: float, count: int, *, seed: int = 1) -> Customers:
    """Draw customers.

    Args:
        servers: how many serve.
        load: ρ, the share of the time that a server is busy, below 1.
        count: how many arrive.
        seed: of arrivals and services.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / (load * servers), count)
    return Customers(np.cumsum(gaps), rng.exponential(1.0, count))


def waits(servers: int, arriving: Customers) -> np.ndarray:
    """Return how long each customer waits: a heap knows which server is free first."""
    free = [0.0] * servers
    found = []
    pairs = zip(arriving.arrivals.tolist(), arriving.services.tolist(), strict=True)
    for at, service in pairs:
        start = max(at, free[0])
        heapq.heapreplace(free, start + service)
        found.append(start - at)
    return np.array(found)


def waits_in_simpy(servers: int, arriving: Customers) -> np.ndarray:
    """Return the same: each customer is a process that asks for a server."""
    world = simpy.Environment()
    desk = simpy.Resource(world, capacity=servers)
    found = np.zeros(len(arriving.arrivals))

    def customer(n: int) -> Generator[simpy.Event, Any, None]:
        with desk.request() as turn:
            yield turn
            found[n] = world.now - arriving.arrivals[n]
            yield world.timeout(arriving.services[n])

    def door() -> Generator[simpy.Event, Any, None]:
        for n, at in enumerate(arriving.arrivals):
            yield world.timeout(max(0.0, at - world.now))
            world.process(customer(n))

    world.process(door())
    world.run()
    return found


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a customer has to wait.

    >>> erlang_c(1, 0.5)
    0.5
    """
    offered = servers * load
    # Erlang's B by its recursion: factorials of many servers do not fit in a float.
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mean_wait(servers: int, load: float) -> float:
    """Return the mean time in the queue, in mean services; infinite from ρ = 1.

    >>> round(mean_wait(4, 0.9), 3)
    1.969
    """
    return erlang_c(servers, load) / (servers * (1 - load)) if load < 1 else math.inf


def curve(
    servers: Sequence[int] = (1, 4),
    loads: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
    *,
    count: int = 150_000,
    seed: int = 1,
) -> pd.DataFrame:
    """Return the mean wait against the load; columns `servers`, `load`, `wait` and `theory`."""
    rows = [
        (c, load, waits(c, customers(c, load, count, seed=seed)).mean(), mean_wait(c, load))
        for c in servers
        for load in loads
    ]
    return pd.DataFrame(rows, columns=["servers", "load", "wait", "theory"])


def little(servers: int, load: float, *, count: int = 50_000, seed: int = 1) -> tuple[float, float]:
    """Measure both sides of Little's law, each in its own way.

    Returns:
        L, customers inside, counted at a thousand evenly spread moments; and λW, the rate of
        arrivals times the mean time inside.
    """
    arriving = customers(servers, load, count, seed=seed)
    inside = waits(servers, arriving) + arriving.services
    end = arriving.arrivals[-1]
    moments = np.linspace(0, end, 1_000)
    came = np.searchsorted(arriving.arrivals, moments)
    left = np.searchsorted(np.sort(arriving.arrivals + inside), moments)
    return float((came - left).mean()), float(count / end * inside.mean())
