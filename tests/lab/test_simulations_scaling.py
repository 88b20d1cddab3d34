"""Figures of the models of scaling: workers, functions, batches, and the law of scalability."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from labkit.lab.simulations import autoscaling, partial_batch, serverless, usl
from labkit.lab.simulations.autoscaling import Scaler

WORKERS = (1, 2, 4, 8, 16, 32)


@cache
def scaled() -> pd.DataFrame:
    return autoscaling.compare()


@cache
def crowd() -> pd.DataFrame:
    return serverless.run(serverless.Function(), serverless.trickle_and_burst())


@pytest.mark.parametrize(
    ("scaler", "backlog", "cleared", "worker_s"),
    [
        ("fixed 4", 4_800, 137, 2_400),
        ("fixed 12", 0, 0, 7_200),
        ("0 to 12", 791, 7, 1_294),
        ("1 to 12", 791, 7, 1_567),
    ],
)
def test_a_scaler_clears_the_burst_as_the_study_measured(
    scaler: str, backlog: float, cleared: int, worker_s: int
) -> None:
    row = scaled().loc[scaler]

    assert row["most_backlog"] == pytest.approx(backlog, rel=0.05)
    assert row["cleared_after_s"] == pytest.approx(cleared, abs=1)
    assert row["worker_s"] == pytest.approx(worker_s, rel=0.12)


def test_from_zero_is_cheapest_and_from_one_changes_least() -> None:
    assert scaled()["worker_s"].idxmin() == "0 to 12"
    assert scaled()["changes"]["1 to 12"] < scaled()["changes"]["0 to 12"] / 5


def test_a_longer_cooldown_flaps_less() -> None:
    changes = autoscaling.flapping()["changes"]

    assert changes.is_monotonic_decreasing
    assert changes.iloc[-1] < changes.iloc[0] / 3


@given(
    least=st.integers(0, 3), most=st.integers(3, 20), cooldown=st.integers(0, 60),
    start=st.integers(0, 20),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_a_scaler_keeps_its_limits_and_loses_no_message(
    least: int, most: int, cooldown: int, start: int
) -> None:
    seen = autoscaling.run(Scaler(least, most, cooldown_s=cooldown, start_s=start))

    assert seen["asked"].between(least, most).all()
    assert (seen["workers"] <= seen["asked"]).all()
    handled = seen["arrived"].sum() - seen["backlog"].iloc[-1]
    assert handled <= seen["workers"].sum() * autoscaling.WORKER_PER_S + 1e-6


@pytest.mark.parametrize(("duration_s", "per_s"), [(0.02, 9.35), (0.1, 3.32), (0.5, 0.79)])
def test_functions_and_a_container_cost_the_same_where_the_study_says(
    duration_s: float, per_s: float
) -> None:
    found = serverless.Prices().break_even_per_s(duration_s)
    row = serverless.costs([found], duration_s).iloc[0]

    assert found == pytest.approx(per_s, abs=0.01)
    assert row["function"] == pytest.approx(row["container"])
    assert row["container"] == pytest.approx(9.01, abs=0.005)


def test_the_break_even_is_given_by_the_month_too() -> None:
    assert serverless.break_evens()["per_month"].iloc[1] == pytest.approx(8.7e6, rel=0.01)


def test_prices_are_parameters() -> None:
    dearer = serverless.Prices(per_gb_s=2 * 1.66667e-5)

    assert dearer.break_even_per_s(0.1) < serverless.Prices().break_even_per_s(0.1)


def test_a_burst_is_cold_and_what_comes_soon_after_is_warm() -> None:
    burst = crowd()[crowd()["at_s"].between(300, 301)]

    assert burst["cold"].mean() > 0.5
    assert burst["instances"].max() > 20
    assert crowd().groupby("cold")["latency_s"].median().to_dict() == pytest.approx(
        {False: 0.1, True: 0.9}
    )


def test_a_cap_lets_requests_wait_and_never_exceeds_itself() -> None:
    capped = serverless.run(serverless.Function(cap=5), serverless.trickle_and_burst())

    assert capped["instances"].max() == 5
    assert capped["waited_s"].max() > 0.3
    assert capped["cold"].sum() < crowd()["cold"].sum()


def test_who_idles_too_long_starts_cold_again() -> None:
    seen = serverless.run(serverless.Function(idle_s=60.0), [0.0, 50.0, 120.0])

    assert seen["cold"].tolist() == [True, False, True]


def test_a_trickle_keeps_one_instance_warm_and_lets_the_others_end() -> None:
    seen = serverless.run(serverless.Function(), [0.0, 0.1, *range(50, 301, 50)])

    assert seen["instances"].tolist()[:2] == [1, 2]
    assert seen["instances"].iloc[-1] == 1
    assert seen["cold"].sum() == 2


def test_partial_results_save_the_good_messages() -> None:
    found = partial_batch.compare().to_dict("index")

    assert found["whole batch"] == {"executions": 30, "dead": 10, "dead_but_good": 9}
    assert found["partial result"] == {"executions": 12, "dead": 1, "dead_but_good": 0}


@given(
    batch=st.integers(1, 20), poison=st.integers(0, 20), receives=st.integers(1, 5),
    partial=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_batch_is_what_arithmetic_says(
    batch: int, poison: int, receives: int, *, partial: bool
) -> None:
    bad = min(poison, batch)
    ids = [f"m{n}" for n in range(batch)]
    found = partial_batch.run(ids, ids[:bad], partial=partial, batch=batch, receives=receives)

    assert found == partial_batch.theory(
        partial=partial, poison=bad, batch=batch, receives=receives
    )


def test_with_partial_results_no_good_message_ever_dies() -> None:
    ids = [f"m{n}" for n in range(100)]
    found = partial_batch.run(ids, ids[::7], partial=True)

    assert (found.dead, found.dead_but_good) == (15, 0)


@given(sigma=st.floats(0.0, 0.5), kappa=st.floats(0.0, 0.02), single=st.floats(1.0, 1e4))
@settings(max_examples=60, deadline=None)
def test_a_law_is_found_again_in_its_own_points(sigma: float, kappa: float, single: float) -> None:
    law = usl.Law(single, sigma, kappa)
    found = usl.fit(WORKERS, [law.throughput(n) for n in WORKERS])

    assert found.single == pytest.approx(single, rel=1e-6)
    assert (found.sigma, found.kappa) == pytest.approx((sigma, kappa), abs=1e-6)
    assert found.r2 == pytest.approx(1.0)


def test_a_law_is_found_in_points_that_are_not_exact() -> None:
    law, rng = usl.Law(100.0, 0.05, 0.002), np.random.default_rng(1)
    noisy = [law.throughput(n) * rng.normal(1.0, 0.02) for n in WORKERS]
    found = usl.fit(WORKERS, noisy)

    assert found.peak == pytest.approx(law.peak, rel=0.15)
    assert found.r2 > 0.98


def test_the_peak_is_where_one_more_makes_it_less() -> None:
    law = usl.Law(100.0, 0.05, 0.002)
    most = max(range(1, 100), key=law.throughput)

    assert law.peak == pytest.approx(most, abs=1)


def test_amdahls_law_misses_a_peak_and_has_none() -> None:
    law = usl.Law(100.0, 0.05, 0.01)
    measured = [law.throughput(n) for n in WORKERS]

    assert usl.amdahl(WORKERS, measured).peak == math.inf
    assert usl.amdahl(WORKERS, measured).r2 < 0.9 < usl.fit(WORKERS, measured).r2
    assert usl.linear(WORKERS, measured).r2 < 0


def test_no_coefficient_is_negative_when_more_is_better_than_a_line() -> None:
    found = usl.fit(WORKERS, [100 * n**1.1 for n in WORKERS])

    assert (found.sigma, found.kappa) == (0.0, 0.0)


def test_two_points_are_too_few_for_three_coefficients() -> None:
    with pytest.raises(ValueError, match="al menos 3 números"):
        usl.fit((1, 2, 2), (100, 180, 181))


def test_a_seed_gives_the_same_requests_again() -> None:
    assert serverless.trickle_and_burst(seed=3) == serverless.trickle_and_burst(seed=3)


def test_another_seed_gives_other_requests() -> None:
    assert serverless.trickle_and_burst(seed=1) != serverless.trickle_and_burst(seed=2)
