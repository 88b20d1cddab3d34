"""Unit of work: rows that a Session keeps until the moment of its COMMIT, and stores with it.

The problem: storing at once takes locks in call order, which deadlocks, and costs a round trip
a row; storing at commit must still mean that a rollback, also of a savepoint, takes back what
was added since.

Guarantee: a row is stored if, and only if, the transaction or savepoint in which it was added
commits, in one call per store, after the last flush and right before the COMMIT. Stores are
called in one fixed order, so that their locks cannot deadlock.
Not guaranteed: a COMMIT sent as SQL text drops what was kept.

Pattern: Fowler, *Patterns of Enterprise Application Architecture*: "Unit of Work".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

from msgspec.structs import replace
from sqlalchemy import Connection, Engine, TwoPhaseTransaction, event
from sqlalchemy.orm import Session, SessionTransaction

from labkit import db
from labkit.errors import ConfigurationError
from labkit.messages import Event, Message
from labkit.wire import REQUEST_ID

_CAUSE = "labkit_cause"
T = TypeVar("T")


class Store(Protocol):
    """Where rows go."""

    @property
    def lock_class(self) -> int:
        """Return the first half of its advisory locks; stores are called in this order."""

    def store(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Insert rows in this transaction."""


_kept: WeakKeyDictionary[SessionTransaction, list[tuple[Store, Any]]] = WeakKeyDictionary()
_roots: WeakKeyDictionary[Connection, ReferenceType[SessionTransaction]] = WeakKeyDictionary()


def keep(session: Session, store: Store, rows: Sequence[Any]) -> None:
    """Store rows when the session's transaction commits.

    An idle session begins here: otherwise `rollback()` would be a no-op, and the rows would
    be stored by the next commit.

    Raises:
        ConfigurationError: when the session autocommits or uses two-phase commit.
    """
    connection = session.connection()
    refuse_other_commits(connection)
    root = session.get_transaction()
    if root is None or isinstance(session.get_bind(), Connection):
        # The COMMIT is somebody else's, who may send it long after this session is gone.
        store.store(connection, rows)
        return
    _roots[connection] = ref(root)
    kept = _kept.setdefault(session.get_nested_transaction() or root, [])
    kept.extend((store, row) for row in rows)


def carried(joined: Session | Connection, option: str, default: T) -> T:
    """Return what the transaction's engine carries as an execution option, or the default.

    `labkit_clock` and `labkit_new_id` give all that happens on an engine a time and ids of its
    own, so that a rehearsal shows the same each time:

        engine.update_execution_options(labkit_clock=FakeClock(), labkit_new_id=numbered)

    Why not arguments: a service is declared once and works on many engines.
    """
    bind = joined.get_bind() if isinstance(joined, Session) else joined
    found: T = bind.get_execution_options().get(option, default)
    return found


@contextmanager
def caused_by(session: Session, cause: Message[Event] | None) -> Iterator[None]:
    """Let what is added meanwhile, without a cause of its own, have this one.

    For code that does not see the message that is being handled, such as a saga's local work. The
    header `requestId` stays behind: what such code says is no answer to what was asked.

    Args:
        session: their transaction.
        cause: the message, if there is one.
    """
    outer = session.info.get(_CAUSE)
    if cause is not None:
        others = {name: each for name, each in cause.headers.items() if name != REQUEST_ID}
        session.info[_CAUSE] = replace(cause, headers=others)
    try:
        yield
    finally:
        session.info[_CAUSE] = outer


def caused(joined: Session | Connection, events: Iterable[Any]) -> Iterable[Any]:
    """Give outgoing events that have no cause of their own the one of `caused_by`, if any."""
    cause = joined.info.get(_CAUSE) if isinstance(joined, Session) else None
    return [each._replace(cause=each.cause or cause) for each in events] if cause else events


def refuse_other_commits(connection: Connection) -> None:
    """Refuse a connection whose transaction ends by anything but one plain COMMIT.

    Raises:
        ConfigurationError: when it autocommits or uses two-phase commit.
    """
    if isinstance(connection.get_transaction(), TwoPhaseTransaction):
        raise ConfigurationError("the outbox does not take part in two-phase commits")
    # Why not get_isolation_level(): it answers READ COMMITTED on an autocommit connection.
    driver = connection.connection.driver_connection
    if driver is not None and driver.autocommit:
        raise ConfigurationError(
            "the outbox joins your transaction, and an AUTOCOMMIT connection has none"
        )


# Why not before_commit: `with session.begin()` that ends inside an open savepoint fires it for
# the savepoint only, and it does not say what is being committed. This event does.
@event.listens_for(Session, "after_commit")
def _hand_up(session: Session) -> None:
    """Hand a released savepoint's rows to the transaction around it."""
    released = session.get_nested_transaction()
    if released is None or not (rows := _kept.pop(released, None)):
        return
    around = released.parent
    while around and around.parent and not around.nested:  # a flush in between
        around = around.parent
    if around:
        _kept.setdefault(around, []).extend(rows)


@event.listens_for(Engine, "commit")
def _store(connection: Connection) -> None:
    reference = _roots.pop(connection, None)
    root = reference() if reference else None
    kept = _kept.pop(root, []) if root else []
    try:
        for store in sorted({store for store, _ in kept}, key=lambda store: store.lock_class):
            store.store(connection, [row for owner, row in kept if owner is store])
    except BaseException:
        db.roll_back(connection)
        raise


@event.listens_for(Session, "after_transaction_end")
def _discard(_session: Session, ended: SessionTransaction) -> None:
    """Forget what a transaction kept, however it ended; a commit has stored it before."""
    _kept.pop(ended, None)
