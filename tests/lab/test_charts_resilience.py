from __future__ import annotations

from functools import cache

import pandas as pd
import pytest
from matplotlib.figure import Figure

from labkit.lab import charts, charts_resilience, readings_resilience
from labkit.lab.simulations import (
    amplification,
    backoff,
    bulkheads,
    delays,
    hedging,
    metastable,
    timeouts,
)
from labkit.lab.simulations.metastable import DEFENCES, Outcome
from tests.figures import problems, words


@cache
def compared() -> pd.DataFrame:
    return backoff.compare(runs=3)


@cache
def outcomes() -> dict[str, Outcome]:
    return {each: metastable.run(DEFENCES[each]) for each in charts_resilience.CORE}


@cache
def dependency() -> timeouts.Dependency:
    return timeouts.observe(50_000)


@cache
def shared() -> dict[str, bulkheads.Outcome]:
    return {"without": bulkheads.run(None), "with": bulkheads.run(bulkheads.LIMIT)}


def amplified() -> tuple[pd.DataFrame, pd.DataFrame]:
    return amplification.curves(), amplification.layers()


FIGURES = {
    "contention": lambda: charts_resilience.contention(compared()),
    "write times": lambda: charts_resilience.write_times(backoff.write_times()),
    "amplification": lambda: charts_resilience.amplification(*amplified()),
    "metastable": lambda: charts_resilience.metastable(outcomes()),
    "time limits": lambda: charts_resilience.time_limits(
        timeouts.curve(dependency()), timeouts.marks(dependency())
    ),
    "bulkhead": lambda: charts_resilience.bulkhead(shared()),
    "hedging": lambda: charts_resilience.hedging(hedging.compare()),
}
READINGS = {
    "contention": lambda: readings_resilience.contention(compared()),
    "write times": lambda: readings_resilience.write_times(backoff.write_times()),
    "amplification": lambda: readings_resilience.amplification(*amplified()),
    "metastable": lambda: readings_resilience.metastable(outcomes()),
    "time limits": lambda: readings_resilience.time_limits(timeouts.marks(dependency())),
    "bulkhead": lambda: readings_resilience.bulkhead(shared()),
    "hedging": lambda: readings_resilience.hedging(hedging.compare()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_legible_at_the_back(name: str) -> None:
    assert problems(FIGURES[name]()) == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_travels_with_its_reading(name: str) -> None:
    shown = charts.bundle(FIGURES[name](), READINGS[name]())

    assert shown["text/plain"].endswith(".")


@pytest.mark.parametrize("name", FIGURES)
def test_every_series_is_named_beside_what_is_drawn(name: str) -> None:
    written = " ".join(words(FIGURES[name]()))
    named = {
        "contention": charts_resilience.POLICIES.values(),
        "write times": charts_resilience.POLICIES.values(),
        "amplification": ("3 reintentos", "con presupuesto", "sin reintentos", "81"),
        "metastable": [charts_resilience.DEFENCES[each] for each in charts_resilience.CORE],
        "time limits": ("p50", "p99", "p99,9"),
        "bulkhead": charts_resilience.BULKHEADS.values(),
        "hedging": ("una sola", "otra tras p50", "otra tras p99"),
    }

    assert [each for each in named[name] if each not in written] == []


def test_each_policy_and_each_defence_has_its_word() -> None:
    assert set(charts_resilience.POLICIES) == set(delays.POLICIES)
    assert set(charts_resilience.DEFENCES) == set(DEFENCES)


def test_at_most_four_defences_are_drawn_together() -> None:
    all_of_them = {each: outcomes()["none"] for each in DEFENCES}

    with pytest.raises(ValueError, match="de 1 a 4 series"):
        charts_resilience.metastable(all_of_them)


def test_the_trouble_is_shaded() -> None:
    figure: Figure = FIGURES["metastable"]()
    shade = figure.axes[0].patches[0]
    edges = shade.get_extents().transformed(figure.axes[0].transData.inverted())

    assert (edges.x0, edges.x1) == pytest.approx(metastable.TROUBLE_S)


def test_the_reading_of_contention_says_who_ends_first_and_why() -> None:
    said = READINGS["contention"]()

    assert "«variación completa» hace 3" in said
    assert "Acaba antes «sin espera», porque el servidor del modelo nunca se satura" in said


def test_the_reading_of_contention_follows_its_data() -> None:
    other = compared().assign(calls=[1_000.0, 900.0, 100.0, 200.0, 300.0])

    said = readings_resilience.contention(other)

    assert "«variación a medias» hace 10 veces menos" in said
    assert "ahorra solo un 10 %" in said


def test_the_reading_of_metastable_says_who_does_not_come_back() -> None:
    said = READINGS["metastable"]()

    assert "«3 reintentos con variación» no vuelve" in said
    assert "«cortacircuitos» vuelve en el 33" in said


def test_the_reading_of_amplification_counts_the_layers() -> None:
    said = READINGS["amplification"]()

    assert "reintentar hace 4 llamadas" in said
    assert "3, 9, 27, 81" in said


def test_the_reading_of_time_limits_counts_what_is_cut_off() -> None:
    said = READINGS["time limits"]()

    assert "en p99 (" in said
    assert "corta 10 de cada 1000" in said
    assert "puede haberse hecho" in said


def test_the_reading_of_a_bulkhead_counts_what_it_refuses() -> None:
    said = READINGS["bulkhead"]()

    assert "sin mamparo, p50 35,5 s" in said
    assert f"(rechazadas del vecino: {shared()['with'].other_refused})" in said


def test_the_reading_of_hedging_says_what_it_costs() -> None:
    said = READINGS["hedging"]()

    assert "p99 sin segunda petición: 101 ms" in said
    assert "tras p50, 21,2 ms con un 50 % más de carga" in said
