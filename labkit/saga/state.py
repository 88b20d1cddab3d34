"""What a saga remembers, what can happen to it, and what it answers: plain data, no I/O."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from labkit.saga.actions import Outcome
from labkit.saga.definition import DO, Direction, Request


class Status(StrEnum):
    """How a saga stands; it ends COMPLETED or COMPENSATED, and only a person ends STUCK."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    STUCK = "STUCK"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"


RUNNING, COMPENSATING, STUCK = Status.RUNNING, Status.COMPENSATING, Status.STUCK
COMPLETED, COMPENSATED = Status.COMPLETED, Status.COMPENSATED
ENDED = frozenset({COMPLETED, COMPENSATED})


class State(Struct, frozen=True, kw_only=True):
    """A saga at one moment.

    Args:
        id: the saga's id; in the shop the reservation's, and the correlation id of all messages.
        version: of the definition that it began with and ends with.
        data: what its steps are made from.
        status: see `Status`.
        direction: whether it goes forward or makes good; kept while it is stuck.
        step: the step in hand; empty when it has ended.
        attempt: which attempt of the step, from 1.
        sent: False while it pauses before the next attempt.
        answers: part to outcome, of the step in hand.
        asked: every request that was ever made, as `step/direction`.
        done: the steps that have, or may have, an effect, oldest first.
        undone: the steps that were made good.
        due_at: when the answer, or the pause, is over.
        reason: why it went back, or why it is stuck.
    """

    id: str
    version: int
    data: Any
    status: Status = RUNNING
    direction: Direction = DO
    step: str = ""
    attempt: int = 0
    sent: bool = False
    answers: dict[str, Outcome] = {}
    asked: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    due_at: datetime | None = None
    reason: str | None = None

    @property
    def in_hand(self) -> Request | None:
        """Return the request in hand, None at the end."""
        return Request(self.step, self.direction) if self.step else None

    def has_asked(self, request: Request) -> bool:
        """Say whether a request was ever made."""
        return str(request) in self.asked

    def with_(self, **changes: Any) -> State:
        """Return the state with changes."""
        return replace(self, **changes)


class Started(NamedTuple):
    """The saga begins."""


class Reply(NamedTuple):
    """A participant answered a request; `reason` is its own word for a no."""

    request: Request
    outcome: Outcome
    part: str
    event: str
    reason: str | None = None


class Due(NamedTuple):
    """The time of the step in hand is over."""


class Cancel(NamedTuple):
    """The business wants it undone."""

    why: str


class Retry(NamedTuple):
    """An operator wants the step of a stuck saga tried again."""

    why: str


class Skip(NamedTuple):
    """An operator did the step of a stuck saga by hand, or does without it."""

    why: str


class Compensate(NamedTuple):
    """An operator wants a stuck saga to make good what it did."""

    why: str


Stimulus = Started | Reply | Due | Cancel | Retry | Skip | Compensate


class Do(NamedTuple):
    """Send the command, or run the local work, of a request."""

    request: Request
    attempt: int


class Note(NamedTuple):
    """A line of the history; `step` is `step/direction`."""

    what: str
    step: str = ""
    detail: str = ""


class Decision(NamedTuple):
    """What follows: the new state, what to do in this transaction, what to write down."""

    state: State
    actions: tuple[Do, ...] = ()
    notes: tuple[Note, ...] = ()
