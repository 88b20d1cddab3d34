"""Mistakes with sagas that no other test of the rules is about; docs/pitfalls.md lists them all."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import ConfigurationError
from labkit.messages import Event
from labkit.saga import (
    COMPENSATABLE,
    COMPLETED,
    PIVOT,
    RETRIABLE,
    STUCK,
    Command,
    Saga,
    Step,
)
from labkit.testing.sagas import Rehearsal, given
from tests.toy_saga import (
    BankAway,
    CannotShip,
    Declined,
    OutOfStock,
    Paid,
    Pay,
    Release,
    Reserve,
    Reserved,
    Ship,
    Shipped,
    Toy,
    Voided,
    VoidPayment,
    pay,
    release,
    reserve,
    ship,
    toy_saga,
)

STOCK = Step("stock", COMPENSATABLE, reserve(), undo=release())
PAYMENT = Step("payment", PIVOT, pay())
SHIPPING = Step("shipping", RETRIABLE, ship())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([PAYMENT, STOCK], "stock is compensatable and comes after payment.*move it before"),
        ([SHIPPING, STOCK], "stock is compensatable and comes after shipping"),
        ([SHIPPING, PAYMENT], "there is one point of no return"),
        ([PAYMENT, replace(PAYMENT, name="second")], "there is one point of no return"),
        ([replace(STOCK, undo=None)], "say with undo= what makes it good"),
        ([replace(SHIPPING, undo=release())], "nothing ever makes it good"),
        ([STOCK, STOCK], "two steps stock"),
        ([], "has no steps"),
    ],
)
def test_a_definition_that_could_not_be_made_good_is_refused(steps: list[Step], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Saga("toy", *steps, data=Toy)


def paying() -> Rehearsal:
    return given(toy_saga(), Toy("ORD-1")).reply(Reserved()).expect(Reserve, "order/do", Pay)


def test_a_no_to_a_compensation_waits_for_a_person() -> None:
    stock = replace(STOCK, undo=release(rejection=CannotShip))
    saga = given(Saga("toy", stock, PAYMENT, data=Toy), Toy("ORD-1"))
    saga.reply(Reserved(), Declined()).expect(Reserve, Pay, Release)
    saga.reply(CannotShip()).expect().expect_stuck("stock: STRIKE")


def test_the_next_compensation_waits_for_the_answer_to_the_one_before() -> None:
    saga = paying().advance(120).expect(Pay, Pay, VoidPayment)
    saga.advance(20).expect(VoidPayment).reply(Voided()).expect("order/undo", Release)


@pytest.mark.parametrize("answer", [
    Reserved(), OutOfStock(), Paid(), Declined(), BankAway(), Shipped(), CannotShip(),
])  # fmt: skip
def test_no_answer_to_what_was_asked_moves_a_saga_that_has_completed(answer: Event) -> None:
    saga = paying().reply(Paid(), Shipped()).expect(Ship).expect_completed()
    ended = saga.state
    assert saga.reply(answer).expect().state == ended


def test_time_does_not_move_a_saga_that_has_ended() -> None:
    saga = paying().reply(Paid(), Shipped()).expect(Ship).expect_completed()
    assert saga.until_due_s is None
    assert saga.advance(hours=1000).expect().state.status is COMPLETED


def longest_s(saga: Saga) -> float:
    """Return the time in which a saga whose participants are silent tries all that it may."""
    return sum(_longest_s(command) for _, command in saga.commands())


def _longest_s(command: Command) -> float:
    pauses = (min(command.cap_s, command.pause_s * 2.0**n) for n in range(command.attempts - 1))
    return command.attempts * command.timeout_s + sum(pauses)


@pytest.mark.parametrize("answers", [[], [Reserved()], [Reserved(), Paid()]], ids=len)
def test_a_saga_that_nobody_answers_stands_still_after_a_time_that_its_steps_set(
    answers: list[Any],
) -> None:
    saga = given(toy_saga(), Toy("ORD-1")).reply(*answers).advance(longest_s(toy_saga()))
    assert saga.state.status is STUCK
    assert saga.until_due_s is None


TESTS = Path(__file__).resolve().parents[1]
OF_SAGAS = re.compile("saga|checkout|process_manager|backorder")


def test_no_test_of_sagas_or_processes_sleeps() -> None:
    # Those of tests/crash may: a frozen process needs time to be missed.
    files = [path for place in ("", "unit", "integration") for path in (TESTS / place).glob("*.py")]
    paths = [path for path in files if OF_SAGAS.search(path.name)]
    assert len(paths) > 10
    assert [path.name for path in paths if rests(ast.parse(path.read_text()))] == []


def rests(tree: ast.Module) -> bool:
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(ast.unparse(call).endswith("sleep") for call in calls)
