"""The exercises of notebook 03 teach what the library does: same inputs, same answers.

The saga's requests are played as the library plays them; only words are translated. A saga of three
steps has few states, so all that can be reached are visited, and in each of them every message.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import product
from typing import ClassVar, NamedTuple

import pytest
from msgspec import Struct

from labkit.clock import FakeClock
from labkit.errors import UnknownReplyError
from labkit.lab.exercises.saga_pieces import INTENTOS, PASOS, Estado, Mensaje
from labkit.messages import Event
from labkit.ports import Stream
from labkit.saga import COMPENSATABLE, COMPENSATED, DO, PIVOT, UNDO, Command, Outcome, Saga, Step
from labkit.saga.actions import WHOLE
from labkit.saga.decide import decide
from labkit.saga.definition import Request
from labkit.saga.replies import classify
from labkit.saga.state import ENDED, Due, Reply, Started, State, Stimulus
from tests.saga_answers import clasificar, siguiente

OUTCOMES = {"hecho": Outcome.SUCCESS, "rechazo": Outcome.REJECTION, "fallo": Outcome.FAILURE}
MESSAGES = [
    Mensaje(step, outcome)  # type: ignore[arg-type]
    for step, outcome in product(PASOS, [*OUTCOMES, "sin respuesta"])
]
REPLIES = [message for message in MESSAGES if message.resultado in OUTCOMES]
PEERS = Stream("peers.events", partitions=2)


class Nothing(Struct, frozen=True):
    """The steps need no data."""


class Asked(Event, frozen=True):
    topic: ClassVar[str] = "exercise.asked"


class Done(Event, frozen=True):
    topic: ClassVar[str] = "exercise.done"


class Refused(Event, frozen=True):
    topic: ClassVar[str] = "exercise.refused"


class Failed(Event, frozen=True):
    topic: ClassVar[str] = "exercise.failed"


def saga_of(undo: Command) -> Saga:
    """Return the saga of the exercises; `undo` is awaited or not."""
    do = Command(
        lambda _: Asked(),
        success=Done,
        rejection=Refused,
        failure=Failed,
        source=PEERS,
        attempts=INTENTOS,
    )
    kinds = (COMPENSATABLE, COMPENSATABLE, PIVOT)
    steps = [Step(name, kind, do, undo=undo) for name, kind in zip(PASOS, kinds, strict=True)]
    return Saga("exercise", *steps, data=Nothing)


AT_ONCE = saga_of(Command(lambda _: Asked()))
AWAITED = saga_of(Command(lambda _: Asked(), success=Done, source=PEERS, attempts=2))


class Played(NamedTuple):
    """A saga of the library, and what it ordered in the exercise's words."""

    saga: Saga
    state: State
    orders: list[str]

    def has_asked(self, message: Mensaje) -> bool:
        """Say whether somebody asked for what a message answers."""
        return self.state.has_asked(Request(message.paso, DO))

    def after(self, *stimuli: Stimulus) -> Played:
        """Return it after some things happened, each when it was due."""
        state, orders = self.state, list[str]()
        for stimulus in stimuli:
            decision = decide(self.saga, state, stimulus, state.due_at or FakeClock().now())
            state = decision.state
            orders += [_order(do.request) for do in decision.actions]
        return Played(self.saga, state, orders)

    def told(self, message: Mensaje) -> Played:
        """Return it after a message, and after the pause that an attempt may wait for."""
        played = self.after(*_stimuli(self.state, message))
        if played.state.due_at is None or played.state.sent:
            return played
        again = played.after(Due())
        return again._replace(orders=played.orders + again.orders)


def begun(saga: Saga) -> Played:
    state = State(id="RES-11", version=1, data=Nothing())
    return Played(saga, state, []).after(Started())


def _order(request: Request) -> str:
    return f"{'pedir' if request.direction is DO else 'compensar'} {request.step}"


