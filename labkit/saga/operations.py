"""Operations: what people see of sagas, and what they do about them.

    retry        the step of a stuck saga is tried again, with all its attempts
    skip         somebody did it by hand, or it can be done without: the saga goes on behind it
    compensate   a stuck saga makes good what it did; refused behind the point of no return
    cancel       the business wants a running saga undone; refused from the pivot on

The problem: a saga that is STUCK waits for a person, and a person who repairs rows by hand leaves
no trace, forgets the commands that follow, and meets a colleague who does the same.

Guarantee: what a person does is one transaction by the rules of `labkit.saga.decide`, with who and
why in the history. Of two at once the second waits, decides on what the first left, and is told
who did what when that leaves nothing to do.
Not guaranteed: that `skip` is true: nobody checks what was done by hand.

Crash windows: none; it joins your transaction, and what is not committed did not happen.

Source: NServiceBus' ServicePulse and Orkes' Conductor have these verbs; Temporal has reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Row, case, select
from sqlalchemy.orm import Session

from labkit import limits, unit_of_work
from labkit.clock import SystemClock
from labkit.errors import SagaError
from labkit.saga.rows import Kept
from labkit.saga.state import (
    ENDED,
    RUNNING,
    STUCK,
    Cancel,
    Compensate,
    Retry,
    Skip,
    State,
    Status,
)

UNDER_WAY = tuple(status for status in Status if status not in ENDED)


class Listed(NamedTuple):
    """A saga as it stands.

    `step` is `step/direction`, empty at the end. `age_s` counts from its beginning, `waiting_s`
    from the last thing that happened to it, both in seconds.
    """

    saga: str
    id: str
    version: int
    status: Status
    step: str
    attempt: int
    due_at: datetime | None
    reason: str | None
    started_at: datetime
    updated_at: datetime
    age_s: float
    waiting_s: float


class Line(NamedTuple):
    """A line of the history: what happened, and the message or the person that caused it."""

    at: datetime
    what: str
    step: str
    detail: str
    message_id: str | None
    who: str | None


class Shown(NamedTuple):
    """All that is known of a saga; the state's `data` is as JSON has it, whatever its version."""

    listed: Listed
    state: State
    history: list[Line]


