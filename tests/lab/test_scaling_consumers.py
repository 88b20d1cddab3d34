"""The same jobs, handled by more and more processes of one group."""

from __future__ import annotations

from contextlib import closing
from multiprocessing import active_children
from threading import Barrier

import pytest

from labkit.errors import LabkitError
from labkit.lab.charts_scaling import scalability
from labkit.lab.scaling import consumers, jobs
from labkit.lab.scaling.jobs import LOCKED_S, OUTSIDE_S, SHARES_A_ROW, WAITS, Round, service
from labkit.lab.scaling.jobs_bench import Jobs
from labkit.lab.servers import Stack
from tests.figures import problems

pytestmark = pytest.mark.thorough


@pytest.mark.slow
def test_eight_processes_wait_side_by_side_and_queue_for_the_shared_row(running: Stack) -> None:
    found = consumers.run(running, workers=(1, 2, 8), each=3, name="escalado_prueba")

    assert list(found) == [WAITS, SHARES_A_ROW]
    for each in found.values():
        assert each["workers"].tolist() == [1, 2, 8]
        assert (each["jobs"] == 3 * service.stream.partitions).all()
        assert each["per_s"].tolist() == (each["jobs"] / each["seconds"]).tolist()
    waiting, sharing = found[WAITS].set_index("workers"), found[SHARES_A_ROW]
    assert waiting["seconds"][1] >= waiting["jobs"][1] * OUTSIDE_S
    assert waiting["seconds"][8] < waiting["seconds"][1]
    # However many they are, the lock lets one at a time through.
    assert (sharing["seconds"] >= sharing["jobs"] * LOCKED_S).all()
    assert problems(scalability(waiting.index, waiting["per_s"].tolist())) == []
    assert active_children() == []


def test_a_process_that_does_not_come_along_is_an_error(
    running: Stack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(consumers, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(consumers, "take_part", jobs.ready)  # it takes no arguments, and dies

    with pytest.raises(LabkitError, match="did not come along"):
        consumers.run(running, workers=(1,), each=1, name="escalado_prueba")
    assert active_children() == []


def test_a_job_without_an_effect_is_an_error(running: Stack) -> None:
    rounds = {(SHARES_A_ROW, 1): Round(SHARES_A_ROW, "nadie", Barrier(1))}

    with closing(Jobs("escalado_prueba", running)) as opened:
        opened.publish(3)
        with pytest.raises(LabkitError, match="'nadie': 0} of 3 noted, 0 of 3 units taken"):
            consumers._check_effects(opened, rounds, 3)


def test_jobs_are_spread_evenly_over_the_partitions(running: Stack) -> None:
    with closing(Jobs("escalado_prueba", running)) as opened:
        opened.publish(16)
        keys = [
            opened.transport.stream_key(service.stream, partition)
            for partition in range(service.stream.partitions)
        ]

        assert [opened.transport.client.xlen(key) for key in keys] == [2] * 8