def _stimuli(state: State, message: Mensaje) -> list[Stimulus]:
    request = Request(message.paso, DO)
    if message.resultado == "sin respuesta":
        return [Due()] if state.in_hand == request else []
    return [Reply(request, OUTCOMES[message.resultado], WHOLE, message.resultado)]


def estado_of(state: State) -> Estado:
    return Estado(state.step or None, state.attempt or 1, state.done)


def reached(saga: Saga) -> Iterator[Played]:
    """Visit every state that messages to asked steps lead to, once."""
    visit, seen = [begun(saga)], set[str]()
    while visit:
        played = visit.pop()
        name = repr(played.state.with_(due_at=None))
        if name not in seen:
            seen.add(name)
            yield played
            visit += [played.told(message) for message in MESSAGES if played.has_asked(message)]


def is_of_e1(played: Played, message: Mensaje) -> bool:
    """What nobody asked for, and a success after the saga made good all it did, are 03-E2."""
    late = played.state.status is COMPENSATED and message.resultado == "hecho"
    return played.has_asked(message) and not late


def test_a_saga_begins_where_the_exercise_does() -> None:
    start = begun(AT_ONCE)

    assert (start.orders, estado_of(start.state)) == (["pedir reservar_stock"], Estado())


def test_what_comes_next_is_what_the_library_decides() -> None:
    questions = [
        (played, message)
        for played in reached(AT_ONCE)
        for message in MESSAGES
        if is_of_e1(played, message)
    ]
    for played, message in questions:
        after = played.told(message)
        estado, ordenes = siguiente(estado_of(played.state), message)

        assert ordenes == after.orders, (played.state, message)
        assert estado.terminada == (after.state.status in ENDED)
        assert estado.terminada or estado == estado_of(after.state)
    assert len({estado_of(played.state) for played, _ in questions if played.state.step}) == 9


def verdict_of(saga: Saga, state: State, reply: Mensaje) -> str:
    """Return the library's verdict in the exercise's words."""
    [answer] = _stimuli(state, reply)
    assert isinstance(answer, Reply)
    try:
        verdict = classify(saga, state, answer)
    except UnknownReplyError:
        return "apartar"
    return {"apply": "aplicar", "ignore": "ignorar", "compensate": "compensar"}[verdict]


def historia_of(state: State) -> dict[str, str]:
    """Return what a saga knows of the steps that it asked for."""
    asked = [step for step in PASOS if state.has_asked(Request(step, DO))]
    return {step: _known(state, step) for step in asked}


def _known(state: State, step: str) -> str:
    """Say what is known of a step; what is still to be made good later counts as done."""
    in_hand = state.in_hand
    if in_hand == Request(step, DO):
        return "en curso"
    if step in (state.done[:-1] if in_hand and in_hand.direction is UNDO else state.done):
        return "hecho"
    return "compensado" if state.has_asked(Request(step, UNDO)) else "rechazado"


def esperada_of(state: State) -> str | None:
    return state.step if state.direction is DO and state.step else None


@pytest.mark.parametrize("saga", [AT_ONCE, AWAITED], ids=["undone at once", "undone when answered"])
def test_what_to_do_with_an_answer_is_what_the_library_says(saga: Saga) -> None:
    for played, reply in product(reached(saga), REPLIES):
        ours = clasificar(reply, esperada_of(played.state), historia_of(played.state))

        assert ours == verdict_of(saga, played.state, reply), (reply, played.state)


def test_the_library_gives_all_four_verdicts() -> None:
    found = {
        verdict_of(AT_ONCE, played.state, reply)
        for played, reply in product(reached(AT_ONCE), REPLIES)
    }

    assert found == {"aplicar", "ignorar", "compensar", "apartar"}


def test_a_pause_is_over_when_the_next_attempt_is_asked_for() -> None:
    played = begun(AT_ONCE).told(Mensaje("reservar_stock", "fallo"))

    assert (played.state.attempt, played.state.sent) == (2, True)
    assert isinstance(played.state.due_at, datetime)
