"""Autoscaler: workers that come with the backlog, from zero, and go when it is gone.

Every `poll_s` a controller reads how many jobs a group has yet to handle: what it was never given
(the lag of XINFO GROUPS), what it was given and has not acknowledged (XPENDING), and what failed
and is to be tried again, which is in PostgreSQL and not in the stream. It asks for one worker per
`per_worker` of them, starts processes at once, and stops some by SIGTERM only when fewer have been
enough for the whole cooldown. Who is stopped finishes the job in hand and gives its partitions
back.

    outcome = autoscaler.run(stack())
    charts.autoscaling(outcome.seen)

Guarantee: every job has its effect once, whoever is stopped when; while a job waits, a worker is
asked for; none runs when `run` returns.
Not guaranteed: that a newcomer has work at once. It has its share of the partitions within a
quarter of the lease, and there are never more workers at work than partitions.

Crash windows: those of `labkit.consumer`. A worker that died is missed at the next look.

Source: KEDA's scaler of Redis Streams; only its count of the lag, of Redis 7, scales to zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import pandas as pd

from labkit.errors import LabkitError
from labkit.lab.scaling.jobs import WAITS, ready, service, work
from labkit.lab.scaling.jobs_bench import Jobs
from labkit.lab.servers import Stack
from labkit.lab.spanish import number
from labkit.ports import PartitionState
from labkit.testing import processes
from labkit.transports.redis_inspection import RedisInspection

GROUP = "autoescalado"
_LEASE_S = 1.0
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Rules:
    """What the controller goes by.

    Attributes:
        least: how many workers there always are.
        most: how many there may be.
        per_worker: how many jobs of the backlog ask for one worker.
        cooldown_s: how long fewer must be enough before some are stopped, in seconds.
        poll_s: how often it looks, in seconds.
    """

    least: int = 0
    most: int = 4
    per_worker: int = 15
    cooldown_s: float = 0.5
    poll_s: float = 0.1

    def wanted(self, backlog: int) -> int:
        """Return how many workers a backlog asks for."""
        return max(self.least, min(self.most, math.ceil(backlog / self.per_worker)))


def decide(backlog: int, workers: int, now_s: float, needed_s: float, rules: Rules) -> int:
    """Return how many workers there shall be.

    Args:
        backlog: jobs that are not handled yet.
        workers: how many there are.
        now_s: the time, in seconds.
        needed_s: when so many workers were last needed.
        rules: limits and cooldown.
    """
    wanted = rules.wanted(backlog)
    if wanted >= workers or now_s - needed_s >= rules.cooldown_s:
        return wanted
    return min(workers, rules.most)


def backlog_of(states: Sequence[PartitionState], group: str) -> int:
    """Return how many entries a group has not acknowledged, given to it or not.

    Args:
        states: the partitions of the stream.
        group: whose; its first worker makes it, so that before all entries wait for it.
    """
    waiting = 0
    for partition in states:
        mine = next((each for each in partition.groups if each.group == group), None)
        # Why not 0 when the lag is unknown: nobody would ever come to look.
        lag = partition.length if mine is None or mine.lag is None else mine.lag
        waiting += lag + (mine.pending if mine else 0)
    return waiting


class Burst(NamedTuple):
    """Jobs that come evenly for a while: `per_s` of them from `since_s` to `until_s`."""

    per_s: float = 80.0
    since_s: float = 0.3
    until_s: float = 1.5

    def arrived(self, now_s: float) -> int:
        """Return how many have come until a moment."""
        return round(self.per_s * (min(max(now_s, self.since_s), self.until_s) - self.since_s))

    @property
    def total(self) -> int:
        """Return how many come."""
        return self.arrived(self.until_s)


# A lull after each, shorter than a cooldown should be.
WAVES = tuple(Burst(200.0, since_s, since_s + 0.2) for since_s in (0.2, 1.4, 2.6))


class Outcome(NamedTuple):
    """What a controller gave and took.

    `seen` has a row per look: the columns `second`, `arrived` (jobs per second since the last
    look), `backlog`, `workers` (alive, the stopping ones included) and `asked`. `worker_s` is the
    sum of the lives of all processes, `fixed_s` what `most` of them would have cost meanwhile.
    """

    seen: pd.DataFrame
    sent: int
    handled: int
    started: int
    worker_s: float
    fixed_s: float

    @property
    def changes(self) -> int:
        """Return how often another number of workers was asked for."""
        return int((self.seen["asked"].diff().fillna(0) != 0).sum())


def run(
    servers: Stack,
    *,
    bursts: Sequence[Burst] = (Burst(),),
    rules: Rules | None = None,
    name: str = GROUP,
) -> Outcome:
    """Let bursts of jobs come, and processes with them.

    Args:
        servers: where; database and keys are deleted first.
        bursts: what comes; `WAVES` make workers come and go, unless the cooldown is longer.
        rules: what the controller goes by.
        name: names database and keys.

    Raises:
        LabkitError: when the jobs are not handled in time, or a worker fails.
    """
    rules = rules or Rules()
    with closing(Jobs(name, servers)) as jobs:
        # The first process waits for what all of them import; no worker shall pay for that.
        processes.wait(processes.start(ready), _PATIENCE_S)
        crew = _Crew(jobs, rules)
        try:
            rows = _watch(jobs, bursts, crew)
        finally:
            crew.end()
        seen = pd.DataFrame(rows, columns=["second", "arrived", "backlog", "workers", "asked"])
        fixed_s = rules.most * float(seen["second"].max())
        total, handled = sum(each.total for each in bursts), jobs.handled(GROUP)
        return Outcome(seen, total, handled, crew.started, crew.worker_s, fixed_s)


def reading(outcome: Outcome) -> str:
    """Read what a controller gave and took.

    Args:
        outcome: from `run`.
    """
    seen = outcome.seen
    return (
        f"De {number(outcome.sent)} mensajes se atienden {number(outcome.handled)}; llegan a "
        f"esperar {number(int(seen['backlog'].max()))} y a trabajar "
        f"{number(int(seen['workers'].max()))} procesos, en {number(outcome.changes)} cambios. "
        f"Cuesta {number(round(outcome.worker_s, 1))} segundos de proceso; tener siempre el "
        f"máximo, {number(round(outcome.fixed_s, 1))}."
    )


Row = tuple[float, float, int, int, int]


def _watch(jobs: Jobs, bursts: Sequence[Burst], crew: _Crew) -> list[Row]:
    """Let jobs come and the crew follow, until all is handled and nobody is there for nothing."""
    rows: list[Row] = []
    total = sum(each.total for each in bursts)
    sent, began_s, last_s = 0, time.monotonic(), 0.0
    while True:
        now_s = time.monotonic() - began_s
        due = sum(each.arrived(now_s) for each in bursts) - sent
        jobs.publish(due)
        backlog = crew.adjust()
        rows.append((now_s, due / max(now_s - last_s, 1e-9), backlog, crew.alive, crew.asked))
        sent, last_s = sent + due, now_s
        if sent == total and not backlog and crew.at_rest:
            return rows
        if now_s > _PATIENCE_S:
            raise LabkitError(f"{backlog} jobs still wait after {_PATIENCE_S:.0f} s")
        time.sleep(crew.rules.poll_s)


class _Worker(NamedTuple):
    process: BaseProcess
    began_s: float


class _Crew:
    """The processes that a controller starts and stops."""

    def __init__(self, jobs: Jobs, rules: Rules) -> None:
        self.rules = rules
        self.started = 0
        self.asked = 0
        self.worker_s = 0.0
        self._jobs = jobs
        self._inspection = RedisInspection(jobs.transport)
        self._working: list[_Worker] = []
        self._stopping: list[_Worker] = []
        self._needed_s = time.monotonic()

    @property
    def alive(self) -> int:
        """Return how many processes there are."""
        return len(self._working) + len(self._stopping)

    @property
    def at_rest(self) -> bool:
        """Say whether only those are there that always are."""
        return self.alive == self.rules.least

    def adjust(self) -> int:
        """Start or stop workers as the backlog demands, and return it."""
        self._bury()
        backlog = backlog_of(self._inspection.look(service.stream), GROUP)
        backlog += self._jobs.to_try_again(GROUP)
        now_s = time.monotonic()
        if self.rules.wanted(backlog) >= len(self._working):
            self._needed_s = now_s
        self.asked = decide(backlog, len(self._working), now_s, self._needed_s, self.rules)
        while len(self._working) < self.asked:
            self._start()
        while len(self._working) > self.asked:
            self._stop(self._working.pop())
        return backlog

    def end(self) -> None:
        """Stop everybody, and wait."""
        while self._working:
            self._stop(self._working.pop())
        try:
            for worker in self._stopping:
                processes.wait(worker.process, _PATIENCE_S)
        finally:
            for worker in self._stopping:
                processes.end(worker.process)
        self._bury()

    def _start(self) -> None:
        process = processes.start(work, self._jobs.where, WAITS, GROUP, _LEASE_S)
        self._working.append(_Worker(process, time.monotonic()))
        self.started += 1

    def _stop(self, worker: _Worker) -> None:
        # Why not kill: the job in hand would be pending until the lease ends; nothing worse.
        worker.process.terminate()
        self._stopping.append(worker)

    def _bury(self) -> None:
        """Count the lives of those who ended; one that died is no longer among the working."""
        ended = [
            each for each in self._working + self._stopping if processes.has_ended(each.process)
        ]
        self.worker_s += sum(time.monotonic() - each.began_s for each in ended)
        self._working = [each for each in self._working if each not in ended]
        self._stopping = [each for each in self._stopping if each not in ended]
        # Who was killed is replaced. Who failed would fail again, and again.
        if any(each.process.exitcode == 1 for each in ended):
            raise LabkitError("a worker ended by itself: what it says is on the standard error")
