"""Consumers of one group, scaled: the same jobs handled by 1, 2, 4 and 8 processes.

Each number of processes is a group of its own, so each handles every job of the stream. The
processes have their partitions and have handled a job of each before the clock starts, and it
stops when the last of them finds nothing more.

`WAITS` is work that waits for others: with twice as many processes almost twice as much is done,
on two processors too. `SHARES_A_ROW` is work that waits for its neighbours: the lock of one row
lets one transaction at a time through, however many processes there are, so beyond two or three of
them nothing is gained.

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
    Round,
    service,
    take_part,
)
from labkit.lab.scaling.jobs_bench import Jobs
from labkit.lab.servers import Stack
from labkit.testing import processes

WORKERS = (1, 2, 4, 8)
KINDS = (WAITS, SHARES_A_ROW)
_PATIENCE_S = 30.0


def run(
    servers: Stack,
    *,
    workers: Sequence[int] = WORKERS,
    kinds: Sequence[str] = KINDS,
    each: int = 5,
    name: str = "escalado",
) -> dict[str, pd.DataFrame]:
    """Let each number of processes handle the same jobs, for each kind of work.

    Args:
        servers: where; database and keys are deleted first.
        workers: numbers of processes, up to that of the partitions.
        kinds: of work.
        each: how many jobs there are in each partition.
        name: names database and keys.

    Returns:
        By kind a row for each number: the columns `workers`, `jobs`, `seconds` and `per_s`.

    Raises:
        LabkitError: when a process ended otherwise, or a job had no effect, or two.
    """
    with closing(Jobs(name, servers)) as jobs:
        many = each * service.stream.partitions
        warming = WARM_UPS * service.stream.partitions
        jobs.publish(warming + many)
        rounds = {(kind, n): _round(kind, n) for kind in kinds for n in workers}
        seconds = _timed(jobs, rounds)
        _check_effects(jobs, rounds, warming + many)
    rows = [(kind, n, many, s, many / s) for (kind, n), s in zip(rounds, seconds, strict=True)]
    found = pd.DataFrame(rows, columns=["kind", "workers", "jobs", "seconds", "per_s"])
    groups = found.set_index("kind").groupby("kind", sort=False)
    return {str(kind): rows.reset_index(drop=True) for kind, rows in groups}


def _round(kind: str, n: int) -> Round:
    barrier = multiprocessing.get_context("forkserver").Barrier(n + 1, timeout=_PATIENCE_S)
    return Round(kind, f"{kind.replace(' ', '-')}-{n}", barrier)


def _timed(jobs: Jobs, rounds: Mapping[tuple[str, int], Round]) -> list[float]:
    """Return how long each round takes, from when all of its processes are ready."""
    crew = []
    try:
        for place in range(max(n for _, n in rounds)):
            # Why not new processes for each round: starting them would take longer than working.
            mine = [each for (_, n), each in rounds.items() if place < n]
            crew.append(processes.start(take_part, jobs.where, mine))
        seconds = [_watch(each.barrier) for each in rounds.values()]
        for process in crew:
            if code := processes.wait(process, _PATIENCE_S):
                raise LabkitError(f"a process ended with {code}")
    finally:
        for process in crew:
            processes.end(process)
    return seconds


def _watch(barrier: Barrier) -> float:
    try:
        for _ in range(SHARING_ROUNDS + 1):
            barrier.wait()
        # Everybody is ready and waits for us: nobody begins before the clock does.
        began_s = time.perf_counter()
        for _ in ("go", "done"):
            barrier.wait()
    except BrokenBarrierError as error:
        raise LabkitError(f"a process did not come along in {_PATIENCE_S:.0f} s") from error
    return time.perf_counter() - began_s


def _check_effects(jobs: Jobs, rounds: Mapping[tuple[str, int], Round], many: int) -> None:
    noted = {each.group: jobs.handled(each.group) for each in rounds.values()}
    wanted = many * sum(kind == SHARES_A_ROW for kind, _ in rounds)
    if set(noted.values()) != {many} or jobs.taken() != wanted:
        raise LabkitError(f"{noted} of {many} noted, {jobs.taken()} of {wanted} units taken")
