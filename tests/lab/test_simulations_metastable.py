"""Figures of the model of metastable failure, within the ranges of the field study."""

from __future__ import annotations

from functools import cache
from statistics import fmean

import pytest

from labkit.lab.simulations import metastable
from labkit.lab.simulations.metastable import DEFENCES, Defence, Outcome

SEEDS = (5, 6, 7, 8)
# Goodput per second in the three stretches, mean of the four seeds.
GOODPUT = {
    "none": [(0, 0), (73, 86), (78, 85)],
    "retries": [(0, 0)] * 3,
    "retries, jitter": [(0, 0)] * 3,
    "retries, budget": [(0, 0), (73, 86), (78, 85)],
    "retries, breaker": [(55, 61), (77, 83), (78, 83)],
    "retries, drop at deadline": [(33, 41), (35, 42), (36, 46)],
    "retries, drop at half": [(96, 104), (76, 83), (78, 84)],
    "budget, drop at half": [(79, 86), (76, 83), (78, 83)],
}
# The first and the last second of recovery that are possible; None: never.
RECOVERY = {
    "none": (49, 62),
    "retries": None,
    "retries, jitter": None,
    "retries, budget": (49, 62),
    "retries, breaker": (33, 34),
    "retries, drop at deadline": None,
    "retries, drop at half": (30, 30),
    "budget, drop at half": (30, 30),
}
CALM_PEAK, STORM_PEAK = (95, 120), (270, 395)


@cache
def outcome(defence: str, seed: int) -> Outcome:
    return metastable.run(DEFENCES[defence], seed=seed)


def inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


@pytest.mark.parametrize("defence", GOODPUT)
def test_goodput_after_the_trouble_is_what_the_study_measured(defence: str) -> None:
    for (since, until), limits in zip(
        ((30, 40), (60, 80), (140, 160)), GOODPUT[defence], strict=True
    ):
        found = fmean(outcome(defence, seed).mean_goodput(since, until) for seed in SEEDS)
        assert inside(found, limits), (since, until, found)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("defence", RECOVERY)
def test_a_system_recovers_when_the_study_says_or_never(defence: str, seed: int) -> None:
    expected, found = RECOVERY[defence], outcome(defence, seed).recovered_at_s

    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert inside(found, expected)


@pytest.mark.parametrize("defence", DEFENCES)
def test_only_retries_without_a_limit_multiply_the_load(defence: str) -> None:
    peak = fmean(outcome(defence, seed).peak_offered for seed in SEEDS)
    unlimited = DEFENCES[defence].retries and not (
        DEFENCES[defence].budget or DEFENCES[defence].breaker
    )

    assert inside(peak, STORM_PEAK if unlimited else CALM_PEAK)


def test_jitter_does_not_reduce_the_load() -> None:
    with_jitter, without = (
        fmean(outcome(name, seed).offered[60:].mean() for seed in SEEDS)
        for name in ("retries, jitter", "retries")
    )

    assert with_jitter == pytest.approx(without, rel=0.02)


def test_a_server_that_knew_who_has_gone_would_come_back_at_once() -> None:
    knowing = metastable.run(Defence(drop_after_s=metastable.TIMEOUT_S / 2), seed=5)

    assert knowing.recovered_at_s == 30
    assert outcome("none", 5).mean_goodput(30, 40) == 0


def test_an_open_breaker_lets_one_call_through_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metastable, "TROUBLE_S", (20.0, 160.0))
    monkeypatch.setattr(metastable, "TROUBLE_PER_S", 0.01)
    offered = metastable.run(DEFENCES["retries, breaker"], seed=5).offered

    # Open for five seconds, then one call that times out after one.
    assert offered[40:160].sum() == pytest.approx(120 / 6, abs=1)
    assert offered[40:160].max() == 1


def test_all_defences_stand_in_one_table() -> None:
    table = metastable.compare(seed=5)

    assert list(table.index) == list(DEFENCES)
    assert table["recovered_at_s"].isna().sum() == 3


def test_a_seed_gives_the_same_figures_again() -> None:
    one, other = (metastable.run(DEFENCES["retries, budget"], seed=3) for _ in range(2))

    assert list(one.offered) == list(other.offered)
    assert list(one.goodput) == list(other.goodput)
