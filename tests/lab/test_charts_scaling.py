from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from labkit.lab import charts, charts_scaling, readings_scaling
from labkit.lab.simulations import (
    adaptive_limit,
    autoscaling,
    balancing,
    hashing,
    queueing,
    serverless,
    trip,
    usl,
)
from tests.figures import problems, words

WORKERS = (1, 2, 4, 8, 16)
# Measured with a hot row: the last process makes it less.
MEASURED = (100, 185, 310, 420, 400)
BREAK_EVEN = serverless.Prices().break_even_per_s(0.1)


@cache
def drawn() -> dict[str, tuple[Any, ...]]:
    """What each figure and its reading take."""
    limits = {name: adaptive_limit.run(limit()) for name, limit in adaptive_limit.LIMITS.items()}
    return {
        "trips": (trip.compare(trials=10),),
        "limits": (limits,),
        "waits": (queueing.curve(count=5_000),),
        "balancers": (balancing.compare(load=0.6, slow=5.0, requests=10_000),),
        "moved_keys": (hashing.compare(hashing.KEYS[:2_000]),),
        "scalability": (WORKERS, MEASURED),
        "autoscaling": (autoscaling.run(autoscaling.Scaler()),),
        "break_even": (serverless.costs([0, 2, 4, 6], 0.1), BREAK_EVEN),
    }


NAMES = (
    "trips", "limits", "waits", "balancers", "moved_keys", "scalability", "autoscaling",
    "break_even",
)  # fmt: skip


def figure(name: str) -> Any:
    return getattr(charts_scaling, name)(*drawn()[name])


def reading(name: str) -> str:
    said: str = getattr(readings_scaling, name)(*drawn()[name])
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_legible_at_the_back(name: str) -> None:
    assert problems(figure(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_travels_with_its_reading(name: str) -> None:
    assert charts.bundle(figure(name), reading(name))["text/plain"].endswith(".")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("trips", ("cinco fallos seguidos", "teoría de los cinco")),
        ("limits", tuple(charts_scaling.LIMITS.values())),
        ("waits", ("1 servidor", "1 servidor, teoría", "4 servidores")),
        ("balancers", tuple(charts_scaling.BALANCERS.values())),
        ("moved_keys", ("módulo", "anillo ×100", "rendezvous")),
        ("scalability", ("medido", "en línea recta", "Amdahl", "ley universal")),
        ("autoscaling", ("mensajes en espera", "procesos que trabajan")),
        ("break_even", ("función", "contenedor", "3,32 por segundo")),
    ],
)
def test_every_series_is_named_beside_what_is_drawn(name: str, named: tuple[str, ...]) -> None:
    written = words(figure(name))

    assert [each for each in named if each not in written] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trips", "el contador abre en 5 y la tasa en 20"),
        ("limits", "«sin límite» 0 y después 0"),
        ("limits", "«límite que se adapta» 36 y después"),
        ("waits", "(teoría: 19)"),
        ("balancers", "Menor p99: «el menos ocupado»"),
        ("moved_keys", "y sin motivo el 0 %"),
        ("autoscaling", "la cola se vacía 6 s después de la ráfaga"),
        ("break_even", "Por debajo de 3,32 peticiones por segundo sale más barata la función"),
    ],
)
def test_a_reading_says_what_the_data_say(name: str, said: str) -> None:
    assert said in reading(name)


def test_where_each_process_more_takes_away_the_peak_is_one() -> None:
    said = readings_scaling.scalability([1, 2, 4, 8], [110, 90, 60, 35])

    assert said.endswith("el máximo está en un proceso: cada uno más resta.")


def test_the_reading_of_scalability_names_the_peak_where_there_is_one() -> None:
    peak = usl.fit(WORKERS, MEASURED).peak
    without = readings_scaling.scalability(WORKERS, [100 * n for n in WORKERS])

    assert 8 < peak < 16
    assert "el máximo está en" in reading("scalability")
    assert "sin máximo cerca de lo medido" in without


def test_the_reading_of_a_queue_that_is_never_empty_says_so() -> None:
    seen = autoscaling.run(autoscaling.Scaler(most=0))

    assert "la cola no se vacía" in readings_scaling.autoscaling(seen)


def test_measured_points_are_points_and_laws_are_lines() -> None:
    measured, *laws = figure("scalability").axes[0].get_lines()

    assert measured.get_linestyle() == "None"
    assert all(line.get_marker() == "" for line in laws)


def test_each_limit_and_each_policy_has_its_word() -> None:
    assert set(charts_scaling.LIMITS) == set(adaptive_limit.LIMITS)
    assert set(balancing.POLICIES) < set(charts_scaling.BALANCERS)
