"""Figures of the models of queues, balancers and hashing."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest

from labkit.lab.simulations import balancing, hashing, queueing
from labkit.lab.simulations.queueing import Customers, customers

LONG_RUN = 200_000


@cache
def balanced() -> pd.DataFrame:
    return balancing.compare(requests=LONG_RUN)


@cache
def with_a_slow_server() -> pd.DataFrame:
    return balancing.compare(load=0.6, slow=5.0, requests=LONG_RUN)


@cache
def placed() -> pd.DataFrame:
    return hashing.compare()


@pytest.mark.parametrize(
    ("servers", "load", "wait"),
    [(1, 0.5, 1.0), (1, 0.8, 4.0), (1, 0.9, 9.0), (4, 0.9, 1.969), (8, 0.9, 0.877)],
)
def test_a_mean_wait_is_what_erlang_says(servers: int, load: float, wait: float) -> None:
    found = queueing.waits(servers, customers(servers, load, LONG_RUN)).mean()

    assert queueing.mean_wait(servers, load) == pytest.approx(wait, abs=0.001)
    assert found == pytest.approx(wait, rel=0.1)


def test_service_that_does_not_vary_waits_half_as_long_as_erlang_says() -> None:
    drawn = customers(1, 0.8, LONG_RUN)
    found = queueing.waits(1, Customers(drawn.arrivals, np.ones(LONG_RUN))).mean()

    assert found == pytest.approx(queueing.mean_wait(1, 0.8) / 2, rel=0.1)


@pytest.mark.parametrize("servers", [1, 3])
def test_simpy_and_the_heap_let_each_customer_wait_the_same(servers: int) -> None:
    arriving = customers(servers, 0.9, 5_000)

    slow, fast = queueing.waits_in_simpy(servers, arriving), queueing.waits(servers, arriving)

    assert slow == pytest.approx(fast, abs=1e-9)


def test_simpy_follows_erlang_too() -> None:
    found = queueing.waits_in_simpy(1, customers(1, 0.5, 30_000)).mean()

    assert found == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.9), (4, 0.9), (8, 0.5)])
def test_littles_law_holds(servers: int, load: float) -> None:
    inside, rate_times_time = queueing.little(servers, load)

    assert inside == pytest.approx(rate_times_time, rel=0.03)


def test_waiting_explodes_before_the_server_is_always_busy() -> None:
    curve = queueing.curve((1,), (0.5, 0.8, 0.95))

    assert curve["wait"].tolist() == pytest.approx(curve["theory"].tolist(), rel=0.25)
    assert curve["wait"].iloc[2] > 10 * curve["wait"].iloc[0]
    assert queueing.mean_wait(1, 1.0) == math.inf


@pytest.mark.parametrize(
    ("policy", "mean", "p99"),
    [
        ("random", 10.4, 52.7),
        ("round robin", 5.6, 24.9),
        ("two choices", 3.0, 10.6),
        ("least connections", 1.9, 7.6),
    ],
)
def test_a_balancer_gives_the_latencies_that_the_study_measured(
    policy: str, mean: float, p99: float
) -> None:
    row = balanced().loc[policy]

    assert row["mean"] == pytest.approx(mean, rel=0.1)
    assert row["p99"] == pytest.approx(p99, rel=0.15)


def test_no_balancer_is_better_than_one_queue_and_chance_is_what_theory_says() -> None:
    said = balancing.theory()

    assert said["random"] == pytest.approx(10)
    assert said["one queue"] == pytest.approx(1.67, abs=0.01)
    assert balanced()["mean"]["random"] == pytest.approx(said["random"], rel=0.1)
    assert (balanced()["mean"] > said["one queue"]).all()


@pytest.mark.parametrize("policy", ["random", "round robin"])
def test_a_slow_server_drowns_whoever_does_not_look(policy: str) -> None:
    assert with_a_slow_server()["mean"][policy] > 3_000


@pytest.mark.parametrize(
    ("policy", "mean", "p99"),
    [("two choices", 1.96, 15.1), ("least connections", 1.27, 7.8)],
)
def test_a_slow_server_hardly_hurts_whoever_looks(policy: str, mean: float, p99: float) -> None:
    row = with_a_slow_server().loc[policy]

    assert row["mean"] == pytest.approx(mean, rel=0.05)
    assert row["p99"] == pytest.approx(p99, rel=0.1)


def test_ejection_saves_round_robin_but_the_slow_server_comes_back_now_and_then() -> None:
    row = with_a_slow_server().loc["round robin, ejection"]

    assert 3 < row["mean"] < 8
    assert 50 < row["p99"] < 160


def test_it_is_the_slow_server_that_is_left_out_most_of_the_time() -> None:
    found = balancing.run("round robin", load=0.6, slow=5.0, eject=True)
    out = dict.fromkeys(range(balancing.SERVERS), 0.0)
    for server, since, until in found.ejections:
        out[server] += until - since

    assert max(out, key=lambda server: out[server]) == 0
    assert out[0] > 0.6 * sum(out.values())


def test_two_choices_make_the_fullest_bin_half_as_full() -> None:
    one, two = (
        np.mean([balancing.fullest_bin(choices=choices, seed=seed) for seed in range(6)])
        for choices in (1, 2)
    )

    assert one == pytest.approx(6.7, abs=0.6)
    assert two == pytest.approx(3.0, abs=0.4)


@pytest.mark.parametrize(
    ("rule", "moved", "max_over_mean", "tolerance"),
    [
        ("modulo", 0.910, 1.05, 0.01),
        ("ring ×100", 0.091, 1.20, 0.025),
        ("ring ×500", 0.091, 1.05, 0.015),
        ("rendezvous", 0.091, 1.03, 0.01),
    ],
)
def test_a_new_node_moves_the_keys_that_the_study_measured(
    rule: str, moved: float, max_over_mean: float, tolerance: float
) -> None:
    row = placed().loc[rule]

    assert row["moved"] == pytest.approx(moved, abs=tolerance)
    assert row["max_over_mean"] == pytest.approx(max_over_mean, abs=0.08)


def test_only_modulo_moves_keys_for_nothing() -> None:
    misplaced = placed()["misplaced"]

    assert misplaced["modulo"] > 0.8
    assert (misplaced.drop("modulo") == 0).all()


def test_more_points_on_the_ring_share_more_evenly() -> None:
    drawn = hashing.lottery().groupby("points")

    assert drawn["max_over_mean"].mean().is_monotonic_decreasing
    assert drawn["moved"].std().is_monotonic_decreasing
    assert drawn["moved"].mean().to_numpy() == pytest.approx(1 / 11, abs=0.03)


def test_a_seed_gives_the_same_figures_again() -> None:
    for simulate in (
        lambda: list(balancing.run("two choices", requests=2_000, seed=3).latencies),
        lambda: queueing.little(2, 0.7, count=2_000, seed=3),
        lambda: balancing.fullest_bin(500, choices=2, seed=3),
        lambda: hashing.compare(hashing.KEYS[:200]).to_dict(),
    ):
        assert simulate() == simulate()


def test_another_seed_gives_other_figures() -> None:
    assert queueing.little(2, 0.7, count=2_000, seed=1) != queueing.little(
        2, 0.7, count=2_000, seed=2
    )
