"""05-W2: a relay that publishes what waits, in order, and loses nothing when it dies.

Attacked by 120 messages, by its death between publishing and marking, and by its death after each
of its first commits; then another one goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from labkit import crash
from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, StudentFunction, telling, unending
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import Drained, Publisher, assemble
from labkit.shop.contracts import FULFILLMENT, Line, ReserveStockRequested
from labkit.testing.ledgers import read_entries

_MANY, _FEW = 120, 6
_DEATHS = 6
_PATIENCE_S = 20.0
_NAME = "repetidor"


def _attack(function: StudentFunction, servers: Callable[[], Stack]) -> list[str]:
    service = assemble({"publicar": function}).service
    with arena("exercise_05_orders", service, servers()) as place:
        case = _Case(place, service, function)
        return [attack(case) for attack in (_publish, _die_unmarked, _die_anywhere)]


class _Case:
    """An outbox with messages, and the function that is to publish them."""

    def __init__(self, place: Arena, service: Publisher, function: StudentFunction) -> None:
        self.place, self.service, self.function = place, service, function
        # Who comes after a dead one goes on at once.
        service.workers("relay", place.watcher, place.transport, owner=_NAME)

    def open(self, count: int) -> list[str]:
        """Begin with so many messages that wait; return their ids."""
        self.place.empty()
        with self.place.watcher.begin() as connection:
            return [
                self.service.outbox.add(
                    connection,
                    ReserveStockRequested(
                        reservation_id=f"RES-{n % 9}", lines=(Line("BOOK-DDD", 1),)
                    ),
                    key=f"RES-{n % 9}",
                    message_id=f"RES-{n % 9}-{n}",
                )
                for n in range(count)
            ]

    def run(self, steps: Steps) -> None:
        """Let it publish until nothing waits, and no longer than patience lasts."""
        with self.place.engine(steps) as engine:
            stop = _Until(engine, self.service, _PATIENCE_S)
            with telling(self.function), stop.watched():
                self.function(self.service, engine, self.place.transport, stop)
        if stop.gave_up:
            raise unending(_PATIENCE_S)

    def in_stream(self) -> list[str]:
        """Return the ids in the stream, partition by partition, repetitions too."""
        partitions = range(FULFILLMENT.partitions)
        found = [read_entries(self.place.transport, FULFILLMENT, each) for each in partitions]
        return [str(entry.message_id) for entries in found for entry in entries]

    def waiting(self) -> int:
        """Return how many messages are not marked as published."""
        query = "select 1 from outbox_messages where published_at is null"
        return len(self.place.rows(query))

    def refuse_lost(self, ids: list[str], shown: object) -> None:
        """Refuse what is marked, and not in the stream; and what nobody sent."""
        there = self.in_stream()
        if lost := [each for each in ids if each not in there]:
            if self.waiting():
                raise FlawError(
                    f"Te pararon cuando ya no quedaba nada… y quedan {self.waiting()} mensajes en "
                    f"la bandeja de salida, `{lost[0]}` el primero: publica hasta que `parar` lo "
                    "diga.",
                    shown,
                )
            raise FlawError(
                f"`{lost[0]}` consta como publicado y no está en el stream: lo marcaste antes de "
                "publicarlo y se perdió.",
                shown,
            )


class _Until(Drained):
    """Set when nothing waits, or patience is at its end."""

    def __init__(self, engine: Engine, service: Publisher, patience_s: float) -> None:
        super().__init__(engine, service.outbox)
        self.gave_up = False
        self._patience_s = patience_s

    @contextlib.contextmanager
    def watched(self) -> Any:
        """End it after a while."""
        timer = threading.Timer(self._patience_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.gave_up = True
        self.set()


def _publish(case: _Case) -> str:
    """Everything leaves, once and in order."""
    ids, steps = case.open(_MANY), Steps()
    case.run(steps)
    if waiting := case.waiting():
        raise FlawError(
            f"Quedan {waiting} de {_MANY} mensajes en la bandeja de salida: el repetidor trabaja "
            "hasta que `parar` lo diga."
        )
    case.refuse_lost(ids, "")
    there = case.in_stream()
    if more := [each for each, times in Counter(there).items() if times > 1]:
        raise FlawError(f"`{more[0]}` salió {Counter(there)[more[0]]} veces sin que muriera nadie.")
    _refuse_disorder(there)
    return f"{_MANY} mensajes: todos en el stream, una vez, en su orden"


def _refuse_disorder(there: list[str]) -> None:
    latest: dict[str, tuple[int, str]] = {}
    for each in there:
        key, number = each.rsplit("-", 1)
        if key in latest and int(number) < latest[key][0]:
            other = latest[key][1]
            raise FlawError(f"`{each}` salió detrás de `{other}`, que se escribió después.")
        latest[key] = (int(number), each)


def _die_unmarked(case: _Case) -> str:
    """It dies between publishing and marking; the next one publishes again, under the same id."""
    ids = case.open(_FEW)

    def work(_steps: Steps) -> None:
        crash.configure({"LABKIT_FAULTS": "relay.after_publish:kill:@1"})
        case.run(Steps())

    # No step of that number: only the crash point kills, if labkit's own relay is at work.
    dies_after(0, work)
    case.run(Steps())
    case.refuse_lost(ids, "publicado → ✖ SIGKILL → otro repetidor")
    return "muerto entre publicar y marcar: el siguiente lo publica otra vez, con el mismo id"


def _die_anywhere(case: _Case) -> str:
    """It dies after each of its first commits."""
    case.open(_FEW)
    whole = Steps()
    case.run(whole)
    commits = [n for n, label in enumerate(_done(whole), 1) if label == "COMMIT"]
    chosen = commits[:: max(1, len(commits) // _DEATHS)][-_DEATHS:]
    for step in chosen:
        ids = case.open(_FEW)
        dies_after(step, case.run)
        case.run(Steps())
        case.refuse_lost(ids, "COMMIT → ✖ SIGKILL → otro repetidor")
    return f"{len(chosen)} muertes más, tras una confirmación: no se pierde ninguno"


def _done(steps: Steps) -> list[str]:
    """Return the labels of what counts as a step: a rollback does not."""
    return [label for label in steps.taken if label != "ROLLBACK"]


RELAYING = Exercise(
    id="05-W2",
    signature="publicar(service, engine, transport, parar)",
    hints=(
        (
            "No publiques a mano: `service.relay(engine, transport)` devuelve un repetidor, que "
            "publica, marca y recuerda por dónde iba el que murió."
        ),
        "Un repetidor trabaja con `run(parar)`, hasta que alguien active `parar`.",
    ),
    attack=_attack,
)