class Operations:
    """The verbs of people, for the sagas of one name.

    Args:
        sagas: which.
    """

    def __init__(self, sagas: Kept) -> None:
        self._sagas = sagas
        self._table, self._history = sagas.store.table, sagas.store.history

    def find(
        self,
        session: Session,
        statuses: Collection[Status] = UNDER_WAY,
        *,
        older_than_s: float = 0.0,
        waiting_s: float = 0.0,
        limit: int | None = None,
    ) -> list[Listed]:
        """Return sagas: first what is stuck, then what was touched longest ago, then what ended.

        Args:
            session: your transaction.
            statuses: which; all that have not ended by default.
            older_than_s: how long ago they began at least, in seconds.
            waiting_s: how long nothing has happened to them at least, in seconds.
            limit: how many at most.
        """
        now, columns = _now(session), self._table.c
        query = select(self._table).where(
            columns.saga == self._sagas.name,
            columns.status.in_([str(each) for each in statuses]),
            columns.started_at <= now - timedelta(seconds=older_than_s),
            columns.updated_at <= now - timedelta(seconds=waiting_s),
        )
        stuck_first = case((columns.status == str(STUCK), 0), else_=1)
        # NULL, so last, for what has ended: of that the newest is asked for.
        under_way = case(
            (columns.status.in_([str(each) for each in UNDER_WAY]), columns.updated_at)
        )
        order = (stuck_first, under_way, columns.updated_at.desc(), columns.id)
        query = query.order_by(*order).limit(limit)
        return [_listed(row, _state(row), now) for row in session.execute(query)]

    def one(self, session: Session, saga_id: str) -> Shown:
        """Return all that is known of a saga.

        Raises:
            SagaError: when there is none.
        """
        row = session.execute(select(self._table).where(self._is(saga_id))).one_or_none()
        if row is None:
            raise self._missing(saga_id)
        state = _state(row)
        return Shown(_listed(row, state, _now(session)), state, self._lines(session, saga_id))

    def retry(self, session: Session, saga_id: str, *, who: str, why: str) -> State:
        """Try the step of a stuck saga again, from its first attempt.

        An answer that came meanwhile counts: then the saga goes on at once.

        Args:
            session: your transaction; the command leaves if you commit.
            saga_id: which.
            who: decided it.
            why: for whoever asks later.

        Returns:
            The saga's new state.

        Raises:
            SagaError: when it cannot be; says what can, and who was faster.
            UnknownSagaError: when its version is not registered.
        """
        return self._act(session, saga_id, Retry, who, why)

    def skip(self, session: Session, saga_id: str, *, who: str, why: str) -> State:
        """Go on behind the step of a stuck saga, as if it had succeeded; as `retry`."""
        return self._act(session, saga_id, Skip, who, why)

    def compensate(self, session: Session, saga_id: str, *, who: str, why: str) -> State:
        """Let a stuck saga make good what it did, the stuck step included; as `retry`."""
        return self._act(session, saga_id, Compensate, who, why)

    def cancel(self, session: Session, saga_id: str, *, who: str, why: str) -> State:
        """Let a running saga make good what it did, because the business wants so; as `retry`."""
        return self._act(session, saga_id, Cancel, who, why)

    def _act(
        self,
        session: Session,
        saga_id: str,
        wanted: Callable[[str], Retry | Skip | Compensate | Cancel],
        who: str,
        why: str,
    ) -> State:
        if not (who.strip() and why.strip()):
            raise SagaError("say who decides about the saga, and why: nobody else will know")
        turn = self._sagas.turn(session)
        turn.lock([saga_id])
        state = turn.state(saga_id)
        if state is None:
            raise self._missing(saga_id)
        stimulus = wanted(limits.storable(why))
        try:
            moved: State = turn.take(state, stimulus, who=limits.storable(who)).state
        except SagaError as error:
            said = [str(error), _remedy(state, stimulus), self._last_word(session, saga_id)]
            raise SagaError("; ".join(filter(None, said))) from error
        turn.finish()
        return moved

    def _last_word(self, session: Session, saga_id: str) -> str:
        """Say what a person did to it last: a colleague may have been faster."""
        by_people = [line for line in self._lines(session, saga_id) if line.who]
        verbs = [line for line in by_people if line.what in _VERBS]
        if not verbs:
            return ""
        last = verbs[-1]
        did = f"{last.who} {_VERBS[last.what]} {last.step}".rstrip()
        return f"{did} at {last.at.isoformat(' ', 'seconds')} ({last.detail})"

    def _lines(self, session: Session, saga_id: str) -> list[Line]:
        columns = self._history.c
        mine = (columns.saga == self._sagas.name) & (columns.id == saga_id)
        lines = select(*(columns[name] for name in Line._fields)).where(mine)
        return [Line(*row) for row in session.execute(lines.order_by(columns.seq))]

    def _is(self, saga_id: str) -> ColumnElement[bool]:
        return (self._table.c.saga == self._sagas.name) & (self._table.c.id == saga_id)

    def _missing(self, saga_id: str) -> SagaError:
        return SagaError(f"there is no {self._sagas.name} {saga_id}: see labkit saga list --all")


# How the rules note what a person does, and how to say it.
_VERBS = {
    "retried": "retried",
    "skipped": "skipped",
    "told to compensate": "compensated",
    "cancelled": "cancelled it",
}


def _remedy(state: State, stimulus: object) -> str:
    if state.status in ENDED:
        return "it has ended, so nothing is left to do"
    if not isinstance(stimulus, Cancel):
        return "" if state.status is STUCK else "it goes on by itself, so look again later"
    if state.status is STUCK:
        return "retry, skip or compensate it"
    if state.status is RUNNING:
        return "let it end, then make its result good by a new process, such as a refund"
    return "it is being undone already"


def _now(session: Session) -> datetime:
    return unit_of_work.carried(session, "labkit_clock", SystemClock()).now()


def _state(row: Row[Any]) -> State:
    return msgspec.json.decode(row.state, type=State)


def _listed(row: Row[Any], state: State, now: datetime) -> Listed:
    return Listed(
        saga=row.saga,
        id=row.id,
        version=row.version,
        status=state.status,
        # A process manager asks for no steps: what it is at is the state that it named.
        step=str(state.in_hand or "") if state.asked else row.step,
        attempt=state.attempt,
        due_at=row.due_at,
        reason=row.reason,
        started_at=row.started_at,
        updated_at=row.updated_at,
        age_s=(now - row.started_at).total_seconds(),
        waiting_s=(now - row.updated_at).total_seconds(),
    )
