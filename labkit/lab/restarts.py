"""A consumer dies between two answers, and another process goes on: what does it know?

What the processes do is `labkit.lab.memory`; here they are started, killed and looked at.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pandas as pd
from sqlalchemy import select

from labkit.errors import LabkitError
from labkit.lab.bench import Bench
from labkit.lab.identities import answered
from labkit.lab.memory import (
    FIRST,
    LINES,
    ORDER,
    POINT,
    RESERVATION,
    SECOND,
    WAYS,
    attend,
    correlator,
    metadata,
    what_is_known,
)
from labkit.lab.tables import processes_line


def survive(bench: Bench) -> list[str]:
    """Let a process of each way die after the first answer, and another one go on.

    Args:
        bench: where; one that is thrown away.

    Returns:
        A line for each process: what it was, and how it ended.
    """
    answered(bench, ORDER)
    metadata.create_all(bench.orders)
    with bench.orders.begin() as connection:
        correlator.expect(connection, RESERVATION, dict.fromkeys(LINES, ORDER))
    with ThreadPoolExecutor(max_workers=len(WAYS)) as pool:
        lines = list(pool.map(partial(_one_after_the_other, bench), WAYS))
    return [line for of_one_way in lines for line in of_one_way]


def table(bench: Bench) -> pd.DataFrame:
    """Return how many lines were known in each way, moment by moment, and the status at the end.

    Args:
        bench: after `survive`.
    """
    columns = what_is_known.c
    query = select(columns.kept_in, columns.lines, columns.status).order_by(columns.step)
    with bench.orders.connect() as connection:
        rows = connection.execute(query).all()
    seen = {way: [row for row in rows if row.kept_in == way] for way in WAYS}
    # The first thing that a way knows is nothing, in both.
    moments = ["tras la primera respuesta", "otro proceso, al arrancar", "tras la segunda"]
    lines = [
        {"momento": moment, "líneas contestadas": answers}
        | {way: str(found[at].lines) for way, found in seen.items()}
        for at, (moment, answers) in enumerate(zip(moments, (1, 1, 2), strict=True), 1)
    ]
    ends = {way: found[-1].status for way, found in seen.items()}
    return pd.DataFrame([*lines, {"momento": f"estado de {ORDER}"} | ends])


def _one_after_the_other(bench: Bench, way: str) -> list[str]:
    return [_run(bench, way, process) for process in (FIRST, SECOND)]


def _run(bench: Bench, way: str, process: str) -> str:
    dies = process == FIRST
    faults = f"{POINT}:kill:@1" if dies else ""
    code = bench.apart(bench.orders, attend, way, process, faults=faults)
    if code != (-signal.SIGKILL if dies else 0):
        raise LabkitError(f"{way}, {process}: the process ended with {code}")
    return processes_line(f"{way}, {process}", {}, code, died_in=POINT if dies else "")
