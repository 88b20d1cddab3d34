"""One transaction's work on sagas: read and lock them, decide, act, and write all of it down.

Guarantee: the new states, their history, their commands (rows of the outbox) and the local work
are one transaction, in as many statements for a hundred sagas as for one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.clock import SystemClock
from labkit.errors import UnknownSagaError
from labkit.messages import Event, Message
from labkit.outbox import Outbox, Outgoing
from labkit.saga.decide import decide
from labkit.saga.definition import Command, Saga
from labkit.saga.state import ENDED, Decision, Do, Note, Started, State, Stimulus
from labkit.saga.store import Change, Row, Store, read_state

REQUEST_ID = "requestId"


class Turn:
    """Some sagas of one definition, in your transaction; `finish` writes what became of them.

    Args:
        session: your transaction.
        store: where they are kept.
        definitions: by version.
        outbox: takes their commands.
    """

    def __init__(
        self, session: Session, store: Store, definitions: Mapping[int, Saga], outbox: Outbox
    ) -> None:
        self.now: datetime = unit_of_work.carried(session, "labkit_clock", SystemClock()).now()
        self._session = session
        self._store = store
        self._definitions = definitions
        self._outbox = outbox
        self._rows: dict[str, Row] = {}
        self._states: dict[str, State] = {}
        self._notes: list[tuple[str, Note, str | None]] = []
        self._outgoing: list[Outgoing] = []

    def lock(self, ids: Collection[str], *, skip: bool = False) -> None:
        """Read sagas and keep them locked until your transaction ends; see `Store.locked`."""
        self._rows |= self._store.locked(self._session.connection(), ids, skip=skip)

    def state(self, saga_id: str) -> State | None:
        """Return a locked saga as this transaction has it, None when there is none.

        Raises:
            UnknownSagaError: when it began with a version that nobody registered here.
        """
        row = self._rows.get(saga_id)
        if row is None or saga_id in self._states:
            return self._states.get(saga_id)
        if row.version not in self._definitions:
            raise UnknownSagaError(
                f"{row.saga} {saga_id} began with version {row.version}, which is not registered "
                "here: register that definition too, then redrive"
            )
        return read_state(row, self._definitions)

    def begin(self, states: Mapping[str, State]) -> set[str]:
        """Write new sagas after their first step; return the ids that did not exist before."""
        begun = {
            saga_id: decide(self._definitions[state.version], state, Started(), self.now)
            for saga_id, state in states.items()
        }
        # Decided before they are written, so that a start is one statement; done only afterwards.
        after = [decision.state for decision in begun.values()]
        new = self._store.insert(self._session.connection(), after, self.now)
        for saga_id in sorted(new):
            self._follow(states[saga_id], begun[saga_id])
        return new

    def take(
        self, state: State, stimulus: Stimulus, cause: Message[Event] | None = None
    ) -> Decision:
        """Decide what follows, and do it in this transaction; raises what `decide` raises."""
        decision = decide(self._definitions[state.version], state, stimulus, self.now)
        self._states[state.id] = decision.state
        self._follow(state, decision, cause)
        return decision

    def _follow(
        self, before: State, decision: Decision, cause: Message[Event] | None = None
    ) -> None:
        saga, state = self._definitions[before.version], decision.state
        message_id = cause.message_id if cause else None
        self._notes += [(state.id, note, message_id) for note in decision.notes]
        for action in decision.actions:
            self._do(saga, state, action, cause)
        if state.status in ENDED and before.status not in ENDED and saga.at_end:
            saga.at_end(self._session, state)

    def _do(self, saga: Saga, state: State, do: Do, cause: Message[Event] | None) -> None:
        action = saga.action(do.request)
        if not isinstance(action, Command):
            action.run(self._session, state.data)
            return
        # Stable over attempts: a participant that knows it answers again, and acts once.
        request_id = f"{saga.name}/{state.id}/{do.request}"
        self._outgoing.append(
            Outgoing(
                action.make(state.data),
                key=state.id,
                correlation_id=state.id,
                cause=cause,
                occurred_at=self.now,
                headers={REQUEST_ID: request_id},
            )
        )

    def finish(self) -> None:
        """Write states, history and commands; they are true if your transaction commits."""
        connection = self._session.connection()
        changed = [
            Change(state, self._rows[saga_id].revision)
            for saga_id, state in sorted(self._states.items())
        ]
        if changed:
            self._store.update(connection, changed, self.now)
        self._store.write_down(connection, self._notes, self.now)
        self._outbox.add_all(self._session, self._outgoing)
