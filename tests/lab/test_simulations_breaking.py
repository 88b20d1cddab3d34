"""Figures of the models of breakers, bulkheads, limits and hedging."""

from __future__ import annotations

import math
import random
from functools import cache
from statistics import fmean

import pandas as pd
import pytest

from labkit.lab.simulations import adaptive_limit, bulkheads, hedging, pipeline_order, trip
from labkit.lab.simulations.adaptive_limit import AFTER, CALM, LIMITS, TROUBLE, Outcome


@cache
def trips() -> pd.DataFrame:
    return trip.compare().set_index(["rule", "p"])


@cache
def orders() -> pd.DataFrame:
    return pipeline_order.compare()


@cache
def limited(limit: str) -> Outcome:
    return adaptive_limit.run(LIMITS[limit]())


@cache
def hedged() -> pd.DataFrame:
    return hedging.compare().set_index("after")


@cache
def held() -> pd.DataFrame:
    return bulkheads.compare()


@pytest.mark.parametrize(("p", "calls"), [(0.2, 3_905), (0.4, 161), (0.5, 62), (0.7, 16.5)])
def test_theory_of_the_counter(p: float, calls: float) -> None:
    assert trip.theory(p) == pytest.approx(calls, rel=0.01)


@pytest.mark.parametrize("p", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_the_counter_follows_its_theory(p: float) -> None:
    found = trip.compare((p,), trials=400).set_index("rule").loc["counter"]

    # The time until a run is almost exponential: its mean of 400 is exact to 5 %.
    assert found["calls"] == pytest.approx(trip.theory(p), rel=0.15)


def test_a_counter_of_another_length_does_not_follow_it() -> None:
    rng = random.Random(1)
    found = [
        trip.calls_until_trip(trip.Counter(4), (rng.random() < 0.5 for _ in range(5_000))) or 0
        for _ in range(400)
    ]

    assert fmean(found) == pytest.approx(trip.theory(0.5, 4), rel=0.15)
    assert fmean(found) != pytest.approx(trip.theory(0.5, 5), rel=0.15)


def test_a_rate_sees_an_outage_in_its_least_number_of_calls() -> None:
    assert trips().loc[("rate", 1.0), "calls"] == 20


def test_a_rate_hardly_trips_where_few_calls_fail_and_the_counter_always_does() -> None:
    tripped = trips()["tripped"]

    assert tripped["counter", 0.3] == 1
    assert tripped["rate", 0.3] < 0.2


def test_a_counter_that_is_shared_never_trips_when_another_succeeds() -> None:
    found = trip.interleaved()

    assert found.loc["counter", "failures"] == 800
    assert math.isnan(found.loc["counter", "tripped_at"])
    assert found.loc["rate", "tripped_at"] == 20


def test_a_breaker_per_process_lets_each_process_fail_five_times() -> None:
    assert trip.fleet()["failing_calls"].to_dict() == {"one per process": 200, "one for all": 5}


def test_a_breaker_inside_the_retry_sees_every_failure() -> None:
    to_open = orders()["calls_to_open"]

    assert to_open["fallback > retry > breaker"] <= 20
    # Outside of it, three calls are one failure.
    assert to_open["fallback > breaker > retry"] == pytest.approx(
        3 * to_open["fallback > retry > breaker"], rel=0.35
    )


def test_a_fallback_inside_the_breaker_hides_the_outage_and_the_failures() -> None:
    hidden = orders().loc["retry > breaker > fallback"]

    assert math.isnan(hidden["calls_to_open"])
    assert hidden["calls"] == 100
    assert hidden["calm_success"] == pytest.approx(0.9, abs=0.02)


def test_retrying_a_refusal_asks_three_times_in_vain() -> None:
    refused = orders()["refused"]
    once = refused["fallback > retry > breaker"]

    assert once > 90
    assert refused["fallback > retry of refusals > breaker"] == 3 * once


def test_a_retry_below_the_fallback_hides_failures_in_calm() -> None:
    good = orders()["calm_success"].drop("retry > breaker > fallback")

    assert good.to_numpy() == pytest.approx(1 - 0.1**3, abs=0.003)


def test_without_a_limit_nothing_is_in_time_and_it_stays_so() -> None:
    found = limited("none")

    assert found.goodput[slice(*TROUBLE)].mean() == 0
    assert found.goodput[slice(*AFTER)].mean() == 0
    assert found.p99_s(*AFTER) == pytest.approx(30, rel=0.1)


def test_a_limit_for_good_days_does_not_help_on_bad_ones_but_afterwards() -> None:
    found = limited("fixed")

    assert found.goodput[slice(*TROUBLE)].mean() < 1
    assert found.p99_s(*TROUBLE) == pytest.approx(1.5, abs=0.1)
    assert found.goodput[slice(*AFTER)].mean() > 80


def test_a_limit_that_adapts_keeps_most_of_what_is_possible() -> None:
    found = limited("adaptive")

    assert found.goodput[slice(*TROUBLE)].mean() == pytest.approx(36, abs=2)
    assert found.p99_s(*TROUBLE) == pytest.approx(0.63, abs=0.07)
    assert found.goodput[slice(*AFTER)].mean() > 75


def test_a_limit_that_adapts_falls_and_rises_again() -> None:
    calm, trouble, after = (
        limited("adaptive").limit[since:until].mean() for since, until in (CALM, TROUBLE, AFTER)
    )

    assert (calm, trouble, after) == pytest.approx((16, 8.7, 17), abs=2)


def test_its_price_is_a_few_refusals_in_calm() -> None:
    assert limited("adaptive").refused[slice(*CALM)].mean() == pytest.approx(5, abs=3)


def test_no_limit_answers_more_than_the_workers_can() -> None:
    for limit in LIMITS:
        assert limited(limit).goodput[slice(*TROUBLE)].mean() <= 40


def test_all_limits_stand_in_one_table() -> None:
    table = adaptive_limit.compare()

    assert set(table.index.get_level_values("limit")) == set(LIMITS)


@pytest.mark.parametrize(
    ("after", "p99_ms", "extra_load"),
    [(0.5, 21.1, 0.5), (0.95, 27.7, 0.051), (0.99, 99.8, 0.01)],
)
def test_hedging_costs_and_brings_what_the_study_measured(
    after: float, p99_ms: float, extra_load: float
) -> None:
    row = hedged().loc[after]

    assert row["p99_ms"] == pytest.approx(p99_ms, rel=0.05)
    assert row["extra_load"] == pytest.approx(extra_load, abs=0.003)


def test_without_hedging_the_slow_ones_are_the_p99() -> None:
    assert hedged()["p99_ms"].iloc[0] == pytest.approx(100.1, rel=0.03)


def test_a_bulkhead_keeps_the_others_as_they_were_in_calm() -> None:
    with_it = held().loc["with"]

    assert with_it["slow_p99_s"] < 1.5 * with_it["calm_p99_s"]
    assert with_it["slow_p50_s"] < 0.1


def test_without_a_bulkhead_who_does_not_need_it_waits_for_the_slow_one() -> None:
    assert held().loc["without", "slow_p50_s"] > 100 * held().loc["with", "slow_p50_s"]


def test_the_price_of_a_bulkhead_is_that_it_refuses() -> None:
    refused = held()["other_refused"]

    assert refused["without"] == 0
    # In calm, two thirds of the time, it hardly does.
    assert 100 < refused["with"] < held()["other_served"]["with"]


def test_a_seed_gives_the_same_figures_again() -> None:
    for simulate in (
        lambda: list(adaptive_limit.run(LIMITS["adaptive"](), seed=3).latencies),
        lambda: bulkheads.run(6, seed=3),
        lambda: pipeline_order.compare(seed=3).to_dict(),
        lambda: trip.compare((0.5,), trials=5, seed=3).to_dict("list"),
        lambda: list(hedging.compare((0.5,), requests=100, seed=3)["p99_ms"]),
    ):
        assert repr(simulate()) == repr(simulate())


def test_another_seed_gives_other_figures() -> None:
    assert bulkheads.run(6, seed=1) != bulkheads.run(6, seed=2)
