"""Rows that one transaction works on: locked, changed in memory, written at the end.

Guarantee: whoever calls `finish` has stored the new states, their history and their messages (rows
of the outbox) in one transaction, in as many statements for a hundred rows as for one.
Not guaranteed: anything without `finish`.

Used by `labkit.saga.turn` and `labkit.process_manager`: they keep different states and decide
differently, and lock, write and publish alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.clock import SystemClock
from labkit.errors import ConfigurationError, UnknownSagaError
from labkit.messages import Event, Message
from labkit.outbox import Outbox, Outgoing
from labkit.saga.state import Due, Note
from labkit.saga.store import Change, Noted, Row, Store, Stored
from labkit.wire import REQUEST_ID

StoredT = TypeVar("StoredT", bound=Stored)


class Rows(ABC, Generic[StoredT]):
    """Some rows of one saga or process manager, in your transaction.

    Args:
        session: your transaction.
        store: where they are kept.
        versions: those that can be worked on here.
        outbox: takes their messages.
    """

    def __init__(
        self, session: Session, store: Store, versions: Collection[int], outbox: Outbox
    ) -> None:
        self.now: datetime = unit_of_work.carried(session, "labkit_clock", SystemClock()).now()
        self._session = session
        self._store = store
        self._versions = versions
        self._outbox = outbox
        self._rows: dict[str, Row] = {}
        self._states: dict[str, StoredT] = {}
        self._changed: set[str] = set()
        self._notes: list[Noted] = []
        self._outgoing: list[Outgoing] = []

    @abstractmethod
    def read(self, row: Row) -> StoredT:
        """Return the state that a row holds."""

    @abstractmethod
    def take(
        self,
        state: StoredT,
        stimulus: Any,
        cause: Message[Event] | None = None,
        who: str | None = None,
    ) -> Any:
        """Decide what follows, and do it in this transaction."""

    def lock(self, ids: Collection[str], *, skip: bool = False) -> None:
        """Read rows and keep them locked until your transaction ends; see `Store.locked`."""
        unknown = set(ids) - self._rows.keys()
        self._rows |= self._store.locked(self._session.connection(), unknown, skip=skip)

    def state(self, saga_id: str) -> StoredT | None:
        """Return a locked row as this transaction has it, None when there is none.

        Raises:
            UnknownSagaError: when it began with a version that nobody registered here.
        """
        row = self._rows.get(saga_id)
        if row is None or saga_id in self._states:
            return self._states.get(saga_id)
        if row.version not in self._versions:
            raise UnknownSagaError(
                f"{row.saga} {saga_id} began with version {row.version}, which is not registered "
                "here: register that definition too, then redrive"
            )
        return self.read(row)

    def wake(self, saga_id: str) -> bool:
        """Take up a locked row whose time is over; return whether it was."""
        state = self.state(saga_id)
        if state is None or state.due_at is None or state.due_at > self.now:
            return False
        self.take(state, Due())
        return True

    def begin(self, states: Mapping[str, StoredT], notes: Sequence[Noted] = ()) -> set[str]:
        """Write new rows, with lines of their history; return the ids that did not exist before."""
        connection = self._session.connection()
        new = self._store.insert(connection, list(states.values()), self.now, notes)
        for saga_id in new:
            state = states[saga_id]
            row = Row(self._store.saga, saga_id, state.version, "", revision=1)
            self._rows[saga_id], self._states[saga_id] = row, state
        return new

    def finish(self) -> None:
        """Write states, history and messages; they are true if your transaction commits.

        After it the rows may be worked on again, as long as the transaction lasts.
        """
        changes = [
            Change(self._states[saga_id], self._rows[saga_id].revision)
            for saga_id in sorted(self._changed)
        ]
        if changes:
            self._store.update(self._session.connection(), changes, self.now, self._notes)
        for state, revision in changes:
            self._rows[state.id] = self._rows[state.id]._replace(revision=revision + 1)
        self._outbox.add_all(self._session, self._outgoing)
        self._changed, self._notes, self._outgoing = set(), [], []

    def _keep(
        self,
        state: StoredT,
        notes: Iterable[Note],
        cause: Message[Event] | None,
        who: str | None = None,
    ) -> None:
        self._states[state.id] = state
        self._changed.add(state.id)
        message_id = cause.message_id if cause else None
        self._notes += [Noted(state.id, note, message_id, who) for note in notes]

    def _send(self, saga_id: str, request: str, event: Event, cause: Message[Event] | None) -> None:
        """Send a message that names its request, so that the answer can."""
        # Stable over attempts: a participant that knows it answers again, and acts once.
        request_id = f"{self._store.saga}/{saga_id}/{request}"
        self._outgoing.append(
            Outgoing(
                event,
                key=saga_id,
                correlation_id=saga_id,
                cause=cause,
                occurred_at=self.now,
                headers={REQUEST_ID: request_id},
            )
        )


class Kept(Protocol):
    """Whose rows these are: `labkit.saga.Sagas`, `labkit.process_manager.ProcessManager`."""

    @property
    def name(self) -> str:
        """Return the name that they share."""

    @property
    def store(self) -> Store:
        """Return where they are kept."""

    def turn(self, session: Session) -> Rows[Any]:
        """Return a turn in your transaction."""

    def due(self, session: Session, now: datetime, limit: int) -> Collection[str]:
        """Return the ids of those whose time is over, the longest ago first."""


_DECLARED = "labkit_sagas"


def sagas_of(metadata: MetaData) -> dict[str, Kept]:
    """Return whose tables are on this metadata, by name; see `Service.metadata`."""
    found: dict[str, Kept] = metadata.info.get(_DECLARED, {})
    return found


def declare(metadata: MetaData, kept: Kept) -> None:
    """Let `sagas_of` find them.

    Raises:
        ConfigurationError: when the name is taken: two of one name would share their rows.
    """
    if kept.name in sagas_of(metadata):
        raise ConfigurationError(
            f"sagas {kept.name} are declared twice: give all versions to one Sagas"
        )
    metadata.info.setdefault(_DECLARED, {})[kept.name] = kept
