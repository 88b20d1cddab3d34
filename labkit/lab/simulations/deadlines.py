"""A deadline that travels: work that is not done because nobody waits for it any more.

Model: a request passes three services, each with a queue and ten workers that need 100 ms on
average. 80 requests a second arrive; from second 10 to 20 it is 130, more than the 100 that
can be served.
The client waits one second for the whole. Without propagation each service does what is in its
queue. With it, a service looks before it begins, and skips what nobody waits for; with a margin it
also skips what could not be ready in time.
Assumptions: looking costs nothing; the client does not ask again.
It does not show: retries, which make it worse (see `metastable`).

Source: Beyer et al., *Site Reliability Engineering*, ch. 22, "Deadline propagation".
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import simpy

SERVICES, WORKERS, SERVICE_S = 3, 10, 0.1
LOAD_PER_S, RUSH_PER_S, RUSH_S = 80.0, 130.0, (10.0, 20.0)
DEADLINE_S, END_S = 1.0, 40.0
Process = Generator[simpy.Event, Any, None]
# How many mean services must still fit for each that is to come; minus infinity: nobody looks.
POLICIES: Mapping[str, float] = {
    "no deadline": -math.inf,
    "deadline": 0.0,
    "deadline, margin": 1.0,
}


@dataclass
class Work:
    """What came of a policy.

    Attributes:
        in_time: requests whose client still waited for the answer.
        late: requests that were answered too late, or skipped.
        useful_s: seconds of work for requests in time.
        wasted_s: seconds of work for the others.
    """

    in_time: int = 0
    late: int = 0
    useful_s: float = 0.0
    wasted_s: float = 0.0

    def ended(self, worked_s: float, *, in_time: bool) -> None:
        """Note a request that ended."""
        self.in_time += in_time
        self.late += not in_time
        self.useful_s += worked_s if in_time else 0.0
        self.wasted_s += 0.0 if in_time else worked_s

    @property
    def wasted_share(self) -> float:
        """The share of the work that nobody waited for."""
        return self.wasted_s / (self.useful_s + self.wasted_s)


@dataclass(frozen=True)
class _Request:
    """Until when its client waits, and what each service must do for it."""

    deadline: float
    needs: tuple[float, ...]


def run(margin: float, *, seed: int = 1) -> Work:
    """Let requests pass the three services.

    Args:
        margin: one of `POLICIES`.
        seed: of arrivals and service times.
    """
    return _Chain(margin, random.Random(seed)).run()


class _Chain:
    def __init__(self, margin: float, rng: random.Random) -> None:
        self._margin, self._rng = margin, rng
        self._world, self._work = simpy.Environment(), Work()
        self._services = [simpy.Resource(self._world, WORKERS) for _ in range(SERVICES)]

    def run(self) -> Work:
        self._world.process(self._door())
        self._world.run()
        return self._work

    def _door(self) -> Process:
        while self._world.now < END_S:
            rush = RUSH_S[0] <= self._world.now < RUSH_S[1]
            yield self._world.timeout(self._rng.expovariate(RUSH_PER_S if rush else LOAD_PER_S))
            # Drawn at the door, so that every policy meets the same requests.
            needs = tuple(self._rng.expovariate(1 / SERVICE_S) for _ in self._services)
            self._world.process(self._pass(_Request(self._world.now + DEADLINE_S, needs)))

    def _pass(self, request: _Request) -> Process:
        worked = 0.0
        for n, service in enumerate(self._services):
            with service.request() as turn:
                yield turn
                if self._hopeless(request, to_come=SERVICES - n):
                    self._work.ended(worked, in_time=False)
                    return
                yield self._world.timeout(request.needs[n])
                worked += request.needs[n]
        self._work.ended(worked, in_time=self._world.now <= request.deadline)

    def _hopeless(self, request: _Request, to_come: int) -> bool:
        return request.deadline - self._world.now < self._margin * SERVICE_S * to_come


def compare(*, seed: int = 1) -> pd.DataFrame:
    """Return requests in time and work, by policy.

    Returns:
        The index `policy`; `in_time` and `late` (requests), `useful_s`, `wasted_s` (seconds of
        work) and `wasted_share`.
    """
    works = {name: run(margin, seed=seed) for name, margin in POLICIES.items()}
    rows = {name: vars(work) | {"wasted_share": work.wasted_share} for name, work in works.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
