"""Runs handlers in a transaction that is lent to them.

The lender keeps the right to commit. A handler that commits is stopped before it happens, one
that rolls back or swallows a database error is found out before our own commit: PostgreSQL
answers COMMIT of a failed transaction with ROLLBACK and no error, and the message would be
acknowledged without its effect.

Guarantee: inbox rows, effects and outgoing events of what `handle` was given commit together or
not at all.
Not guaranteed: a `COMMIT` sent as SQL text is found out only afterwards, and not at all when more
SQL follows it; nor that the next transaction is free of what `select set_config(…)` or a session's
advisory lock leave behind. `SET` and temporary tables end with their transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, RootTransaction, event as sqlalchemy_event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry

from labkit import crash, db
from labkit.clock import Clock, SystemClock
from labkit.deadline import is_late
from labkit.errors import (
    HandlerTransactionError,
    InvalidMessageError,
    LateMessageError,
    PayloadMismatchError,
    PermanentError,
    TransientError,
    UnknownEventError,
)
from labkit.handlers import AnyHandler
from labkit.inbox import Inbox
from labkit.messages import Event, Message, Registry
from labkit.ports import Entry
from labkit.wire import DEADLINE, Envelope, decode_envelope

_LENT = "labkit_lent"
# Answers to what may outlive a handler's transaction: time limits, search path, role, tables of
# the session. Its connection is not used again, or the next transaction would begin with them.
_CHANGES = {"SET", "RESET", "LISTEN", "CREATE TABLE", "CREATE TABLE AS"}
_CHANGED = "labkit_changed"
_SWALLOWED = "a handler swallowed a database error: let it out, or use session.begin_nested()"


class Delivery(NamedTuple):
    """An entry of the stream, read; `error` says why it can never be handled.

    One that is `late` is noted as handled, and no handler sees it.
    """

    position: str
    message_id: str
    key: str | None
    body: bytes
    digest: bytes
    message: Message[Event] | None
    error: PermanentError | None
    late: bool = False


class Outcome(NamedTuple):
    """What `handle` did with a batch."""

    handled: int
    duplicates: int
    mismatched: list[Delivery]
    late: int = 0


class Dispatcher:
    """Reads entries and hands their messages to the handlers of one consumer.

    Args:
        engine: the database of inbox and effects.
        name: the consumer's name in the inbox.
        handlers: what to do with which event.
        registry: how to read events.
        inbox: remembers what was handled.
        clock: tells what is late.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        handlers: Mapping[type[Event], AnyHandler],
        registry: Registry,
        inbox: Inbox,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._handlers = dict(handlers)
        self._types = {event.event_type for event in handlers}
        self._registry = registry
        self._inbox = inbox
        self._clock = clock or SystemClock()
        if not sqlalchemy_event.contains(engine, "commit", _refuse_commit):
            sqlalchemy_event.listen(engine, "commit", _refuse_commit)
            sqlalchemy_event.listen(engine, "after_cursor_execute", _note_change)
            sqlalchemy_event.listen(engine, "checkin", _close_changed)

    def read(
        self,
        entry: Entry,
        origin: str,
        *,
        attempt: int = 1,
        redelivered: bool = False,
        however_late: bool = False,
    ) -> Delivery | None:
        """Read an entry; None when nobody handles its type.

        Args:
            entry: as the broker gave it.
            origin: where from; names a dead letter that has no id of its own.
            attempt: the number of this attempt, from 1.
            redelivered: whether an earlier attempt may have been cut off.
            however_late: whether it is handled even if its handler drops what is late.
        """
        body = entry.body or b""
        try:
            if entry.body is None:
                raise InvalidMessageError("the entry was deleted before it was handled")
            envelope = decode_envelope(body)
        except PermanentError as error:
            message_id = f"{origin}@{entry.position}"
            return Delivery(entry.position, message_id, None, body, b"", None, error)
        if envelope.event.type not in self._types:
            return None
        try:
            message = self._registry.message(envelope, attempt=attempt, redelivered=redelivered)
            handler = self._handlers.get(type(message.event))
            if handler is None:
                raise UnknownEventError(envelope.event.type, envelope.event.version)
            late = not however_late and self._drops(handler, message)
            if late and handler.late == "dead_letter":
                raise LateMessageError
        except PermanentError as error:
            return _delivery(entry, envelope, None, error)
        return _delivery(entry, envelope, message, None, late=late)

    def _drops(self, handler: AnyHandler, message: Message[Event]) -> bool:
        if handler.late == "handle" or DEADLINE not in message.headers:
            return False
        return is_late(message, self._clock.now())

    @contextmanager
    def lend(self) -> Iterator[Session]:
        """Lend a transaction; commit it afterwards, unless the borrower ended it.

        Raises:
            HandlerTransactionError: when the borrower committed or rolled back.
            TransientError: when the borrower swallowed a database error.
        """
        with _LentSession(self._engine, expire_on_commit=False) as session:
            transaction = session.begin()
            connection = session.connection(execution_options={_LENT: True})
            begun = connection.get_transaction()
            try:
                yield session
                _refuse_ended(session, transaction, begun)
                session.flush()
                _refuse_ended(session, transaction, begun)
                connection.execution_options(**{_LENT: False})
                # Crash window: handled and not committed; nothing has happened.
                crash.point("consumer.before_commit")
                session.commit()
            except BaseException:
                db.roll_back(connection)
                raise

    def handle(self, session: Session, deliveries: Sequence[Delivery]) -> Outcome:
        """Note the new messages in the inbox and run their handlers, in order.

        Args:
            session: a lent transaction.
            deliveries: readable ones.

        Returns:
            How many were handled, known or too late, and which came back with other content.
        """
        first: dict[str, Delivery] = {}
        for delivery in deliveries:
            first.setdefault(delivery.message_id, delivery)
        digests = {message_id: delivery.digest for message_id, delivery in first.items()}
        accepted = self._inbox.accept(session.connection(), self._name, digests)
        new = [d for d in first.values() if d.message_id in accepted.fresh]
        fresh = [d.message for d in new if d.message and not d.late]
        self._lock_first(session, fresh)
        # Why not all of one type first: a key's messages of two types would change places.
        for handler, messages in groupby(fresh, lambda m: self._handlers[type(m.event)]):
            handler.run(session, list(messages), self._clock)
        mismatched = [
            d
            for d in deliveries
            if d.message_id in accepted.mismatched or digests[d.message_id] != d.digest
        ]
        duplicates = len(deliveries) - len(new) - len(mismatched)
        return Outcome(
            len(fresh),
            duplicates,
            [d._replace(error=PayloadMismatchError(d.message_id)) for d in mismatched],
            len(new) - len(fresh),
        )

    def _lock_first(self, session: Session, messages: Sequence[Message[Event]]) -> None:
        # One call for all types that share a function: a call each would lock in two orders.
        for lock in dict.fromkeys(h.lock_first for h in self._handlers.values() if h.lock_first):
            # Why not `is`: each look at a bound method makes a new one, equal to the last.
            mine = [m for m in messages if self._handlers[type(m.event)].lock_first == lock]
            if mine:
                lock(session, mine)


