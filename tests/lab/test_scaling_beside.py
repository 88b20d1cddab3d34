"""Tables beside theory, and the figure of cold starts: what they claim is in the data."""

from __future__ import annotations

import pytest

from labkit.lab import charts, charts_functions
from labkit.lab.scaling import beside
from labkit.lab.simulations import balancing, queueing, serverless

pytestmark = pytest.mark.thorough


def test_waits_are_beside_erlangs_formula_from_a_load_on() -> None:
    shown = beside.waits(queueing.curve((1,), (0.3, 0.5, 0.8), count=60_000))

    assert shown["ocupación"].tolist() == [0.5, 0.8]
    assert shown["espera según Erlang"].tolist() == [1.0, 4.000000000000001]
    assert shown["diferencia (%)"].abs().max() < 10


def test_both_sides_of_littles_law_agree() -> None:
    assert beside.little(((4, 0.9),))["diferencia (%)"].abs().max() < 5


def test_theory_stands_beside_the_policies_that_have_one() -> None:
    shown = beside.balancers(balancing.compare(requests=2_000)).set_index("reparto")

    assert shown["media según la teoría"].round(2)["al azar"] == 10
    assert shown["media según la teoría"].round(2)["el menos ocupado"] == 1.67
    assert shown["media según la teoría"].isna().sum() == 2


def test_who_scales_from_zero_pays_least_and_takes_workers_away_less_often_when_patient() -> None:
    shown = beside.autoscalers().set_index("procesos")["segundos de proceso"]

    assert shown.idxmin() == "de 0 a 12"
    assert beside.flapping()["cambios"].is_monotonic_decreasing


def test_a_partial_result_saves_the_good_messages_of_a_batch() -> None:
    shown = beside.batches()

    assert shown["ejecuciones"].tolist() == shown["ejecuciones, a mano"].tolist() == [30, 12]
    assert shown["muertos que eran buenos"].tolist() == [9, 0]


def test_the_break_even_is_nearer_the_longer_a_request_takes() -> None:
    assert beside.break_evens()["peticiones por segundo"].is_monotonic_decreasing


def test_fewer_instances_start_cold_less_often_and_let_wait_longer() -> None:
    shown = beside.caps()

    assert shown["arranques en frío"].is_monotonic_decreasing
    assert shown["espera más larga (s)"].is_monotonic_increasing
    assert shown["instancias, como mucho"].tolist() == ["sin tope", "5", "2"]


def test_cold_starts_are_drawn_and_counted() -> None:
    served = serverless.run(serverless.Function(cap=5), serverless.trickle_and_burst())
    shown = charts.bundle(
        charts_functions.starts(served), charts_functions.reading_of_starts(served)
    )

    assert shown["text/plain"].startswith("De 78 peticiones, 6 arrancan en frío y tardan 0,9 s;")
