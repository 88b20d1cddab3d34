"""The core of every notebook runs alone, again with the same outcome, and in its time.

These tests look at a clock, and `make notebooks` runs one when all others are done:
beside them, cells that start processes of their own took 18 s instead of 13. The teaching plan
promises that a restarted kernel costs half a minute: 15 s for the core, 5 s for a cell. On a
machine that does other things as well a run takes longer, so its times are divided by the
contention measured beside it, and the better of two runs counts. On an idle machine the divisor is
1: a slow core cannot hide there. `make thorough` runs each twice and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from nbclient.exceptions import CellExecutionError

from labkit.lab.servers import Stack
from tests.conftest import started
from tests.repo.notebook_runs import Run, contention, run_core, too_slow
from tests.repo.notebooks import Cell, Notebook, stored, v4
from tests.repo.sample_notebook import code, markdown

COUNTING = """\
from labkit.lab.servers import stack
from labkit.transports.redis_streams import connect

print(connect(stack().redis_url).incr("notebook_runs"))
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    """Start servers of this module's own, which wait for the disk as a reader's do."""
    with started() as running:
        yield running


def notebook_of(*cells: Any) -> Notebook:
    return Notebook("02_outbox.ipynb", v4.new_notebook(cells=list(cells)), frozenset())


def run_of(*wall_s: float, probe: float = 1.0) -> Run:
    cells = [Cell("02_outbox.ipynb", n, code(f"cell-{n}", "")) for n in range(1, len(wall_s) + 1)]
    return Run(cells, list(wall_s), [probe])


# Not met yet. Measured on two idle cores: 16.5 to 20.7 s for the core of 04, 5.0 to 5.9 s for the
# chaos of 05. Expected to fail, so that whoever makes them faster sees it pass.
TOO_SLOW_YET = {"04_resilience.ipynb", "05_workshop.ipynb"}
IN_CLASS = [
    pytest.param(
        notebook,
        marks=pytest.mark.xfail(reason="over its time, see TOO_SLOW_YET", strict=False)
        if notebook.name in TOO_SLOW_YET
        else (),
    )
    for notebook in stored()
    if not notebook.is_after_class
]


@pytest.mark.alone
@pytest.mark.parametrize("notebook", IN_CLASS, ids=lambda notebook: notebook.name)
def test_the_core_runs_alone_in_its_time(servers: Stack, notebook: Notebook) -> None:
    runs = [run_core(notebook, servers)]
    if too_slow(runs):
        runs.append(run_core(notebook, servers))

    assert too_slow(runs) == []


@pytest.mark.alone
@pytest.mark.thorough
@pytest.mark.parametrize("notebook", stored(), ids=lambda notebook: notebook.name)
def test_the_core_shows_the_same_again(servers: Stack, notebook: Notebook) -> None:
    first, again = (run_core(notebook, servers) for _ in range(2))

    for before, after, cell in zip(first.shown, again.shown, first.cells, strict=True):
        assert before == after, cell.says("shows something else when the notebook runs again")
    assert too_slow([first, again], is_after_class=notebook.is_after_class) == []


@pytest.mark.slow
def test_a_kernel_is_fresh_and_its_servers_are_those_of_the_test(servers: Stack) -> None:
    counting = notebook_of(
        code("count", COUNTING), markdown("deeper", "# Para profundizar"), code("late", "1 / 0")
    )

    first, again = (run_core(counting, servers) for _ in range(2))

    assert [cell.id for cell in first.cells] == ["count"]
    assert (first.shown, again.shown) == ([[{"text/plain": "1\n"}]], [[{"text/plain": "2\n"}]])


@pytest.mark.slow
def test_a_cell_that_fails_ends_the_run(servers: Stack) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run_core(notebook_of(code("broken", "1 / 0")), servers)


def test_the_better_of_two_runs_counts() -> None:
    assert too_slow([run_of(4.9, 6.0), run_of(6.0, 4.9)]) == []


def test_a_cell_over_its_limit_is_named() -> None:
    [fault] = too_slow([run_of(0.1, 5.1), run_of(0.1, 5.2)])

    assert fault.startswith("02_outbox.ipynb, cell 2 (cell-2): takes 5.1 s, 5 at most")


def test_a_core_over_its_limit_is_refused() -> None:
    assert too_slow([run_of(4.0, 4.0, 4.0, 4.0)]) == ["the core takes 16.0 s, 15 at most"]


def test_after_class_there_is_more_time_and_an_end_to_it() -> None:
    assert too_slow([run_of(*[8.0] * 5)], is_after_class=True) == []
    assert len(too_slow([run_of(11.0)], is_after_class=True)) == 1
    assert len(too_slow([run_of(*[9.0] * 5)], is_after_class=True)) == 1


def test_a_busy_machine_is_allowed_for_and_a_fast_one_gains_nothing() -> None:
    assert too_slow([run_of(9.0, probe=2.0)]) == []
    assert len(too_slow([run_of(9.0, probe=0.5)])) == 1


def test_contention_is_never_far_below_one() -> None:
    assert contention() > 0.9
