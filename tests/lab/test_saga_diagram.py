from __future__ import annotations

from itertools import pairwise

import pytest

from labkit.lab import branching, saga_diagram, saga_messages, states
from labkit.lab.states import Diagram
from labkit.saga import (
    COMPENSATABLE,
    RETRIABLE,
    Kind,
    Local,
    Saga,
    Step,
)
from labkit.shop.checkout import CHECKOUT, RELEASE, RESERVE, Checkout
from tests.figures import problems, words

ORDER = saga_messages.checkout_of("ORD-8")
NOTHING = Local(lambda session, order: None)
SHORT = Saga(
    "short",
    Step("reserve", COMPENSATABLE, RESERVE, undo=RELEASE),
    Step("tell", RETRIABLE, NOTHING),
    data=Checkout,
)


@pytest.fixture(scope="module")
def shown() -> Diagram:
    return saga_diagram.diagram(CHECKOUT, ORDER)


def edges(diagram: Diagram) -> set[tuple[str, str]]:
    return {(source, target) for source, target, _ in diagram.transitions}


def test_the_diagram_has_every_step_of_the_definition_in_its_order(shown: Diagram) -> None:
    forth = [state.removesuffix("/do") for state in shown.states if state.endswith("/do")]

    assert sorted(forth) == sorted(CHECKOUT.steps)
    for step in CHECKOUT.steps:
        following = CHECKOUT.after(step)
        target = "COMPLETED" if following is None else f"{following}/do"
        assert (f"{step}/do", target) in edges(shown)


def test_compensations_run_in_reverse_order_and_only_where_there_is_one(shown: Diagram) -> None:
    back = [name for name, step in CHECKOUT.steps.items() if step.undo is not None]

    assert {s for s in shown.states if s.endswith("/undo")} == {f"{name}/undo" for name in back}
    for before, step in pairwise(back):
        assert (f"{step}/undo", f"{before}/undo") in edges(shown)
    assert (f"{back[0]}/undo", "COMPENSATED") in edges(shown)


def test_behind_the_pivot_nothing_leads_back(shown: Diagram) -> None:
    behind = [name for name, step in CHECKOUT.steps.items() if step.kind is RETRIABLE]

    for step in behind:
        assert {target for source, target in edges(shown) if source == f"{step}/do"} == {
            "COMPLETED"
        }


def test_every_answer_of_the_definition_stands_on_an_arrow(shown: Diagram) -> None:
    labels = " ".join(each.label for each in shown.transitions)

    answers = [event for _, command in CHECKOUT.commands() for event in command.outcomes]
    assert all(event.event_type in labels for event in answers)
    assert f"sin respuesta ×{RESERVE.attempts}" in labels
    assert f"sin respuesta ×{RELEASE.attempts}" in labels


def test_what_is_stuck_goes_on_only_by_a_person(shown: Diagram) -> None:
    out = [each for each in shown.transitions if each.source == "STUCK"]

    assert {each.label for each in out} == {saga_diagram.BY_A_PERSON}
    assert {each.target for each in out} == {"reserve_stock/undo", "authorize_payment/undo"}


def test_another_definition_has_another_diagram() -> None:
    shown = saga_diagram.diagram(SHORT, ORDER)

    assert ("reserve/do", "tell/do") in edges(shown)
    assert not any("payment" in state for state in shown.states)


def test_an_order_of_two_lines_has_the_same_states_and_partly_goes_back(shown: Diagram) -> None:
    two = saga_diagram.diagram(CHECKOUT, saga_messages.checkout_of("ORD-3"))

    assert set(two.states) == set(shown.states)
    assert ("reserve_stock/do", "reserve_stock/undo") in edges(two)


def test_the_mermaid_text_is_written_from_the_same_transitions(shown: Diagram) -> None:
    text = states.mermaid(shown)

    assert all(f"{s} --> {t}: {label}" in text for s, t, label in shown.transitions)
    assert text.startswith("stateDiagram-v2\n    [*] --> reserve_stock/do\n")


@pytest.mark.parametrize("saga", [CHECKOUT, SHORT], ids=lambda saga: saga.name)
def test_the_figure_names_states_and_zones_in_words(saga: Saga) -> None:
    figure = saga_diagram.draw(saga, ORDER, title="La saga")

    assert problems(figure) == []
    shown = [word.replace(" /", "/") for word in words(figure)]
    assert set(saga_diagram.diagram(saga, ORDER).states) <= set(shown)
    kinds = {step.kind for step in saga.steps.values()}
    assert {saga_diagram.ZONES[kind] for kind in kinds} <= set(shown)
    assert not {saga_diagram.ZONES[kind] for kind in {*Kind} - kinds} & set(shown)


def test_the_reading_names_zones_ends_and_who_waits(shown: Diagram) -> None:
    said = saga_diagram.reading(CHECKOUT, shown)

    assert "compensable: reserve_stock, create_order" in said
    assert "punto de no retorno: authorize_payment" in said
    assert "A una persona (STUCK) llevan reserve_stock/undo, authorize_payment/undo." in said


def test_a_saga_has_one_way_on_and_a_process_manager_several() -> None:
    assert branching.of_saga(CHECKOUT, ORDER).most == 1
    assert branching.of_backorder().most == 3
    assert set(branching.of_backorder().ends) == {
        "WHOLE", "ACCEPTED", "DECLINED", "EXPIRED", "OUT_OF_STOCK",
    }  # fmt: skip


def test_the_process_managers_ways_are_drawn_and_one_of_them_is_silence() -> None:
    shown = branching.diagram_of_backorder()

    assert ("offered", "EXPIRED", "silencio") in shown.transitions
    assert problems(states.draw(shown, title="Un pedido con espera")) == []