def _delivery(
    entry: Entry,
    envelope: Envelope,
    message: Message[Event] | None,
    error: PermanentError | None,
    *,
    late: bool = False,
) -> Delivery:
    return Delivery(
        entry.position,
        envelope.message_id,
        envelope.key,
        entry.body or b"",
        envelope.digest(),
        message,
        error,
        late,
    )


class _LentSession(Session):
    """A session with one transaction: what comes after its end would belong to nobody."""


@sqlalchemy_event.listens_for(_LentSession, "after_transaction_create")
def _refuse_second(session: Session, created: SessionTransaction) -> None:
    if created.parent is None and session.info.setdefault(_LENT, created) is not created:
        raise HandlerTransactionError(
            "a handler went on after it had ended the transaction that it was lent"
        )


def _refuse_commit(connection: Connection) -> None:
    if connection.get_execution_options().get(_LENT):
        raise HandlerTransactionError(
            "a handler called commit(): leave it to labkit, or the message could be lost"
        )


def _note_change(connection: Connection, cursor: Any, *_: object) -> None:
    if cursor.statusmessage in _CHANGES and _LENT in connection.get_execution_options():
        connection.info[_CHANGED] = True


def _close_changed(_driver: object, record: ConnectionPoolEntry) -> None:
    # Why not RESET: a round trip after every message, for the few handlers that change anything.
    if record.info.pop(_CHANGED, False):
        record.invalidate()


def _refuse_ended(
    session: Session, lent: SessionTransaction, begun: RootTransaction | None
) -> None:
    connection = begun.connection if begun else None
    if connection is None or session.get_transaction() is not lent:
        raise HandlerTransactionError(
            "a handler rolled back the transaction that it was lent: raise an error instead"
        )
    if not lent.is_active or connection.invalidated:
        raise TransientError(_SWALLOWED)
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    status = driver.info.transaction_status
    is_begun = connection.get_transaction() is begun and connection.in_transaction()
    if status is TransactionStatus.INERROR:
        raise TransientError(_SWALLOWED)
    if status is not TransactionStatus.INTRANS or not is_begun:
        raise HandlerTransactionError("a handler ended the transaction behind its session's back")
