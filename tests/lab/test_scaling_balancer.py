"""Four real HTTP workers behind each policy; the shares are counts, the times only an order."""

from __future__ import annotations

import pandas as pd
import pytest

from labkit.errors import LabkitError
from labkit.lab import charts, charts_scaling, readings_scaling
from labkit.lab.scaling import balancer, http_workers
from labkit.lab.scaling.balancer import Balancer

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def compared() -> pd.DataFrame:
    return balancer.compare()


def test_round_robin_gives_the_slow_worker_as_much_as_the_others(compared: pd.DataFrame) -> None:
    assert compared["slow_share"]["round robin"] == 1 / 4


@pytest.mark.parametrize("policy", ["two choices", "least connections", "round robin, ejection"])
def test_who_looks_at_the_workers_spares_the_slow_one(compared: pd.DataFrame, policy: str) -> None:
    assert compared["slow_share"][policy] < 1 / 6
    assert compared["mean"][policy] < compared["mean"]["round robin"]


def test_the_chart_of_the_simulation_draws_it(compared: pd.DataFrame) -> None:
    figure = charts_scaling.balancers(compared)

    assert charts.bundle(figure, readings_scaling.balancers(compared))["image/png"]


def test_the_least_busy_is_chosen() -> None:
    chosen = Balancer(3, balancer.least_connections)

    assert sorted(chosen.take() for _ in range(3)) == [0, 1, 2]
    chosen.give_back(1, 0.01)
    assert chosen.take() == 1


def answers(took_s: dict[int, float], *, workers: int = 4, eject: bool = True) -> Balancer:
    """Let each worker answer three requests, one after the other."""
    made = Balancer(workers, balancer.round_robin, eject=eject)
    for _ in range(3 * workers):
        worker = made.take()
        made.give_back(worker, took_s.get(worker, 0.01))
    return made


def test_an_outlier_is_left_out_for_forty_requests_and_comes_back() -> None:
    made = answers({3: 0.04})

    assert {made.take() for _ in range(40)} == {0, 1, 2}
    assert 3 in {made.take() for _ in range(4)}


@pytest.mark.parametrize(
    "made", [answers({3: 0.025}), answers({3: 0.04}, eject=False)], ids=["near", "not wanted"]
)
def test_who_is_not_much_slower_stays(made: Balancer) -> None:
    assert {made.take() for _ in range(4)} == {0, 1, 2, 3}


def test_no_more_than_one_is_left_out() -> None:
    made = answers({4: 0.9, 5: 0.9}, workers=6)

    assert len({made.take() for _ in range(30)}) == 5


def test_workers_end_with_the_block() -> None:
    with http_workers.workers([0.0]) as (address,):
        http_workers.get(address)

    with pytest.raises(OSError, match="refused"):
        http_workers.get(address)


def test_a_worker_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_workers, "_PATIENCE_S", 0.0)

    with pytest.raises(LabkitError, match="no port"), http_workers.workers([0.0]):
        pass
