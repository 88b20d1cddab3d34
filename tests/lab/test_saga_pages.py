"""What notebook 03 shows: who knows the flow, where an order is, who decides, what comes late."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.lab import (
    attempts,
    flows,
    late_replies,
    overselling,
    readings,
    saga_books,
    saga_messages,
    story,
    whereabouts,
)
from labkit.lab.servers import Stack
from labkit.lab.story import Story
from labkit.saga import UNDO, Request
from labkit.shop import checkout, choreography
from tests.figures import problems, words

RELEASE = Request("reserve_stock", UNDO)


@pytest.fixture
def historia(running: Stack) -> Iterator[Story]:
    opened = story.open("03", name="paginas_03", servers=running)
    yield opened
    opened.close()


def test_the_definition_is_cut_out_of_its_module() -> None:
    shown = flows.definition(checkout, "CHECKOUT")

    assert shown.startswith("CHECKOUT = Saga(\n")
    assert all(f'Step("{step}"' in shown for step in checkout.CHECKOUT.steps)
    with pytest.raises(LookupError, match="assigns no NOTHING"):
        flows.definition(checkout, "NOTHING")


def test_in_choreography_the_flow_is_in_two_modules_and_in_a_saga_in_one() -> None:
    assert flows.who_knows() == {
        "coreografía": ["shop.fulfillment", "shop.choreography"],
        "orquestación": ["shop.checkout"],
    }
    assert set(flows.who_asks()["orquestación"]) == {"shop.checkout", "–"}


def test_only_what_can_be_made_good_changes_places_and_before_the_pivot() -> None:
    cells = flows.moves(checkout.CHECKOUT)

    accepted = {(step, at) for step, row in cells.items() for at, cell in row.items()
                if cell.text == flows.ACCEPTED}  # fmt: skip
    assert accepted == {("reserve_stock", "2.º"), ("create_order", "1.º")}
    assert "De 12 cambios de sitio se rechazan 10" in flows.reading_of_moves(cells)
    assert flows.refusal(checkout.CHECKOUT, "reserve_stock", 2) is None
    assert "after authorize_payment" in str(flows.refusal(checkout.CHECKOUT, "create_order", 3))


def test_three_flows_differ_in_beginning_state_and_ways() -> None:
    found = flows.three_flows(saga_messages.checkout_of("ORD-8"))

    assert found["inicio explícito"].tolist() == [False, True, True]
    assert found["estado propio"].tolist()[0] == "–"
    assert found["caminos desde un estado"].tolist()[1:] == [1, 3]


def test_where_an_order_is_takes_four_queries_or_one(historia: Story) -> None:
    with historia.scratch() as bench:
        danced = whereabouts.danced(bench, "ORD-17", historia.clock)
        bench.settle()
        answered = whereabouts.in_choreography(bench, "ORD-17")
    with historia.scratch() as bench:
        conducted = whereabouts.conducted(bench, "ORD-17", historia.clock)

    assert (danced.queries, danced.databases) == (4, 2)
    assert (conducted.queries, conducted.databases) == (1, 1)
    assert danced.waits_for == conducted.waits_for == "inventory"
    assert (answered.waits_for, answered.step) == ("fulfillment", "aplicar la respuesta")
    assert danced.until == whereabouts.NOBODY_KNOWS
    assert whereabouts.table({"una": danced})["pregunta"].tolist() == [
        *whereabouts.QUESTIONS.values()
    ]


def test_a_late_yes_that_is_ignored_costs_a_unit(historia: Story) -> None:
    with historia.scratch() as bench:
        ignored = late_replies.ignoring(bench, "ORD-11")
    historia.check_out("ORD-11")
    saga_messages.answer_late(historia, deadlines=5)
    made_good = late_replies.outcome(historia, "ORD-11")

    assert ignored == ("ORD-11", "CANCELLED", 1)
    assert made_good == ("ORD-11", "CANCELLED", 0)
    lost = late_replies.table({"ignorar": ignored, "compensar": made_good})["unidades perdidas"]
    assert lost.tolist() == [1, 0]


def test_the_attempts_of_a_release_are_drawn_from_the_history(historia: Story) -> None:
    historia.decline("ORD-6")
    historia.check_out("ORD-6")
    saga_messages.release_in_vain(historia, deadlines=6)
    shown = saga_books.saga(historia, "ORD-6")
    found = attempts.marks(shown, RELEASE)

    assert [each.what for each in found] == ["asked", "timed out"] * 3 + ["asked", "answered"]
    assert [each.what for each in attempts.statuses(shown)] == ["COMPENSATING", "COMPENSATED"]
    figure = attempts.draw(shown, RELEASE, title="ORD-6")
    assert problems(figure) == []
    assert {*attempts.LANES.values(), "4.º", "COMPENSATED"} <= set(words(figure))
    said = attempts.reading(shown, RELEASE)
    assert "se pide 4 veces; 3 veces vence" in said
    assert said.endswith("StockReserved, PaymentDeclined, ReservationReleased.")


def test_what_is_stuck_says_why_and_who_decided(historia: Story) -> None:
    historia.decline("ORD-7")
    historia.check_out("ORD-7")
    saga_messages.release_in_vain(historia, deadlines=9)
    waiting = saga_books.saga(historia, "ORD-7")
    historia.decide("retry", "ORD-7", why="el inventario ha vuelto")
    decided = saga_books.decisions(saga_books.saga(historia, "ORD-7"))

    row = saga_books.stuck(waiting).iloc[0]
    assert (row["estado"], row["intentos"]) == ("STUCK", 5)
    assert row["motivo"] == "reserve_stock: no answer in time, 5 times"
    assert saga_books.decisions(waiting).empty
    assert decided[["quién", "qué decide", "por qué"]].values.tolist() == [
        ["operador", "reintentar", "el inventario ha vuelto"]
    ]


def test_the_journeys_show_who_acts_and_nobody_else(historia: Story) -> None:
    assert saga_books.held(historia, "ORD-3") == 1
    historia.settle(also=choreography.service)
    historia.check_out("ORD-8")
    historia.settle()
    back = saga_messages.from_the_rejection(historia, "ORD-3")
    forth = saga_messages.of_the_saga(historia, "ORD-8")

    assert saga_books.held(historia, "ORD-3") == 0
    assert [node.type for node in back.root.walk()] == [
        "OrderStatusChanged", "ReleaseReservationRequested", "ReservationReleased",
    ]  # fmt: skip
    assert [node.type for node in forth.root.walk()] == [
        "ReserveStockRequested", "StockReserved", "AuthorizePaymentRequested", "PaymentAuthorized",
    ]  # fmt: skip
    received = [m.where for node in forth.root.walk() for m in node.moments if m.what == "received"]
    assert received == ["inventory", "checkout", "payments", "checkout"]
    assert "causa 3 más" in readings.of_journey(forth)
    with pytest.raises(LookupError, match="ORD-1 "):
        saga_messages.from_the_rejection(historia, "ORD-1")


def test_twenty_threads_oversell_unless_the_database_decides(historia: Story) -> None:
    with historia.scratch() as bench:
        decided = overselling.promised(bench, overselling.take_if_there)
    with historia.scratch() as bench:
        read = overselling.promised(bench, overselling.read_and_write)

    assert read == {"con stock": 5, "sin stock": 15, "rechazados": 0}
    assert decided == {"con stock": 5, "sin stock": 0, "rechazados": 15}
    assert overselling.reading({"leer": read, "si queda": decided}) == (
        "20 hilos, 5 unidades: «leer» promete 15 de más; «si queda» promete 0 de más."
    )
