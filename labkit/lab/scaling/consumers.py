"""Consumers of one group, scaled: the same jobs handled by 1, 2, 4 and 8 processes.

Each number of processes is a group of its own, so each handles every job of the stream. The
processes have their partitions and have handled a job of each before the clock starts, and it
stops when the last of them finds nothing more.

`WAITS` is work that waits for others: with twice as many processes almost twice as much is done,
on two processors too. `SHARES_A_ROW` is work that waits for its neighbours: the lock of one row
lets one transaction at a time through, however many processes there are.

    scaled = consumers.run(stack())
    charts.scalability(scaled[WAITS]["workers"], scaled[WAITS]["per_s"])

Guarantee: every job had its effect once in every group, or it is an error.
Not guaranteed: the shape of the curve. It is measured, on this machine, now.

Source: Gunther, *Guerrilla Capacity Planning* (2007), for what to fit (`simulations.usl`).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Barrier, BrokenBarrierError

import pandas as pd

from labkit.errors import LabkitError
from labkit.lab.scaling.jobs import (
    SHARES_A_ROW,
    SHARING_ROUNDS,
    WAITS,
    WARM_UPS,
    Jobs,
    handle_all,
    service,
)
from labkit.lab.servers import Stack
from labkit.testing import processes

WORKERS = (1, 2, 4, 8)
# Of each partition, so that eight processes have as much to do as one has.
JOBS: Mapping[str, int] = {WAITS: 8, SHARES_A_ROW: 24}
_PATIENCE_S = 30.0


def run(
    servers: Stack,
    *,
    workers: Sequence[int] = WORKERS,
    jobs: Mapping[str, int] = JOBS,
    name: str = "escalado",
) -> dict[str, pd.DataFrame]:
    """Let each number of processes handle the same jobs, for each kind of work.

    Args:
        servers: where; database and keys are deleted first.
        workers: numbers of processes, up to that of the partitions.
        jobs: kind of work, and how many jobs there are of each partition.
        name: names database and keys.

    Returns:
        By kind a row for each number: the columns `workers`, `jobs`, `seconds` and `per_s`.

    Raises:
        LabkitError: when a process ended otherwise, or a job had no effect, or two.
    """
    return {
        kind: _measure(name, servers, kind, each, workers) for kind, each in jobs.items() if each
    }


def _measure(
    name: str, servers: Stack, kind: str, each: int, workers: Sequence[int]
) -> pd.DataFrame:
    partitions = service.stream.partitions
    rows = []
    with closing(Jobs(name, servers)) as jobs:
        jobs.publish((each + WARM_UPS) * partitions)
        for n in workers:
            seconds = _timed(jobs, kind, n)
            rows.append((n, each * partitions, seconds, each * partitions / seconds))
        _check_effects(jobs, kind, workers, (each + WARM_UPS) * partitions)
    return pd.DataFrame(rows, columns=["workers", "jobs", "seconds", "per_s"])


def _timed(jobs: Jobs, kind: str, n: int) -> float:
    """Return how long so many processes take, from the moment at which all of them are ready."""
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(n + 1, timeout=_PATIENCE_S)
    told = (jobs.where, kind, _group(n), barrier)
    crew = [processes.start(handle_all, *told) for _ in range(n)]
    try:
        seconds = _watch(barrier)
        for process in crew:
            if code := processes.wait(process, _PATIENCE_S):
                raise LabkitError(f"one of {n} processes ended with {code}")
    finally:
        for process in crew:
            processes.end(process)
    return seconds


def _watch(barrier: Barrier) -> float:
    try:
        for _ in range(SHARING_ROUNDS + 1):
            barrier.wait()
        began_s = time.perf_counter()
        barrier.wait()
    except BrokenBarrierError as error:
        raise LabkitError(f"a process did not come along in {_PATIENCE_S:.0f} s") from error
    return time.perf_counter() - began_s


def _check_effects(jobs: Jobs, kind: str, workers: Sequence[int], many: int) -> None:
    noted = {n: jobs.handled(_group(n)) for n in workers}
    taken, wanted = jobs.taken(), many * len(workers) if kind == SHARES_A_ROW else 0
    if set(noted.values()) != {many} or taken != wanted:
        raise LabkitError(f"{noted} of {many} jobs are noted, {taken} of {wanted} units taken")


def _group(n: int) -> str:
    return f"grupo-de-{n}"
