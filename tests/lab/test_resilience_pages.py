"""What notebook 04 shows: retries, payments, an outage, fallbacks, poison, a game day."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from labkit.lab import (
    capacity,
    charts,
    charts_bands,
    decisions,
    defences,
    game_day,
    learning,
    outage,
    poisoned,
    promises,
    retrying,
    tripping,
    unanswered,
)
from labkit.lab.bench import Bench
from labkit.lab.decision_cases import Facts
from labkit.lab.servers import Stack
from labkit.testing.fault_search import Found, Iteration
from tests.figures import problems, words

pytestmark = pytest.mark.thorough


@pytest.fixture
def bench(running: Stack) -> Iterator[Bench]:
    opened = Bench("paginas_04", servers=running)
    yield opened
    opened.delete()
    opened.close()


def test_retries_of_layers_multiply() -> None:
    assert [retrying.through_layers(depth) for depth in (1, 2, 3, 4)] == [3, 9, 27, 81]
    assert retrying.through_layers(3, attempts=2) == 8
    assert "81 con 4 capas" in retrying.reading_of_layers({4: 81})


def test_the_load_of_retries_follows_its_theory_and_a_budget_stays_flat() -> None:
    load = {name: dict(points) for name, points in retrying.load().items()}

    theory = load["teoría de tres reintentos"]
    for x, calls in load["tres reintentos"].items():
        assert calls == pytest.approx(theory[x], rel=0.05)
    assert max(load["con presupuesto"].values()) < 1.2


def test_without_chance_all_take_ten_times_longer() -> None:
    found = retrying.contention(runs=2)

    fixed, full = (found[name][retrying.SECONDS] for name in ("exponencial", "toda al azar"))
    assert fixed > 10 * full
    assert "toda al azar" in retrying.reading_of_contention(found)


def test_jitter_alone_does_not_bring_the_system_back() -> None:
    outcomes = retrying.trouble()

    reading = retrying.reading_of_trouble(outcomes)
    assert "No vuelve nunca: «reintentos y azar»." in reading
    assert set(retrying.goodput(outcomes)) == set(retrying.DEFENCES.values())


def test_a_longer_limit_cuts_less_and_waits_more() -> None:
    limits = unanswered.limits()

    cut, waited = ([y for _, y in limits[name]] for name in (unanswered.FALSE, unanswered.WAITING))
    assert cut == sorted(cut, reverse=True)
    assert waited == sorted(waited)
    assert "p99 (201 ms) corta 1 de" in unanswered.reading_of_limits(unanswered.percentiles_ms())


def test_unanswered_charges_look_alike_and_the_same_key_charges_once(bench: Bench) -> None:
    orders = ["ORD-1", "ORD-2", "ORD-3", "ORD-4", "ORD-5", "ORD-6"]
    provider = unanswered.company(bench)

    assert unanswered.charge_in_vain(provider, orders) == len(orders)
    first = unanswered.charged(provider, orders)
    unanswered.ask_again(provider, orders, "clave")
    same = unanswered.charged(provider, orders)
    unanswered.ask_again(provider, orders, "otra")

    assert 0 < first["cobrados"] < len(orders)
    assert same == {"sin cobrar": 0, "cobrados": 6, "cobrados dos veces": 0}
    assert unanswered.charged(provider, orders)["cobrados dos veces"] == 6


def test_eight_processes_make_eight_trials_and_with_a_shared_breaker_one(bench: Bench) -> None:
    seen = outage.run(bench)

    assert seen.trials(outage.OWN) == [8, 8, 8]
    assert seen.trials(outage.SHARED) == [1, 1, 1]
    assert seen.failures(outage.SHARED) < seen.failures(outage.OWN) == 40
    assert seen.opened_by_noes == (True, False)
    assert "«compartido»: 1, 1, 1." in outage.reading(seen)
    assert "se abre; el que los excluye sigue cerrado" in outage.reading_of_noes(seen)
    figure = charts_bands.bands(seen, title="Una caída")
    assert problems(figure) == []
    assert words(figure).count("8 pruebas") == words(figure).count("1 prueba") == 3


def test_who_lies_promises_what_is_not_there(running: Stack) -> None:
    shop = Bench("paginas_04", servers=running, stock=promises.STOCK)

    sold = promises.sell(shop).set_index("alternativa")
    shop.close()

    assert sold["prometidos sin stock"].to_dict() == {"encolar": 0, "modo lectura": 0, "mentir": 5}
    assert sold["pedidos"].tolist() == [10, 0, 10]
    assert sold.loc["encolar", "con stock"] == sold.loc["mentir", "con stock"] == 5


def test_a_poisoned_message_holds_up_its_key_only_and_keeps_its_order(running: Stack) -> None:
    shop = Bench("paginas_04", servers=running, batch=poisoned.BATCH)

    found = poisoned.flow(shop)
    shop.close()

    before, end = found.rounds[found.cured_at], found.rounds[-1]
    assert before == (0, 1, 1, 26)
    assert end == (0, 0, 0, 28)
    assert all(sum(stock) == 28 for stock in found.rounds)
    assert found.answers == ["stock-reserved", "reservation-released"]
    assert found.wrong == []


def test_every_fault_gets_its_answer_and_every_answer_is_given(bench: Bench) -> None:
    measured = decisions.run(bench)

    assert list(decisions.answers(measured).values()) == [
        "reintentar",
        "reintentar",
        "responder que no",
        "apartar",
        "apartar",
        "rechazar ya",
        "parar y esperar",
        "alternativa",
    ]


def test_facts_that_show_no_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="show no answer"):
        decisions.answer_of(Facts(attempts=1, ended=True))


def test_ones_own_answers_stand_beside_those_that_were_measured() -> None:
    measured = {"no hay stock": Facts(said_no=True), "conexión rota": Facts(2, ended=True)}
    mine = decisions.blank() | {"no hay stock": "reintentar", "conexión rota": "reintentar"}

    cells = decisions.cells(measured, mine)
    assert cells["no hay stock"]["reintentar"].text == "tu respuesta"
    assert cells["no hay stock"]["responder que no"] == ("un no", "good")
    assert cells["conexión rota"]["reintentar"].text == "2 intentos"
    assert decisions.reading(measured, mine).endswith("Coinciden 1 de tus 2.")
    assert decisions.reading(measured, decisions.blank()).endswith("Tabla en blanco.")
    assert (decisions.table(mine)["reintentar"] == "×").sum() == 2


@pytest.mark.parametrize("wrong", [{"no hay stock": "rezar"}, {"otro": "reintentar"}])
def test_what_is_not_in_the_table_is_refused(wrong: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match="no está en la tabla; respuestas: reintentar"):
        decisions.table(wrong)


def test_only_all_defences_together_withstand_every_fault() -> None:
    found = defences.every_pair()

    assert defences.withstood(found) == {
        "nada": 1,
        "reintentar todo": 1,
        "reintentar, con clave": 3,
        "tiempo límite": 1,
        "cortar": 1,
        "todo junto": 5,
    }
    assert found["respuestas perdidas"]["reintentar todo"].flaw() == "5 cobros dobles"
    assert found["una caída larga"]["todo junto"].calls < 10


@pytest.mark.slow
def test_after_a_game_day_only_yesterdays_code_leaves_something_wrong(bench: Bench) -> None:
    found = game_day.run(bench)

    assert game_day.broken(found) == ["la PR de ayer, muerta"]
    assert game_day.cells(found)["la PR de ayer, muerta"]["el stock cuadra"].verdict == "good"
    assert "tras 1: la PR de ayer, muerta." in game_day.reading(found)


def test_each_clause_of_the_hypothesis_can_say_no(bench: Bench) -> None:
    bench.place("ORD-1", ("BOOK-DDD", 1))
    with bench.stock.begin() as connection:
        connection.exec_driver_sql("update stock set available = 3 where sku = 'BOOK-HEX'")

    assert [look(bench) for look in game_day.HYPOTHESIS.values()] == [
        "1 pedido sin respuesta",
        "1 mensaje en espera",
        "no cuadra BOOK-HEX",
        game_day.the_audit_finds_nothing(bench),
    ]
    assert game_day.the_audit_finds_nothing(bench)


def test_what_a_version_taught_is_told_in_spanish() -> None:
    found = Found("la PR", 7, ("place", "attend and die"), "RES-1: saved, and no stock is held")
    iterations = [Iteration("la PR", 0, 0, found), Iteration("otra", 1, 1, None)]

    assert learning.counts(iterations)["otra"] == {learning.SURVIVED: 1, learning.NEW: 0}
    assert learning.found(iterations)["pasos"].tolist() == ["coloca, atiende y muere", "–"]
    assert "«otra» aguanta 1 de 1 conocidos y no muestra ninguno más" in learning.reading(
        iterations
    )


def test_a_shared_counter_never_opens_and_a_rate_does() -> None:
    found, mixed = tripping.calls_to_trip(), tripping.interleaved()

    assert [math.isnan(at) for at in mixed.values()] == [True, False]
    assert "no abre nunca: «5 seguidos»" in tripping.reading_of_trips(found, mixed)
    for (_, calls), (_, said) in zip(found["5 seguidos"], found[tripping.THEORY], strict=True):
        assert calls == pytest.approx(said, rel=0.3)


def test_a_fallback_inside_hides_the_failure_from_the_breaker() -> None:
    found = tripping.orders()

    assert math.isnan(found[tripping.HIDDEN][tripping.TO_OPEN])
    assert found[tripping.GOOD_ORDER][tripping.TO_OPEN] < 10


def test_calls_through_pybreaker_wait_for_each_other() -> None:
    took = tripping.held_up()

    assert took["pybreaker"] >= 1000 * tripping.THREADS * tripping.CALL_S
    assert took["LocalBreaker"] < took["pybreaker"]


def test_deadlines_bulkheads_limits_and_hedges_do_what_the_notebook_says() -> None:
    wasted = [row[capacity.WASTED] for row in capacity.deadline_work().values()]
    assert wasted == sorted(wasted, reverse=True)
    worst = {name: capacity.worst_s(points) for name, points in capacity.victims().items()}
    assert worst[capacity.WITHOUT] > 50 * worst[capacity.WITH]
    assert capacity.in_trouble(capacity.adapting())["adaptable"] > 30
    assert capacity.hedged()["tras el p95"][capacity.TAIL] < 35


FIGURES = {
    "bars": lambda: charts.bars(
        {"sin espera": {"llamadas": 2421, "s": 2.0}, "exponencial": {"llamadas": 1863, "s": 63.9}},
        title="Cien clientes",
        log=["s"],
    ),
    "bars with zero and never": lambda: charts.bars(
        {"una": {"llamadas": 0}, "otra": {"llamadas": math.nan}}, title="Nada"
    ),
    "a shaded stretch": lambda: charts.lines(
        {"sin mamparo": [(0, 1), (60, 1), (90, 80)], "con mamparo": [(0, 1), (90, 1)]},
        title="La causa", x="segundo", y="ms", dots=False, shaded=charts.Span(20, 40, "la causa"),
    ),
    "marks": lambda: charts.lines(
        {"una": [(20, 90), (200, 1)]}, title="Marcas", x="ms", y="%", log_x=True,
        marks={"p50": 50, "p99": 100, "p99,9": 130},
    ),
    "layers": lambda: retrying.layers_chart({1: 3, 4: 81}),
    "writes": lambda: charts.lines(retrying.writes(), title="Vuelven", x="ms", y="n", dots=False),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_at_the_back(name: str) -> None:
    figure: Figure = FIGURES[name]()

    assert problems(figure) == []


def test_bars_write_every_number_and_refuse_rows_that_differ() -> None:
    shown = words(FIGURES["bars with zero and never"]())

    assert {"0", "nunca"} <= set(shown)
    with pytest.raises(ValueError, match="las mismas medidas"):
        charts.bars({"una": {"a": 1}, "otra": {"b": 1}}, title="Distintas")
