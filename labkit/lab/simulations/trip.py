"""When a breaker trips: a counter of failures in a row beside a rate of failures.

Model: each call fails with probability p. The counter trips at five failures in a row. The rate
trips when half of the last hundred calls failed, and at least twenty were made. Theory for the
counter: (1-pⁿ) / (pⁿ(1-p)) calls on average.
Assumptions: failures are independent, and one breaker sees the calls of all processes.
It does not show: a window of time, or slow calls. A rate over few calls trips by bad luck as well:
at p = 0.4 it waits four times as long as the counter and trips all the same.

Source: Feller, *An Introduction to Probability Theory*, vol. 1, ch. XIII (success runs).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

IN_A_ROW = 5
MOST_CALLS = 5_000


@dataclass
class Counter:
    """Trips at failures in a row; one success erases them all."""

    in_a_row: int = IN_A_ROW
    _failures: int = 0

    def trips(self, *, failed: bool) -> bool:
        """Note a call, and return whether that trips."""
        self._failures = self._failures + 1 if failed else 0
        return self._failures >= self.in_a_row


@dataclass
class Rate:
    """Trips when a share of the last calls failed."""

    share: float = 0.5
    least_calls: int = 20
    window: int = 100
    _last: deque[bool] = field(default_factory=deque)
    _failures: int = 0

    def trips(self, *, failed: bool) -> bool:
        """Note a call, and return whether that trips."""
        self._last.append(failed)
        self._failures += failed
        if len(self._last) > self.window:
            self._failures -= self._last.popleft()
        return len(self._last) >= self.least_calls and (
            self._failures >= self.share * len(self._last)
        )


Rule = Counter | Rate
RULES: dict[str, Callable[[], Rule]] = {"counter": Counter, "rate": Rate}


def theory(p: float, in_a_row: int = IN_A_ROW) -> float:
    """Return the mean number of calls until so many fail in a row.

    >>> round(theory(0.5))
    62
    """
    return (1 - p**in_a_row) / (p**in_a_row * (1 - p)) if p < 1 else float(in_a_row)


def calls_until_trip(rule: Rule, failures: Iterable[bool]) -> int | None:
    """Return how many calls a rule lets through, that which trips it included; None: all."""
    for n, failed in enumerate(failures, 1):
        if rule.trips(failed=failed):
            return n
    return None


def compare(
    ps: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *,
    trials: int = 50,
    seed: int = 1,
) -> pd.DataFrame:
    """Return how many calls each rule needs, by the probability of failure.

    Returns:
        The columns `rule`, `p`, `calls` (mean of the trials that trip), `tripped` (share of them
        within `MOST_CALLS`) and `theory` (of the counter; NaN for the rate).
    """
    rows = [_row(name, p, trials, seed) for name in RULES for p in ps]
    return pd.DataFrame(rows)


def _row(name: str, p: float, trials: int, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    found = []
    for _ in range(trials):
        failures = (rng.random() < p for _ in range(MOST_CALLS))
        found.append(calls_until_trip(RULES[name](), failures))
    tripped = [each for each in found if each is not None]
    return {
        "rule": name,
        "p": p,
        "calls": sum(tripped) / len(tripped) if tripped else float("nan"),
        "tripped": len(tripped) / trials,
        "theory": theory(p) if name == "counter" else float("nan"),
    }


def interleaved(calls: int = 1_200) -> pd.DataFrame:
    """Let one process whose calls all fail share a rule with one that succeeds every third call.

    Returns:
        The index `rule`; `failures` that got through, and `tripped_at` (call; NaN: never).
    """
    failures = [n % 3 != 0 for n in range(1, calls + 1)]
    rows = {}
    for name, rule in RULES.items():
        at = calls_until_trip(rule(), failures)
        rows[name] = {"failures": sum(failures[:at]), "tripped_at": at}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis("rule")


def fleet(workers: int = 40, in_a_row: int = IN_A_ROW) -> pd.DataFrame:
    """Return how many calls must fail in an outage until every process is protected.

    Args:
        workers: processes, which take turns to call.
        in_a_row: failures that trip a breaker.

    Returns:
        The index `breaker` (`one per process`, `one for all`), the column `failing_calls`.
    """
    own = [Counter(in_a_row) for _ in range(workers)]
    shared = [Counter(in_a_row)] * workers
    rows = {"one per process": _failing_calls(own), "one for all": _failing_calls(shared)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["failing_calls"])
    return frame.rename_axis("breaker")


def _failing_calls(breakers: Sequence[Counter]) -> int:
    tripped: set[int] = set()
    calls = 0
    while len(tripped) < len(set(map(id, breakers))):
        for breaker in breakers:
            if id(breaker) not in tripped:
                calls += 1
                if breaker.trips(failed=True):
                    tripped.add(id(breaker))
    return calls
