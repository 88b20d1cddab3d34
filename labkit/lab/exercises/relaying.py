"""05-W2: a relay that publishes what waits, in order, and loses nothing when it dies.

Attacked by messages that are there and messages that come later, by its death between publishing
and marking, and by its death after some of its commits; then another one goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sqlalchemy import Connection, Engine

from labkit import crash
from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import (
    FlawError,
    PendingError,
    StudentFunction,
    telling,
)
from labkit.lab.servers import Stack
from labkit.lab.workshop.assembly import Drained, Publisher, assemble
from labkit.shop.contracts import FULFILLMENT, Line, ReserveStockRequested
from labkit.testing.ledgers import read_entries

_MANY, _MORE, _FEW, _KEYS = 100, 20, 6, 9
_DEATHS = 6
_PATIENCE_S = 20.0
_NAME = "repetidor"
# All that a process can say at its end is a sentence.
_NOT_WRITTEN = "no está escrita"


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
        return self.write(0, count)

    def write(self, first: int, count: int) -> list[str]:
        """Write so many messages; return their ids."""
        with self.place.watcher.begin() as connection:
            return [self._add(connection, n) for n in range(first, first + count)]

    def _add(self, connection: Connection, number: int) -> str:
        reservation = _id(number).rpartition("-")[0]
        event = ReserveStockRequested(reservation_id=reservation, lines=(Line("BOOK-DDD", 1),))
        outbox = self.service.outbox
        return outbox.add(connection, event, key=reservation, message_id=_id(number))

    def run(self, steps: Steps, later: Callable[[], object] | None = None) -> None:
        """Let it publish until nothing waits, also of what is written later."""
        with self.place.engine(steps) as engine:
            stop = _Until(engine, self.service, later)
            with telling(self.function):
                self.function(self.service, engine, self.place.transport, stop)
        if not stop.told:
            raise FlawError(
                "Tu función volvió antes de que se activara `parar`: lo que se escriba después no "
                "lo publica nadie."
            )

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
            raise FlawError(
                f"`{lost[0]}` consta como publicado y no está en el stream: lo marcaste antes de "
                "publicarlo y se perdió.",
                shown,
            )


def _id(number: int) -> str:
    return f"RES-{number % _KEYS}-{number}"


class _Until(Drained):
    """Set when nothing waits; before that, what is to be written later is written."""

    def __init__(
        self, engine: Engine, service: Publisher, later: Callable[[], object] | None
    ) -> None:
        super().__init__(engine, service.outbox)
        self.told = False
        self._later = later

    def is_set(self) -> bool:
        """Look into the outbox."""
        if super().is_set() and self._later is not None:
            later, self._later = self._later, None
            later()
            return False
        self.told = super().is_set()
        return self.told


def _publish(case: _Case) -> str:
    """Everything leaves, once and in order, also what is written meanwhile."""
    ids = case.open(_MANY)
    _apart(lambda steps: case.run(steps, lambda: case.write(_MANY, _MORE)))
    ids += [_id(n) for n in range(_MANY, _MANY + _MORE)]
    if waiting := case.waiting():
        raise FlawError(f"Quedan {waiting} de {len(ids)} mensajes en la bandeja de salida.")
    case.refuse_lost(ids, "")
    there = case.in_stream()
    if more := [each for each, times in Counter(there).items() if times > 1]:
        raise FlawError(f"`{more[0]}` salió {Counter(there)[more[0]]} veces sin que muriera nadie.")
    _refuse_disorder(there)
    return f"{len(ids)} mensajes, unos escritos más tarde: todos en el stream, una vez y en orden"


def _apart(work: Callable[[Steps], object]) -> None:
    """Work in a process of its own: whatever does not end can be ended."""

    def told(steps: Steps) -> None:
        try:
            work(steps)
        except PendingError:
            raise FlawError(_NOT_WRITTEN) from None

    try:
        dies_after(0, told, patience_s=_PATIENCE_S)
    except FlawError as flaw:
        raise (PendingError() if flaw.sentence == _NOT_WRITTEN else flaw) from None


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
