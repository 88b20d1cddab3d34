"""Figures of the models of retrying, within the ranges of the field study."""

from __future__ import annotations

import random
from functools import cache

import pandas as pd
import pytest

from labkit.lab.simulations import amplification, backoff, deadlines, timeouts
from labkit.lab.simulations.delays import POLICIES, Wait

CALLS = {
    "none": (2_300, 2_550),
    "exponential": (1_700, 2_050),
    "equal": (790, 835),
    "full": (775, 820),
    "decorrelated": (920, 1_090),
}
COMPLETION_MS = {
    "none": (1_950, 2_110),
    "exponential": (58_000, 70_300),
    "equal": (5_700, 7_500),
    "full": (4_100, 5_900),
    "decorrelated": (3_600, 5_800),
}
GROWTH = {10: 39, 40: 248, 70: 509, 100: 796, 130: 1_103, 160: 1_429, 190: 1_772}


@cache
def contention() -> pd.DataFrame:
    return backoff.compare(100, runs=20)


@cache
def dependency() -> timeouts.Dependency:
    return timeouts.observe()


def inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


@pytest.mark.parametrize("policy", CALLS)
def test_a_policy_makes_the_calls_that_the_study_measured(policy: str) -> None:
    assert inside(contention()["calls"][policy], CALLS[policy])


@pytest.mark.parametrize("policy", COMPLETION_MS)
def test_a_policy_completes_when_the_study_says(policy: str) -> None:
    assert inside(contention()["completion_ms"][policy], COMPLETION_MS[policy])


def test_no_policy_passes_for_another() -> None:
    passing = [
        (policy, other)
        for policy in CALLS
        for other in CALLS
        if inside(contention()["calls"][policy], CALLS[other])
        and inside(contention()["completion_ms"][policy], COMPLETION_MS[other])
    ]

    assert passing == [(policy, policy) for policy in CALLS]


def test_jitter_saves_calls_and_waiting_alone_hardly_any() -> None:
    calls = contention()["calls"]

    assert list(calls.sort_values().index) == [
        "full", "equal", "decorrelated", "exponential", "none",
    ]  # fmt: skip


def test_waiting_without_jitter_takes_ten_times_as_long() -> None:
    took = contention()["completion_ms"]

    assert took["exponential"] > 10 * took["full"]


def test_who_never_waits_ends_first_because_the_server_never_saturates() -> None:
    assert contention()["completion_ms"].idxmin() == "none"


def test_calls_without_waiting_grow_with_the_square() -> None:
    grown = backoff.growth((40, 100, 190), runs=2).pivot_table("calls", "clients", "policy")

    assert grown["none"].tolist() == pytest.approx([466, 2_421, 7_988], rel=0.05)
    assert [n * n / 4 for n in (40, 100, 190)] == pytest.approx(grown["none"].tolist(), rel=0.2)


def test_calls_with_full_jitter_grow_almost_in_a_line() -> None:
    grown = backoff.growth(tuple(GROWTH), runs=3)
    full = grown[grown["policy"] == "full"].set_index("clients")["calls"]

    assert full.tolist() == pytest.approx(list(GROWTH.values()), rel=0.06)


def test_every_client_writes_once() -> None:
    run = backoff.run(30, "full")

    assert run.calls >= 30
    assert list(run.writes_ms) == sorted(run.writes_ms)


def test_writes_of_a_run_can_be_drawn() -> None:
    times = backoff.write_times(20)

    assert set(times["policy"]) == set(POLICIES)
    assert (times["at_ms"] > 0).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_wait_exceeds_the_cap_or_overflows(policy: str) -> None:
    wait = Wait(attempt=2_000, previous=1e300, base=5.0, cap=2_000.0)

    assert 0 <= POLICIES[policy](wait, random.Random(1).random) <= 2_000


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [
        ("none", 0, 0),
        ("exponential", 40, 40),
        ("equal", 20, 40),
        ("full", 0, 40),
        ("decorrelated", 5, 90),
    ],
)
def test_a_wait_reaches_from_its_least_to_its_most(policy: str, least: float, most: float) -> None:
    wait = Wait(attempt=3, previous=30.0, base=5.0, cap=2_000.0)

    assert POLICIES[policy](wait, lambda: 0.0) == least
    assert POLICIES[policy](wait, lambda: 1.0) == most


