from __future__ import annotations

import re

import pytest

from labkit.lab import states
from labkit.lab.states import Diagram, Transition
from labkit.lab.states_layout import arrange
from labkit.shop import order_book
from labkit.shop.order_book import PARTIALLY_RESERVED, REJECTED, RESERVATION_PENDING, RESERVED
from tests.figures import problems, words

SAGA = Diagram(
    (
        Transition("STARTED", "RESERVING", "pedir stock"),
        Transition("RESERVING", "PAYING", "StockReserved"),
        Transition("PAYING", "COMPLETED", "PaymentAuthorized"),
        Transition("RESERVING", "COMPENSATED", "StockReservationRejected"),
        Transition("PAYING", "COMPENSATING", "PaymentRejected"),
        Transition("COMPENSATING", "COMPENSATED", "StockReleased"),
        Transition("COMPENSATING", "STUCK", "cinco fallos"),
        Transition("STUCK", "COMPENSATING", "reintentar"),
    )
)


def test_the_order_rule_has_these_five_transitions() -> None:
    found = {(each.source, each.target) for each in states.order_status().transitions}

    assert found == {
        (RESERVATION_PENDING, PARTIALLY_RESERVED),
        (RESERVATION_PENDING, RESERVED),
        (RESERVATION_PENDING, REJECTED),
        (PARTIALLY_RESERVED, RESERVED),
        (PARTIALLY_RESERVED, REJECTED),
    }


def test_the_diagram_follows_the_rule_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = order_book.status_of
    monkeypatch.setattr(
        order_book, "status_of", lambda results: "VACÍO" if not any(results) else rule(results)
    )

    assert states.order_status().states[0] == "VACÍO"


def test_a_label_says_when_the_event_moves_the_order() -> None:
    labels = {(a, b): label for a, b, label in states.order_status().transitions}

    assert labels[PARTIALLY_RESERVED, RESERVED] == "StockReserved de la última línea"
    assert labels[RESERVATION_PENDING, PARTIALLY_RESERVED] == "StockReserved, pero faltan líneas"
    assert labels[PARTIALLY_RESERVED, REJECTED].startswith("StockReservationRejected")


def test_states_without_an_exit_are_final() -> None:
    assert states.order_status().final == [RESERVED, REJECTED]


@pytest.mark.parametrize("diagram", [states.order_status(), SAGA])
def test_a_diagram_is_legible_at_the_back(diagram: Diagram) -> None:
    assert problems(states.draw(diagram, title="Los estados")) == []


def test_every_state_and_label_is_drawn() -> None:
    drawn = "".join(words(states.draw(SAGA, title="La saga"))).replace(" ", "")

    for name in [*SAGA.states, *(each.label.replace(" ", "") for each in SAGA.transitions)]:
        assert name in drawn


def test_every_arrow_but_the_way_back_runs_down() -> None:
    layers, ways = arrange(SAGA.transitions)
    depth = {node: n for n, layer in enumerate(layers) for node in layer}

    up = [way.label for way in ways if depth[way.nodes[0]] > depth[way.nodes[-1]]]
    assert up == ["reintentar"]


def test_a_long_arrow_holds_a_place_in_every_layer_it_crosses() -> None:
    _, ways = arrange([("A", "B", ""), ("B", "C", ""), ("A", "C", "directo")])

    assert [len(way.nodes) for way in ways] == [2, 2, 3]


def test_transitions_between_the_same_states_share_an_arrow() -> None:
    _, ways = arrange([("A", "B", "uno"), ("A", "B", "dos")])

    assert [way.label for way in ways] == ["uno / dos"]


@pytest.mark.parametrize("transitions", [[], [("A", "A", "nada")]])
def test_what_is_no_diagram_is_refused(transitions: list[tuple[str, str, str]]) -> None:
    with pytest.raises(ValueError, match="cambia de estado"):
        arrange(transitions)


def test_mermaid_tells_the_same() -> None:
    text = states.mermaid(states.order_status())

    assert text.startswith("stateDiagram-v2\n    [*] --> RESERVATION_PENDING\n")
    assert len(re.findall(r"^    \w+ --> \w+: ", text, re.MULTILINE)) == 5
    assert text.endswith("    REJECTED --> [*]\n")
