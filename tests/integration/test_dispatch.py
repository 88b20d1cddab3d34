"""Lending a transaction to handlers: whatever they do with it, all of it happens or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session

from labkit import crash, db
from labkit.clock import SystemClock
from labkit.crash import CrashError
from labkit.dispatch import Delivery, Dispatcher, Outcome
from labkit.errors import (
    HandlerTransactionError,
    InvalidMessageError,
    PayloadMismatchError,
    TransientError,
    UnknownEventError,
)
from labkit.handlers import AnyHandler, BatchHandler, Handler
from labkit.inbox import Inbox
from labkit.messages import Event, Message, Registry, encode
from labkit.outbox import Outbox
from labkit.ports import Entry, Stream
from tests.databases import Databases, emptied, lent_database

METADATA = MetaData()
INBOX = Inbox(METADATA)
OUTBOX = Outbox(METADATA, Stream("test.events"))
effects = Table("effects", METADATA, Column("n", Integer, primary_key=True))


class Base(DeclarativeBase):
    metadata = METADATA


class Effect(Base):
    __table__ = effects


Handle = Callable[[Session, Message[Any]], None]


class Noted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v2"
    version: ClassVar[int] = 2

    n: int


class OldNoted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v1"
    event_type: ClassVar[str] = "Noted"


class Counted(Event, frozen=True):
    topic: ClassVar[str] = "test.counted.v1"

    n: int


REGISTRY = Registry(Noted, OldNoted, Counted)


def write(session: Session, n: int) -> None:
    session.execute(insert(effects).values(n=n))


def record(session: Session, message: Message[Any]) -> None:
    write(session, message.event.n)
    OUTBOX.add(session, Counted(n=message.event.n), key="k", cause=message)


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, METADATA)


@pytest.fixture(autouse=True)
def no_faults_afterwards() -> Iterator[None]:
    yield
    crash.configure({})


def dispatcher(engine: Engine, handle: Handle = record, **lock_first: Any) -> Dispatcher:
    return Dispatcher(engine, "me", {Noted: Handler(handle, **lock_first)}, REGISTRY, INBOX)


def entry(event: Event, message_id: str = "M-1", position: str = "1-0") -> Entry:
    body = encode(
        event,
        message_id=message_id,
        correlation_id="C-1",
        occurred_at=SystemClock().now(),
        headers={},
    )
    return Entry(position, body.encode())


def readable(dispatching: Dispatcher, *entries: Entry) -> list[Delivery]:
    read = [dispatching.read(each, "s:0") for each in entries]
    return [delivery for delivery in read if delivery]


def run(dispatching: Dispatcher, *entries: Entry) -> Outcome:
    with dispatching.lend() as session:
        return dispatching.handle(session, readable(dispatching, *entries))


def state(engine: Engine) -> dict[str, list[Any]]:
    """What is in the three tables, which must always tell the same story."""
    with engine.connect() as connection:
        return {
            "effects": list(connection.execute(select(effects.c.n).order_by("n")).scalars()),
            "inbox": list(connection.execute(select(INBOX.table.c.message_id)).scalars()),
            "outbox": list(connection.execute(select(OUTBOX.table.c.topic)).scalars()),
        }


NOTHING: dict[str, list[Any]] = {"effects": [], "inbox": [], "outbox": []}
DONE = {"effects": [1], "inbox": ["M-1"], "outbox": ["test.counted.v1"]}


def nobody_is_left_behind(engine: Engine) -> bool:
    """No connection stands in an open transaction, here or in the pool."""
    query = text(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and state like 'idle in transaction%'"
    )
    with engine.connect() as connection:
        return connection.execute(query).scalar() == 0


# --- together or not at all ---


def test_inbox_row_effect_and_outgoing_event_commit_together(engine: Engine) -> None:
    outcome = run(dispatcher(engine), entry(Noted(n=1)))

    assert state(engine) == DONE
    assert outcome == Outcome(1, 0, [])


def test_a_handler_that_fails_leaves_nothing(engine: Engine) -> None:
    def fail(session: Session, message: Message[Any]) -> None:
        record(session, message)
        raise LookupError

    with pytest.raises(LookupError):
        run(dispatcher(engine, fail), entry(Noted(n=1)))

    assert state(engine) == NOTHING
    assert nobody_is_left_behind(engine)


def test_a_crash_before_the_commit_leaves_nothing(engine: Engine) -> None:
    crash.configure({"LABKIT_FAULTS": "consumer.before_commit:raise"})

    with pytest.raises(CrashError):
        run(dispatcher(engine), entry(Noted(n=1)))

    assert state(engine) == NOTHING
    assert nobody_is_left_behind(engine)


def commit(session: Session) -> None:
    session.commit()


def commit_the_connection(session: Session) -> None:
    session.connection().commit()


def commit_the_root_inside_a_savepoint(session: Session) -> None:
    session.begin_nested()
    root = session.get_transaction()
    assert root
    root.commit()


def swallow_the_refused_commit(session: Session) -> None:
    with suppress(HandlerTransactionError):
        session.connection().commit()


def roll_back(session: Session) -> None:
    session.rollback()


def roll_back_and_go_on(session: Session) -> None:
    session.rollback()
    write(session, 99)


def roll_back_and_commit_something_else(session: Session) -> None:
    session.rollback()
    write(session, 99)
    session.commit()


def roll_the_connection_back(session: Session) -> None:
    session.connection().rollback()


def roll_the_connection_back_and_go_on(session: Session) -> None:
    session.connection().rollback()
    write(session, 99)


def close(session: Session) -> None:
    session.close()


def send_rollback_as_text(session: Session) -> None:
    session.execute(text("rollback"))


@pytest.mark.parametrize(
    "misbehave",
    [
        commit,
        commit_the_connection,
        commit_the_root_inside_a_savepoint,
        swallow_the_refused_commit,
        roll_back,
        roll_back_and_go_on,
        roll_back_and_commit_something_else,
        roll_the_connection_back,
        roll_the_connection_back_and_go_on,
        close,
        send_rollback_as_text,
    ],
)
def test_a_handler_that_ends_its_transaction_is_stopped_and_nothing_happened(
    engine: Engine, misbehave: Callable[[Session], None]
) -> None:
    def handle(session: Session, message: Message[Any]) -> None:
        record(session, message)
        misbehave(session)

    with pytest.raises(HandlerTransactionError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert nobody_is_left_behind(engine)
    assert state(engine) == NOTHING


def test_a_refused_commit_does_not_come_true_with_the_next_user_of_its_connection(
    engine: Engine,
) -> None:
    engine = db.connect(engine.url, pool_size=1)

    def handle(session: Session, message: Message[Any]) -> None:
        record(session, message)
        session.commit()

    with pytest.raises(HandlerTransactionError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))
    for _ in range(2):
        with engine.begin() as next_user:
            next_user.execute(text("select 1"))

    assert state(engine) == NOTHING
    engine.dispose()


def test_a_commit_sent_as_text_is_found_out_afterwards(engine: Engine) -> None:
    def handle(session: Session, message: Message[Any]) -> None:
        write(session, message.event.n)
        session.execute(text("commit"))

    with pytest.raises(HandlerTransactionError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine)["effects"] == [1]  # as documented: too late to take it back


def swallow_a_statement(session: Session) -> None:
    with suppress(IntegrityError):
        write(session, 7)


def swallow_a_flush(session: Session) -> None:
    session.add(Effect(n=7))
    with suppress(IntegrityError):
        session.flush()


@pytest.mark.parametrize("swallow", [swallow_a_statement, swallow_a_flush])
def test_a_swallowed_database_error_is_not_acknowledged(
    engine: Engine, swallow: Callable[[Session], None]
) -> None:
    with engine.begin() as connection:
        connection.execute(insert(effects).values(n=7))

    def handle(session: Session, message: Message[Any]) -> None:
        record(session, message)
        swallow(session)

    with pytest.raises(TransientError, match="swallowed a database error"):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == NOTHING | {"effects": [7]}
    assert nobody_is_left_behind(engine)


def test_an_error_that_only_the_last_flush_finds_leaves_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(effects).values(n=7))

    def handle(session: Session, _message: Message[Any]) -> None:
        session.add(Effect(n=7))

    with pytest.raises(IntegrityError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == NOTHING | {"effects": [7]}


def test_a_lost_connection_is_no_fault_of_the_message(engine: Engine) -> None:
    def handle(session: Session, _message: Message[Any]) -> None:
        with suppress(DBAPIError):
            session.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(TransientError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == NOTHING


def test_a_savepoint_lets_a_handler_survive_a_database_error(engine: Engine) -> None:
    def handle(session: Session, message: Message[Any]) -> None:
        record(session, message)
        with suppress(IntegrityError), session.begin_nested():
            OUTBOX.add(session, Counted(n=2), key="gone")
            write(session, 1)

    run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == DONE


def test_a_savepoint_that_a_handler_leaves_open_commits_with_the_rest(engine: Engine) -> None:
    def handle(session: Session, message: Message[Any]) -> None:
        session.begin_nested()
        record(session, message)

    run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == DONE


def test_a_session_of_the_handlers_own_may_commit(engine: Engine) -> None:
    def handle(session: Session, message: Message[Any]) -> None:
        with Session(engine) as own:
            write(own, 50)
            own.commit()
        record(session, message)

    run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == DONE | {"effects": [1, 50]}


def test_others_may_commit_after_a_handler_gave_its_connection_back(engine: Engine) -> None:
    """The pool may lend the connection of a misbehaving handler while that one still runs."""

    def handle(session: Session, _message: Message[Any]) -> None:
        session.rollback()
        for n in range(3):
            with engine.begin() as innocent:
                innocent.execute(insert(effects).values(n=n))

    with pytest.raises(HandlerTransactionError):
        run(dispatcher(engine, handle), entry(Noted(n=1)))

    assert state(engine) == NOTHING | {"effects": [0, 1, 2]}


def test_the_lender_may_lend_again_afterwards(engine: Engine) -> None:
    dispatching = dispatcher(engine)
    with pytest.raises(HandlerTransactionError), dispatching.lend() as session:
        session.commit()

    run(dispatching, entry(Noted(n=1)))

    assert state(engine) == DONE


# --- batches ---


def test_the_same_id_twice_in_one_batch_is_handled_once(engine: Engine) -> None:
    same = entry(Noted(n=1))

    outcome = run(dispatcher(engine), same, same._replace(position="2-0"), same)

    assert outcome == Outcome(1, 2, [])
    assert state(engine) == DONE


def test_one_delivery_given_twice_is_handled_once(engine: Engine) -> None:
    dispatching = dispatcher(engine)
    [delivery] = readable(dispatching, entry(Noted(n=1)))

    with dispatching.lend() as session:
        outcome = dispatching.handle(session, [delivery, delivery])

    assert outcome == Outcome(1, 1, [])


def test_a_known_id_is_a_duplicate(engine: Engine) -> None:
    dispatching = dispatcher(engine)
    run(dispatching, entry(Noted(n=1)))

    outcome = run(dispatching, entry(Noted(n=1)), entry(Noted(n=2), "M-2"))

    assert outcome == Outcome(1, 1, [])
    assert state(engine)["effects"] == [1, 2]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_a_known_id_with_other_content_is_handed_back(engine: Engine, together: bool) -> None:
    dispatching = dispatcher(engine)
    first, second = entry(Noted(n=1)), entry(Noted(n=2), position="2-0")
    outcome = run(dispatching, first, *([second] if together else []))

    outcome = outcome if together else run(dispatching, second)

    [mismatched] = outcome.mismatched
    assert (mismatched.position, outcome.duplicates) == ("2-0", 0)
    assert isinstance(mismatched.error, PayloadMismatchError)
    assert state(engine) == DONE


def test_handlers_run_in_the_order_of_the_messages(engine: Engine) -> None:
    order: list[str] = []
    note: Handle = lambda _session, message: order.append(message.message_id)  # noqa: E731
    handlers: dict[type[Event], Handler] = {Counted: Handler(note), Noted: Handler(note)}
    dispatching = Dispatcher(engine, "me", handlers, REGISTRY, INBOX)

    run(
        dispatching,
        *[
            entry(event, f"{9 - n}")
            for n, event in enumerate([Noted(n=1), Counted(n=1), Noted(n=2)])
        ],
    )

    assert order == ["9", "8", "7"]


def test_locks_are_taken_once_for_all_messages_of_a_type_and_first(engine: Engine) -> None:
    happened: list[Any] = []

    def lock_first(_session: Session, messages: Sequence[Message[Any]]) -> None:
        happened.append([message.event.n for message in messages])

    def handle(_session: Session, message: Message[Any]) -> None:
        happened.append(message.event.n)

    dispatching = dispatcher(engine, handle, lock_first=lock_first)
    run(dispatching, entry(Noted(n=0), "known"))
    happened.clear()
    batch = [entry(Noted(n=n), str(n)) for n in (3, 1, 2)]
    run(dispatching, *batch, entry(Noted(n=0), "known"), batch[0])

    assert happened == [[3, 1, 2], 3, 1, 2]


def test_no_locks_are_taken_for_nothing(engine: Engine) -> None:
    def never(_session: Session, _messages: Sequence[Message[Any]]) -> None:
        raise AssertionError

    dispatching = dispatcher(engine, lock_first=never)

    with dispatching.lend() as session:
        assert dispatching.handle(session, []) == Outcome(0, 0, [])


def test_types_that_share_a_lock_are_locked_together(engine: Engine) -> None:
    locked: list[int] = []

    def lock_first(_session: Session, messages: Sequence[Message[Any]]) -> None:
        locked.append(len(messages))

    handler = Handler(lambda _session, _message: None, lock_first)
    dispatching = Dispatcher(engine, "me", {Noted: handler, Counted: handler}, REGISTRY, INBOX)
    run(dispatching, entry(Noted(n=1), "1"), entry(Counted(n=1), "2"), entry(Noted(n=2), "3"))

    assert locked == [3]


class Locker:
    """Locks by a method, of which every look makes a new object."""

    def __init__(self) -> None:
        self.locked: list[int] = []

    def lock_first(self, _session: Session, messages: Sequence[Message[Any]]) -> None:
        self.locked.append(len(messages))


def test_types_that_share_a_method_as_lock_are_locked_together(engine: Engine) -> None:
    locker = Locker()

    def handler() -> Handler:
        return Handler(lambda _session, _message: None, locker.lock_first)

    handlers = {Noted: handler(), Counted: handler()}
    dispatching = Dispatcher(engine, "me", {**handlers}, REGISTRY, INBOX)
    run(dispatching, entry(Noted(n=1), "1"), entry(Counted(n=1), "2"), entry(Noted(n=2), "3"))

    assert locker.locked == [3]


# --- many at once ---


def taking_all(engine: Engine, calls: list[list[Any]], **lock_first: Any) -> Dispatcher:
    """A dispatcher whose handlers of both types are one function that gets all messages."""

    def handle_all(session: Session, messages: Sequence[Message[Any]]) -> None:
        calls.append([message.event for message in messages])
        for message in messages:
            record(session, message)

    handler = BatchHandler(handle_all, **lock_first)
    return Dispatcher(engine, "me", {Noted: handler, Counted: handler}, REGISTRY, INBOX)


def test_a_batch_handler_gets_the_new_messages_of_a_batch_once_and_in_order(engine: Engine) -> None:
    calls: list[list[Any]] = []
    dispatching = taking_all(engine, calls)
    run(dispatching, entry(Noted(n=0), "known"))
    calls.clear()
    events = [Noted(n=3), Counted(n=1), Noted(n=2)]
    batch = [entry(event, str(n)) for n, event in enumerate(events)]

    outcome = run(dispatching, *batch, entry(Noted(n=0), "known"), batch[0])

    assert calls == [events]
    assert (outcome.handled, outcome.duplicates) == (3, 2)


def test_types_with_handlers_of_their_own_keep_the_order_of_the_stream(engine: Engine) -> None:
    calls: list[list[int]] = []
    note: Callable[..., None] = lambda _session, messages: calls.append(  # noqa: E731
        [message.event.n for message in messages]
    )
    one: Handle = lambda _session, message: calls.append([message.event.n])  # noqa: E731
    handlers: dict[type[Event], AnyHandler] = {Noted: BatchHandler(note), Counted: Handler(one)}
    dispatching = Dispatcher(engine, "me", handlers, REGISTRY, INBOX)

    events = (Noted(n=1), Noted(n=2), Counted(n=3), Counted(n=4), Noted(n=5))
    run(dispatching, *[entry(event, f"M-{n}") for n, event in enumerate(events)])

    assert calls == [[1, 2], [3], [4], [5]]


def test_a_batch_handler_that_fails_leaves_nothing(engine: Engine) -> None:
    def fail(session: Session, messages: Sequence[Message[Any]]) -> None:
        record(session, messages[0])
        raise RuntimeError

    dispatching = Dispatcher(engine, "me", {Noted: BatchHandler(fail)}, REGISTRY, INBOX)

    with pytest.raises(RuntimeError):
        run(dispatching, entry(Noted(n=1), "M-1"), entry(Noted(n=2), "M-2"))

    assert state(engine) == NOTHING


def test_a_batch_handler_is_not_called_for_nothing(engine: Engine) -> None:
    calls: list[list[Any]] = []
    dispatching = taking_all(engine, calls)
    run(dispatching, entry(Noted(n=1)))

    run(dispatching, entry(Noted(n=1)))

    assert len(calls) == 1


def test_locks_are_taken_before_a_batch_handler_runs(engine: Engine) -> None:
    calls: list[list[Any]] = []
    lock_first: Callable[..., None] = lambda _session, messages: calls.append(  # noqa: E731
        [len(messages)]
    )

    run(taking_all(engine, calls, lock_first=lock_first), entry(Noted(n=1)))

    assert calls == [[1], [Noted(n=1)]]


# --- reading ---


def envelope(event: str, **fields: str) -> bytes:
    more = "".join(f',"{name}":{value}' for name, value in fields.items())
    return f'{{"messageId":"M-1","event":{event}{more}}}'.encode()


def test_an_entry_becomes_a_message(engine: Engine) -> None:
    delivery = dispatcher(engine).read(entry(Noted(n=1)), "s:0", attempt=3, redelivered=True)

    assert delivery
    assert delivery.message
    assert (delivery.message.attempt, delivery.message.redelivered) == (3, True)
    assert (delivery.message_id, delivery.key, delivery.error) == ("M-1", "C-1", None)


@pytest.mark.parametrize("body", [None, b"", b"no JSON", b"\xff", b"[" * 100_000, b"{}"])
def test_an_entry_that_is_no_message_is_named_after_its_place(
    engine: Engine, body: bytes | None
) -> None:
    delivery = dispatcher(engine).read(Entry("7-0", body), "s:0")

    assert delivery
    assert (delivery.message_id, delivery.key, delivery.body) == ("s:0@7-0", None, body or b"")
    assert isinstance(delivery.error, InvalidMessageError)


@pytest.mark.parametrize("type_", ["Counted", "Other"])
def test_a_type_that_nobody_handles_is_skipped(engine: Engine, type_: str) -> None:
    body = envelope(f'{{"type":"{type_}","version":1,"payload":{{"broken":1e999}}}}')

    assert dispatcher(engine).read(Entry("1-0", body), "s:0") is None


@pytest.mark.parametrize("version", [1, 9])
def test_a_version_that_nobody_handles_is_an_error(engine: Engine, version: int) -> None:
    body = envelope(f'{{"type":"Noted","version":{version},"payload":{{}}}}')

    delivery = dispatcher(engine).read(Entry("1-0", body), "s:0")

    assert delivery
    assert isinstance(delivery.error, UnknownEventError)
    assert (delivery.message_id, delivery.message) == ("M-1", None)


@pytest.mark.parametrize(
    "payload", ['{"n":"one"}', "{}", '{"n":1e999}', "null", "[" * 900 + "]" * 900]
)
def test_a_payload_of_another_shape_is_an_error_with_the_id_and_the_key(
    engine: Engine, payload: str
) -> None:
    body = envelope(f'{{"type":"Noted","version":2,"payload":{payload}}}', correlationId='"C-9"')

    delivery = dispatcher(engine).read(Entry("1-0", body), "s:0")

    assert delivery
    assert isinstance(delivery.error, InvalidMessageError)
    assert (delivery.message_id, delivery.key, delivery.body) == ("M-1", "C-9", body)


def test_a_time_that_is_none_is_an_error(engine: Engine) -> None:
    event = '{"type":"Noted","version":2,"occurredAt":"soon","payload":{"n":1}}'

    delivery = dispatcher(engine).read(Entry("1-0", envelope(event)), "s:0")

    assert delivery
    assert isinstance(delivery.error, InvalidMessageError)
