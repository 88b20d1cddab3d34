"""Processes on one port: Node's where Node is, what it stored elsewhere, and Python's twin."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.lab import charts
from labkit.lab.scaling import cluster
from labkit.lab.scaling.cluster import IN_TURN, KERNEL

pytestmark = pytest.mark.thorough

EVEN = (25, 25, 25, 25)
with_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


@pytest.fixture
def without_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)


@with_node
def test_node_hands_out_in_turn_and_the_kernel_does_not() -> None:
    found = cluster.node()

    assert found.counts[IN_TURN] == EVEN
    assert sum(found.counts[KERNEL]) == 100
    assert re.fullmatch(r"medido ahora, con Node v\d+\.\d+\.\d+", found.source)


@pytest.mark.usefixtures("without_node")
def test_without_node_the_stored_figures_are_shown_and_say_so() -> None:
    found = cluster.node()

    assert found.counts == {IN_TURN: EVEN, KERNEL: found.counts[KERNEL]}
    assert sum(found.counts[KERNEL]) == 100
    assert found.counts[KERNEL] != EVEN
    assert found.source == "guardado, de Node v20.20.2"
    assert found == cluster.stored()


def test_a_node_that_fails_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "node"
    broken.write_text("#!/bin/sh\necho 'too old' >&2\nexit 3\n")
    broken.chmod(stat.S_IRWXU)

    with pytest.raises(LabkitError, match="ended with 3: too old"):
        cluster.node(str(broken))


def test_the_parent_hands_out_in_turn() -> None:
    with cluster.handed_in_turn() as connect:
        assert [connect() for _ in range(6)] == [0, 1, 2, 3, 0, 1]


def test_every_connection_is_answered_when_the_kernel_decides() -> None:
    with cluster.spread_by_the_kernel() as connect:
        assert {connect() for _ in range(60)} <= {0, 1, 2, 3}


def test_nobody_listens_afterwards() -> None:
    with cluster.spread_by_the_kernel() as connect:
        connect()

    with pytest.raises(OSError, match="refused"):
        connect()


def test_both_twins_are_one_chart_with_its_reading() -> None:
    found = {"Node": cluster.stored(), "Python": cluster.python(40).in_turn()}
    figure = charts.stacked_bars(cluster.rows(**found), title="Cuatro procesos, un puerto")
    reading = charts.bundle(figure, cluster.reading(**found))["text/plain"]

    assert "«Node, por turno» 25, 25, 25, 25; «Node, el sistema» 30, 26, 23, 21; " in reading
    assert "«Python, por turno» 10, 10, 10, 10. " in reading
    assert reading.endswith("(Node: guardado, de Node v20.20.2; Python: medido ahora, con Python.)")


def test_the_listing_is_what_node_runs() -> None:
    assert "cluster.SCHED_RR" in cluster.listing()
