"""Functions that are paid by use, beside a container that is paid by the hour; cold and warm.

Model: a function costs memory × duration, and a fee per request; a container costs vCPU and memory
for each hour. Where both lines cross, the container becomes cheaper. Cold starts: a request goes to
an instance that is idle, the one used last first; if none is, a new one starts, which takes longer;
at the cap of concurrency it waits. An instance that idles too long ends.
Assumptions: prices are parameters, and the defaults are examples: look yours up. One container
carries all of the load that is compared, and the month has 730 hours.
It does not show: free tiers, network, logs, nor the people who run either.

Source: the price lists of AWS Lambda and AWS Fargate, as published for us-east-1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

HOURS_PER_MONTH = 730
_SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600


@dataclass(frozen=True)
class Prices:
    """What is paid, in dollars."""

    per_gb_s: float = 1.66667e-5
    per_million_requests: float = 0.20
    per_vcpu_h: float = 0.04048
    per_gb_h: float = 0.004445

    def function_request(self, duration_s: float, gb: float) -> float:
        """Return what one request costs."""
        return self.per_gb_s * gb * duration_s + self.per_million_requests / 1e6

    def function_month(self, per_s: float, duration_s: float, gb: float = 0.5) -> float:
        """Return what a month costs at a rate of requests."""
        return per_s * _SECONDS_PER_MONTH * self.function_request(duration_s, gb)

    def container_month(self, vcpu: float = 0.25, gb: float = 0.5) -> float:
        """Return what a month of a container costs, however much it works."""
        return HOURS_PER_MONTH * (vcpu * self.per_vcpu_h + gb * self.per_gb_h)

    def break_even_per_s(self, duration_s: float, gb: float = 0.5, vcpu: float = 0.25) -> float:
        """Return the rate of requests from which the container is cheaper.

        Args:
            duration_s: of a request.
            gb: memory of both.
            vcpu: of the container.
        """
        request = self.function_request(duration_s, gb)
        return self.container_month(vcpu, gb) / request / _SECONDS_PER_MONTH


def costs(rates: Sequence[float], duration_s: float, prices: Prices | None = None) -> pd.DataFrame:
    """Return dollars a month against requests a second.

    Returns:
        The columns `per_s`, `function` and `container`.
    """
    paid = prices or Prices()
    rows = [(r, paid.function_month(r, duration_s), paid.container_month()) for r in rates]
    return pd.DataFrame(rows, columns=["per_s", "function", "container"])


def break_evens(
    durations_s: Sequence[float] = (0.02, 0.1, 0.5), prices: Prices | None = None
) -> pd.DataFrame:
    """Return the rate and the requests a month at which both cost the same, by duration."""
    paid = prices or Prices()
    rows = [(each, paid.break_even_per_s(each)) for each in durations_s]
    frame = pd.DataFrame(rows, columns=["duration_s", "per_s"])
    return frame.assign(per_month=frame["per_s"] * _SECONDS_PER_MONTH)


@dataclass(frozen=True)
class Function:
    """How a function behaves; `cap`: the most instances (reserved concurrency), None: no limit."""

    duration_s: float = 0.1
    cold_start_s: float = 0.8
    idle_s: float = 60.0
    cap: int | None = None


def trickle_and_burst(
    *, per_s: float = 0.05, burst: int = 40, end_s: float = 600.0, seed: int = 1
) -> list[float]:
    """Return when requests come: a few at random, and a burst of one second half-way."""
    rng = random.Random(seed)
    middle = end_s / 2
    return sorted(
        [*_poisson(per_s, end_s, rng), *(middle + rng.random() for _ in range(burst))],
    )


def _poisson(per_s: float, end_s: float, rng: random.Random) -> Iterator[float]:
    at = rng.expovariate(per_s)
    while at < end_s:
        yield at
        at += rng.expovariate(per_s)


def run(function: Function, arrivals: Sequence[float]) -> pd.DataFrame:
    """Serve requests in the order of their arrival.

    Returns:
        One row per request: `at_s`, `latency_s`, `cold`, `waited_s` (for a place under the cap) and
        `instances` (alive when it was served).
    """
    free_from: list[float] = []
    rows = []
    for at in arrivals:
        free_from = [since for since in free_from if at - since < function.idle_s]
        start, cold = _place(free_from, at, function)
        end = start + function.duration_s + (function.cold_start_s if cold else 0.0)
        free_from.append(end)
        rows.append((at, end - at, cold, start - at, len(free_from)))
    return pd.DataFrame(rows, columns=["at_s", "latency_s", "cold", "waited_s", "instances"])


def _place(free_from: list[float], at: float, function: Function) -> tuple[float, bool]:
    """Return when a request begins, and whether on a new instance; an old one is taken out."""
    idle = [since for since in free_from if since <= at]
    full = function.cap is not None and len(free_from) >= function.cap
    if not idle and not full:
        return at, True
    taken = max(idle) if idle else min(free_from)
    free_from.remove(taken)
    return max(at, taken), False
