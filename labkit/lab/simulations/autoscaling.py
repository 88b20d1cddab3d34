"""Scaling by the length of the queue: workers that come with the backlog and go when it is gone.

Model: messages arrive evenly, 5 a second, and 120 a second for one minute; a worker handles 10 a
second. Every few seconds a controller looks at the backlog and asks for one worker per 50 messages,
within its limits. A worker that is asked for works after its start time; one is taken away only
when fewer have been enough for the whole cooldown.
Assumptions: messages are a fluid: nothing is random, so every figure is exact arithmetic.
A controller that looks at the backlog alone takes workers away as soon as there are enough of them,
because nothing waits then: the cooldown is what stands against that.
It does not show: work that grows with the number of workers (see `usl`), or messages that are lost
when a worker is taken away. They are not, if it finishes what it has begun.

Source: KEDA's scaler of Redis Streams (lag count, polling interval, cooldown).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

BASE_PER_S, BURST_PER_S, WORKER_PER_S = 5.0, 120.0, 10.0
BURST_S = (60, 120)
END_S = 600

Load = Callable[[int], float]


def burst(second: int) -> float:
    """Return what arrives in a second: one burst."""
    return BURST_PER_S if BURST_S[0] <= second < BURST_S[1] else BASE_PER_S


def waves(second: int) -> float:
    """Return what arrives in a second: ten seconds of much, twenty of nothing, again and again."""
    return BURST_PER_S if second % 30 < 10 else 0.0  # noqa: PLR2004 - as the sentence says


@dataclass(frozen=True)
class Scaler:
    """The controller.

    Attributes:
        least: how many workers there always are.
        most: how many there may be.
        per_worker: how many messages of the backlog ask for one worker.
        poll_s: how often it looks.
        start_s: how long a worker takes to begin.
        cooldown_s: how long fewer must be enough before one is taken away.
    """

    least: int = 0
    most: int = 12
    per_worker: int = 50
    poll_s: int = 5
    start_s: int = 2
    cooldown_s: int = 10

    def wanted(self, backlog: float) -> int:
        """Return how many workers a backlog asks for."""
        return max(self.least, min(self.most, math.ceil(backlog / self.per_worker)))


def fixed(workers: int) -> Scaler:
    """Return a controller that always wants the same."""
    return Scaler(least=workers, most=workers)


SCALERS = {
    "fixed 4": fixed(4),
    "fixed 12": fixed(12),
    "0 to 12": Scaler(),
    "1 to 12": Scaler(least=1),
}


def run(scaler: Scaler, load: Load = burst) -> pd.DataFrame:
    """Let a controller meet a load for ten minutes.

    Returns:
        One row per second: the columns `second`, `arrived`, `backlog` (at its end), `workers`
        (working) and `asked` (working or starting).
    """
    backlog, ready = 0.0, [0] * scaler.least
    asked_lately: list[int] = []
    rows = []
    for second in range(END_S):
        if second % scaler.poll_s == 0:
            asked_lately.append(scaler.wanted(backlog))
            _adjust(ready, max(asked_lately[-_looks(scaler) :]), second + scaler.start_s)
        working = sum(since <= second for since in ready)
        backlog = max(0.0, backlog + load(second) - working * WORKER_PER_S)
        rows.append((second, load(second), backlog, working, len(ready)))
    return pd.DataFrame(rows, columns=["second", "arrived", "backlog", "workers", "asked"])


def _looks(scaler: Scaler) -> int:
    """Return how many looks a cooldown lasts, the present one included."""
    return 1 + scaler.cooldown_s // scaler.poll_s


def _adjust(ready: list[int], wanted: int, at: int) -> None:
    """Start workers that are ready at a second, or end the youngest."""
    ready += [at] * (wanted - len(ready))
    del ready[wanted:]


@dataclass(frozen=True)
class Cost:
    """What a controller gave and took.

    Attributes:
        most_backlog: messages.
        cleared_after_s: the second, from the end of the burst, in which the queue runs empty; None:
            never.
        worker_s: seconds of workers, starting ones included: they are paid for.
        changes: how often the number of workers that are asked for changed.
    """

    most_backlog: float
    cleared_after_s: int | None
    worker_s: int
    changes: int


def cost(seen: pd.DataFrame) -> Cost:
    """Return the cost of a run.

    Args:
        seen: from `run`.
    """
    after = seen[(seen["second"] >= BURST_S[1]) & (seen["backlog"] <= 0)]
    cleared = int(after["second"].min()) - BURST_S[1] if len(after) else None
    changes = int((np.diff(seen["asked"]) != 0).sum())
    return Cost(float(seen["backlog"].max()), cleared, int(seen["asked"].sum()), changes)


def compare() -> pd.DataFrame:
    """Return the cost of each of `SCALERS`; the index is `scaler`."""
    rows = {name: vars(cost(run(scaler))) for name, scaler in SCALERS.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scaler")


def flapping(cooldowns_s: tuple[int, ...] = (0, 10, 30, 60)) -> pd.DataFrame:
    """Return changes, worker-seconds and backlog under `waves`, by cooldown; index `cooldown_s`."""
    rows = {wait: vars(cost(run(Scaler(cooldown_s=wait), waves))) for wait in cooldowns_s}
    columns = ["changes", "worker_s", "most_backlog"]
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis("cooldown_s")
