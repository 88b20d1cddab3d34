"""Runs the core of a notebook in a fresh kernel and keeps what each cell took and showed."""

from __future__ import annotations

import copy
import os
import statistics
import time
from dataclasses import dataclass, field

from nbclient import NotebookClient

from labkit.lab.servers import Stack
from tests.repo.notebooks import FOLDER, Cell, Notebook
from tests.repo.rules_of_outputs import IGNORED

CELL_S, CORE_S = 5.0, 15.0
# Nobody waits with a class: a cell may run many processes.
CELL_AFTER_CLASS_S, AFTER_CLASS_S = 10.0, 40.0
_PROBE_S = 0.02


def contention() -> float:
    """Return how many times longer than on an idle machine a bit of computing takes here, now."""
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < _PROBE_S:
        pass
    return (time.perf_counter() - began) / (time.process_time() - used)


@dataclass
class Run:
    """One run of the core.

    Args:
        cells: what ran, with the outputs of this run.
        wall_s: seconds by cell, in the same order.
        probes: contention before and after each cell.
    """

    cells: list[Cell] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)

    @property
    def idle_s(self) -> list[float]:
        """Return the seconds by cell, as on a machine that does nothing else."""
        divisor = max(1.0, statistics.median(self.probes))
        return [seconds / divisor for seconds in self.wall_s]

    @property
    def shown(self) -> list[list[dict[str, str]]]:
        """Return the texts that each cell showed, where outputs are compared at all."""
        return [
            [
                {mime: text for mime, text in output.data.items() if mime.startswith("text/")}
                for output in cell.outputs
                if IGNORED not in cell.tags
            ]
            for cell in self.cells
        ]


def run_core(notebook: Notebook, servers: Stack) -> Run:
    """Run the code cells of the core in a fresh kernel that uses these servers.

    Raises:
        CellExecutionError: a cell failed that does not announce it.
    """
    node = copy.deepcopy(notebook.node)
    place = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(node, timeout=60, record_timing=False, resources=place)
    run = Run(probes=[contention()])
    with client.setup_kernel(env=_environment(servers)):
        for cell in Notebook(notebook.name, node, notebook.siblings).core:
            if cell.is_code:
                began = time.perf_counter()
                client.execute_cell(cell.node, cell.number - 1)
                run.wall_s.append(time.perf_counter() - began)
                run.probes.append(contention())
                run.cells.append(cell)
    return run


def _environment(servers: Stack) -> dict[str, str]:
    """Return ours without coverage, which would make the kernel slower than the student's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return kept if servers.source == "environment" else kept | {"LABKIT_HOME": str(servers.home)}


def too_slow(runs: list[Run], *, is_after_class: bool = False) -> list[str]:
    """Return a message for each cell over its limit, and one for the sum; the best run counts.

    Args:
        runs: of one notebook.
        is_after_class: it has more time, cell by cell and in all.
    """
    times_s = (CELL_AFTER_CLASS_S, AFTER_CLASS_S) if is_after_class else (CELL_S, CORE_S)
    cell_s, most_s = times_s
    best = [min(times) for times in zip(*(run.idle_s for run in runs), strict=True)]
    faults = [
        cell.says(f"takes {seconds:.1f} s, {cell_s:.0f} at most: measure less, or move it deeper")
        for cell, seconds in zip(runs[0].cells, best, strict=True)
        if seconds > cell_s
    ]
    if sum(best) > most_s:
        faults.append(f"the core takes {sum(best):.1f} s, {most_s:.0f} at most")
    return faults