@pytest.mark.parametrize("policy", ["none", "retries"])
def test_success_and_load_follow_theory(policy: str) -> None:
    found = amplification.curves()
    found = found[found["policy"] == policy]

    assert found["success"].tolist() == pytest.approx(found["theory_success"].tolist(), abs=0.02)
    assert found["load"].tolist() == pytest.approx(found["theory_load"].tolist(), rel=0.02)


@pytest.mark.parametrize(
    ("x", "attempts", "deposit", "success", "load"),
    [
        (0.1, 1, None, 0.900, 1.0),
        (0.1, 4, None, 0.9998, 1.11),
        (0.1, 4, 0.1, 0.986, 1.10),
        (0.5, 4, None, 0.937, 1.88),
        (0.5, 4, 0.1, 0.527, 1.05),
        (0.9, 4, None, 0.343, 3.44),
        (0.9, 4, 0.1, 0.0998, 1.01),
        (1.0, 4, None, 0.0, 4.0),
        (1.0, 4, 0.1, 0.0, 1.0),
    ],
)
def test_retries_multiply_and_a_budget_stops_them(
    x: float, attempts: int, deposit: float | None, success: float, load: float
) -> None:
    found = amplification.simulate(x, attempts, deposit=deposit, requests=20_000)

    assert found.success == pytest.approx(success, abs=0.01)
    assert found.load == pytest.approx(load, rel=0.02)


def test_each_layer_multiplies_by_three() -> None:
    assert amplification.layers()["calls"].tolist() == [3, 9, 27, 81]


def test_one_layer_that_retries_is_enough() -> None:
    assert amplification.layered(4, attempts=1) == 1


@pytest.mark.parametrize(("mark", "share"), [("p50", 0.5), ("p99", 0.01), ("p99.9", 0.001)])
def test_the_share_of_false_timeouts_is_chosen_with_the_percentile(mark: str, share: float) -> None:
    row = timeouts.marks(dependency()).loc[mark]

    assert row["false_timeouts"] == pytest.approx(share, rel=0.02)
    assert row["theory"] == pytest.approx(share, rel=0.15)


def test_false_timeouts_follow_theory() -> None:
    curve = timeouts.curve(dependency())

    assert curve["false_timeouts"].tolist() == pytest.approx(curve["theory"].tolist(), abs=0.003)


def test_a_long_limit_lets_the_lost_calls_fill_the_waiting() -> None:
    curve = timeouts.curve(dependency(), (300.0, 30_000.0))

    short, long = curve["waiting_ms"]
    assert long > 5 * short
    assert curve["waiting_lost_ms"].iloc[-1] == pytest.approx(300, rel=0.05)


def test_a_deadline_that_travels_wastes_less_and_answers_more() -> None:
    found = deadlines.compare()

    assert found["wasted_share"].is_monotonic_decreasing
    assert found["in_time"].is_monotonic_increasing
    assert found["wasted_share"]["no deadline"] > 0.5
    assert found["wasted_share"]["deadline, margin"] < 0.2


def test_every_policy_meets_the_same_requests() -> None:
    found = deadlines.compare()

    assert len(set(found["in_time"] + found["late"])) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_gives_the_same_figures_again(seed: int) -> None:
    for simulate in (
        lambda: backoff.run(20, "decorrelated", seed=seed),
        lambda: amplification.simulate(0.5, seed=seed),
        lambda: deadlines.run(0.0, seed=seed),
        lambda: list(timeouts.observe(500, seed=seed).latencies_ms),
    ):
        assert simulate() == simulate()


def test_another_seed_gives_other_figures() -> None:
    assert backoff.run(20, "full", seed=1) != backoff.run(20, "full", seed=2)
