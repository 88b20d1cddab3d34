"""The outbox: what is stored, in which order, at which price, and what it says on the wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, MetaData, event, select, text, update
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError, InvalidEventError
from labkit.lab.servers import Stack
from labkit.messages import Event, Message
from labkit.outbox import LOCK_SLOTS, Outbox, Outgoing
from labkit.ports import Stream
from tests.databases import emptied, lent_database
from tests.waiting import until_it_waits

STREAM = Stream("test.events", partitions=4)
METADATA = MetaData()
OUTBOX = Outbox(METADATA, STREAM)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Noted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v1"

    n: int = 0


CAUSE: Message[Event] = Message(
    message_id="M-0",
    correlation_id="RES-1",
    event=Noted(),
    occurred_at=datetime(2026, 2, 17, tzinfo=UTC),
    key="RES-1",
    headers={"traceparent": TRACE, "other": "x"},
)


@pytest.fixture(scope="module")
def shared(servers: Stack) -> Iterator[Engine]:
    with lent_database(servers, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, METADATA)


@pytest.fixture
def many(engine: Engine) -> Iterator[Engine]:
    """An engine for many threads."""
    made = db.connect(engine.url, pool_size=12)
    yield made
    made.dispose()


def ids(engine: Engine, outbox: Outbox = OUTBOX, *, unpublished: bool = False) -> list[str]:
    columns = outbox.table.c
    query = select(columns.message_id).order_by(columns.seq)
    query = query.where(columns.published_at.is_(None)) if unpublished else query
    with engine.connect() as connection:
        return list(connection.execute(query).scalars())


def body(engine: Engine) -> Any:
    with engine.connect() as connection:
        return json.loads(connection.execute(select(OUTBOX.table.c.body)).scalar_one())


def commit(engine: Engine, *keys: str | None, outbox: Outbox = OUTBOX, **options: Any) -> None:
    with Session(engine) as session:
        for key in keys:
            outbox.add(session, Noted(), key=key, **options)
        session.commit()


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that are executed."""
    statements: list[str] = []

    def note(_c: object, _cur: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


# --- what is stored ---


def test_a_row_holds_what_the_relay_needs(engine: Engine) -> None:
    commit(engine, "K-1", message_id="M-1")

    with engine.connect() as connection:
        row = connection.execute(select(OUTBOX.table)).one()

    assert (row.message_id, row.topic, row.key) == ("M-1", "test.noted.v1", "K-1")
    assert row.partition == STREAM.partition_of("K-1")
    assert (row.published_at, row.batch, row.refused) == (None, None, None)


def test_a_connection_stores_at_once(engine: Engine) -> None:
    with engine.begin() as connection:
        OUTBOX.add(connection, Noted(), key="k", message_id="M-1")

        assert connection.execute(select(OUTBOX.table.c.message_id)).scalar() == "M-1"


def test_a_rolled_back_connection_stores_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        OUTBOX.add(connection, Noted(), key="k")
        with connection.begin_nested() as savepoint:
            OUTBOX.add(connection, Noted(), key="k")
            savepoint.rollback()
        connection.rollback()

    assert ids(engine) == []


def test_the_callers_message_id_is_kept_and_unique(engine: Engine) -> None:
    commit(engine, "k", message_id="RES-2:BOOK:StockReserved:v1")

    with pytest.raises(InvalidEventError, match=r"StockReserved:v1\) already exists"):
        commit(engine, "other", message_id="RES-2:BOOK:StockReserved:v1")

    assert ids(engine) == ["RES-2:BOOK:StockReserved:v1"]


def test_an_id_and_a_key_may_have_255_characters_of_any_language(engine: Engine) -> None:
    longest = "ñ🙂" * 127 + "x"

    commit(engine, longest, message_id=longest)

    assert ids(engine) == [longest]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "\ud800"])
def test_a_bad_key_is_refused_before_anything_is_stored(engine: Engine, key: str) -> None:
    with Session(engine) as session:
        with pytest.raises(InvalidEventError):
            OUTBOX.add(session, Noted(), key=key)
        session.commit()

    assert ids(engine) == []


def test_a_header_may_not_change_the_key(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(InvalidEventError, match="pass key="):
        OUTBOX.add(session, Noted(), key="k", headers={"key": "other"})


def test_a_message_over_the_limit_is_refused(engine: Engine) -> None:
    small = Outbox(MetaData(), STREAM, max_bytes=50)

    with engine.connect() as connection, pytest.raises(InvalidEventError, match="send a pointer"):
        small.add(connection, Noted(), key="k")


def test_an_event_without_topic_is_refused(engine: Engine) -> None:
    class Nowhere(Event, frozen=True):
        pass

    with engine.connect() as connection, pytest.raises(InvalidEventError, match="topic"):
        OUTBOX.add(connection, Nowhere(), key="k")


def test_an_autocommit_connection_is_refused(engine: Engine) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    with (
        autocommit.connect() as connection,
        pytest.raises(ConfigurationError, match="AUTOCOMMIT"),
    ):
        OUTBOX.add(connection, Noted(), key="k")


def test_a_two_phase_connection_is_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.begin_twophase()

        with pytest.raises(ConfigurationError, match="two-phase"):
            OUTBOX.add(connection, Noted(), key="k")


# --- what it says on the wire ---


def test_ids_of_the_cause_travel_on(engine: Engine) -> None:
    commit(engine, "RES-1", cause=CAUSE, message_id="M-1")

    written = body(engine)

    assert (written["messageId"], written["correlationId"]) == ("M-1", "RES-1")
    assert written["headers"] == {"causationId": "M-0", "traceparent": TRACE}


@pytest.mark.parametrize(
    ("key", "options", "correlation", "headers"),
    [
        ("K", {}, "K", {}),
        ("K", {"correlation_id": "C"}, "C", {"key": "K"}),
        ("K", {"cause": CAUSE, "correlation_id": "K"}, "K", {"causationId", "traceparent"}),
        (None, {"correlation_id": "C"}, "C", {}),
        (None, {"message_id": "M"}, "M", {}),
        ("K", {"headers": {"requestId": "R"}}, "K", {"requestId": "R"}),
    ],
)
def test_correlation_and_key_are_written_once(
    engine: Engine, key: str | None, options: dict[str, Any], correlation: str, headers: Any
) -> None:
    commit(engine, key, **options)

    written = body(engine)

    assert written["correlationId"] == correlation
    assert set(written["headers"]) == set(headers)


def test_a_reply_names_the_request_that_caused_it(engine: Engine) -> None:
    request = msgspec.structs.replace(CAUSE, headers={"requestId": "checkout/RES-1/pay/do"})
    commit(engine, "RES-1", cause=request)

    assert body(engine)["headers"]["requestId"] == "checkout/RES-1/pay/do"


def test_a_request_of_ones_own_is_named_instead_of_the_causes(engine: Engine) -> None:
    request = msgspec.structs.replace(CAUSE, headers={"requestId": "theirs"})
    commit(engine, "RES-1", cause=request, headers={"requestId": "ours"})

    assert body(engine)["headers"]["requestId"] == "ours"


def test_the_span_of_the_caller_wins_over_the_causes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))

    with trace.use_span(span):
        commit(engine, "k", cause=CAUSE)

    assert body(engine)["headers"]["traceparent"] == f"00-{1:032x}-{2:016x}-00"


def test_a_time_is_the_clocks_unless_the_caller_knows_better(engine: Engine) -> None:
    clock = FakeClock(datetime(2026, 2, 17, 16, 40, tzinfo=UTC))
    outbox = Outbox(MetaData(), STREAM, clock=clock)

    with engine.begin() as connection:
        outbox.add(connection, Noted(), key="k")
        outbox.add(connection, Noted(), key="k", occurred_at=clock.now() - timedelta(hours=1))
        bodies = connection.execute(select(OUTBOX.table.c.body).order_by(OUTBOX.table.c.seq))
        times = [json.loads(text)["event"]["occurredAt"] for text in bodies.scalars()]

    assert times == ["2026-02-17T16:40:00.000Z", "2026-02-17T15:40:00.000Z"]


# --- in which order ---


def test_a_second_append_to_a_key_waits_and_comes_second(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        OUTBOX.add(first, Noted(), key="k", message_id="first")
        second = pool.submit(commit, engine, "k", message_id="second")
        until_it_waits(engine, second)
        first.commit()
        second.result()

    assert ids(engine) == ["first", "second"]


def test_events_without_key_wait_for_nobody(engine: Engine) -> None:
    with engine.connect() as first:
        OUTBOX.add(first, Noted(), key=None, message_id="first")

        commit(engine, None, message_id="second")

        assert locks(first) == 0
        first.commit()


def locks(connection: Any) -> int:
    query = text(
        "select count(*) from pg_locks join pg_database on oid = database"
        " where locktype = 'advisory' and datname = current_database()"
    )
    return int(connection.execute(query).scalar_one())


def test_other_keys_do_not_wait(engine: Engine) -> None:
    with engine.connect() as first:
        OUTBOX.add(first, Noted(), key="one", message_id="first")

        commit(engine, "two", message_id="second")

        first.commit()
    assert ids(engine) == ["first", "second"]


def test_a_row_that_commits_late_is_still_unpublished(engine: Engine) -> None:
    """P1: a cursor that had seen the second row would never look back at the first."""
    with engine.connect() as late:
        OUTBOX.add(late, Noted(), key="one", message_id="late")
        commit(engine, "two", message_id="early")
        assert ids(engine, unpublished=True) == ["early"]
        with engine.begin() as relay:
            relay.execute(update(OUTBOX.table).values(published_at=datetime.now(UTC)))

        late.commit()

    assert ids(engine, unpublished=True) == ["late"]


def test_opposite_key_orders_never_deadlock_and_commit_in_seq_order(many: Engine) -> None:
    keys, done = [f"key-{n}" for n in range(6)], threading.Event()

    def write(writer: int) -> None:
        for _ in range(25):
            commit(many, *(keys if writer % 2 else reversed(keys)))

    with ThreadPoolExecutor(9) as pool:
        watcher = pool.submit(watch, many, done)
        for writing in [pool.submit(write, writer) for writer in range(8)]:
            writing.result()
        done.set()

    assert watcher.result() == []
    assert len(ids(many)) == 8 * 25 * len(keys)


def test_opposite_key_orders_on_connections_never_deadlock_with_add_all(many: Engine) -> None:
    """P3: locks in the order of the calls would wait in a circle."""
    keys = [f"key-{n}" for n in range(6)]

    def write(writer: int) -> None:
        events = [Outgoing(Noted(), key) for key in (keys if writer % 2 else reversed(keys))]
        for _ in range(25):
            with many.begin() as connection:
                OUTBOX.add_all(connection, events)

    with ThreadPoolExecutor(8) as pool:
        for writing in [pool.submit(write, writer) for writer in range(8)]:
            writing.result()

    assert len(ids(many)) == 8 * 25 * len(keys)


def test_events_added_together_on_a_connection_are_one_statement(engine: Engine) -> None:
    events = [Outgoing(Noted(n=n), f"K-{n}", message_id=f"M-{n}") for n in range(5)]

    with engine.begin() as connection, counted(engine) as statements:
        made = OUTBOX.add_all(connection, iter(events))

    assert len(statements) == 1
    assert ids(engine) == made == ["M-0", "M-1", "M-2", "M-3", "M-4"]


def test_events_added_together_on_a_session_are_stored_at_its_commit(engine: Engine) -> None:
    with Session(engine) as session:
        made = OUTBOX.add_all(session, [Outgoing(Noted(), "K-1"), Outgoing(Noted(), None)])
        before = ids(engine)
        session.commit()

    assert before == []
    assert ids(engine) == made


def test_one_event_that_is_refused_keeps_the_others_out(engine: Engine) -> None:
    events = [Outgoing(Noted(), "K-1"), Outgoing(Noted(), "")]

    with engine.begin() as connection, pytest.raises(InvalidEventError):
        OUTBOX.add_all(connection, events)

    assert ids(engine) == []


def test_ids_and_keys_are_stored_whatever_characters_they_are_made_of(engine: Engine) -> None:
    odd = '\x01\x1f \\ \\u0041 "quoted" {a,b} 50% ñ \U0001f600 \u2028'

    with engine.begin() as connection:
        OUTBOX.add(connection, Noted(), key=odd, message_id=odd)

    query = select(OUTBOX.table.c.message_id, OUTBOX.table.c.key)
    with engine.connect() as connection:
        assert connection.execute(query).one() == (odd, odd)
    assert body(engine)["messageId"] == odd


def test_adding_no_events_does_nothing(engine: Engine) -> None:
    with engine.begin() as connection, counted(engine) as statements:
        made = OUTBOX.add_all(connection, [])

    assert (made, statements) == ([], [])


def test_each_event_added_together_keeps_its_own_words(engine: Engine) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    event = Outgoing(Noted(), "K-1", "C-1", CAUSE, occurred_at=moment, headers={"channel": "shop"})

    with engine.begin() as connection:
        OUTBOX.add_all(connection, [event])

    stored = body(engine)
    assert (stored["correlationId"], stored["event"]["occurredAt"]) == (
        "C-1",
        "2026-01-01T00:00:00.000Z",
    )
    assert stored["headers"] == {
        "causationId": "M-0",
        "traceparent": TRACE,
        "key": "K-1",
        "channel": "shop",
    }


def watch(engine: Engine, done: threading.Event) -> list[str]:
    """Return where a row became visible behind one of its key with a higher `seq`."""
    query = text(
        "select key, array_agg(seq order by seq) as seqs from outbox_messages group by key"
    )
    looks: list[dict[str, list[int]]] = [{}]
    with engine.connect() as connection:
        while not done.is_set():
            looks.append({row.key: row.seqs for row in connection.execute(query)})
            connection.rollback()
    return [
        f"{key}: {later[key]} after {seqs}"
        for earlier, later in pairwise(looks)
        for key, seqs in earlier.items()
        if later[key][: len(seqs)] != seqs
    ]


def test_thousands_of_keys_fit_into_one_transaction(many: Engine) -> None:
    held: list[int] = []
    event.listen(many, "commit", lambda connection: held.append(locks(connection)))
    with Session(many) as session:
        for n in range(3000):
            OUTBOX.add(session, Noted(), key=f"key-{n}", message_id=f"{n:04}")

        session.commit()

    assert ids(many) == [f"{n:04}" for n in range(3000)]
    assert 900 < held[0] <= LOCK_SLOTS


# --- at which price ---


@pytest.mark.parametrize("events", [1, 50])
def test_any_number_of_events_costs_one_statement(engine: Engine, events: int) -> None:
    with counted(engine) as statements, Session(engine) as session:
        for n in range(events):
            OUTBOX.add(session, Noted(), key=f"k{n}")
        session.commit()

    assert len(statements) == 1
    assert len(ids(engine)) == events


def test_a_transaction_without_events_costs_nothing(engine: Engine) -> None:
    with counted(engine) as statements, Session(engine) as session:
        session.execute(text("select 1"))
        session.commit()

    assert statements == ["select 1"]


# --- names, and the wake-up ---

ODD = ["Mixed Case", "50% off", "percent%s", "a:b", 'it\'s "quoted"', "ñandú"]


@pytest.mark.parametrize("name", ODD)
def test_a_table_may_have_any_name(engine: Engine, name: str) -> None:
    metadata = MetaData()
    outbox = Outbox(metadata, STREAM, table=name, notify=True)
    db.create_all(engine, metadata)

    with listening(engine, outbox.channel) as notified:
        commit(engine, "k", outbox=outbox, message_id="M-1")

        assert notified() == [outbox.channel]
    assert ids(engine, outbox) == ["M-1"]


@contextmanager
def listening(engine: Engine, channel: str) -> Iterator[Any]:
    """Lend a function that returns what was notified so far, without waiting for more."""
    address = engine.url.set(drivername="postgresql")
    plain = address.render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for name in (channel, "marker"):
            connection.execute(SQL("listen {}").format(Identifier(name)))

        def notified() -> list[str]:
            connection.execute("notify marker")
            channels: list[str] = []
            for note in connection.notifies(timeout=10):
                if note.channel == "marker":
                    break
                channels.append(note.channel)
            return channels

        yield notified


def test_a_transaction_notifies_once_however_many_events_it_has(engine: Engine) -> None:
    outbox = Outbox(MetaData(), STREAM, notify=True)

    with listening(engine, outbox.channel) as notified:
        commit(engine, "a", "b", "c", outbox=outbox)
        with engine.begin() as connection:
            outbox.add(connection, Noted(), key="a")
            outbox.add(connection, Noted(), key="b")

        assert notified() == [outbox.channel] * 2


def test_a_rolled_back_transaction_notifies_nobody(engine: Engine) -> None:
    outbox = Outbox(MetaData(), STREAM, notify=True)

    with listening(engine, outbox.channel) as notified, engine.connect() as connection:
        outbox.add(connection, Noted(), key="a")
        connection.rollback()

        assert notified() == []


def test_nobody_is_notified_unless_asked_for(engine: Engine) -> None:
    with listening(engine, OUTBOX.channel) as notified:
        commit(engine, "a")

        assert notified() == []


@pytest.mark.parametrize("join", [Session, Engine.connect])
def test_an_engine_can_carry_the_time_and_the_ids_of_its_events(engine: Engine, join: Any) -> None:
    clock, numbers = FakeClock(), iter(range(1, 9))
    carrying = db.connect(engine.url)
    carrying.update_execution_options(
        labkit_clock=clock, labkit_new_id=lambda: f"M-{next(numbers)}"
    )
    clock.advance(60)

    with join(carrying) as joined, joined.begin():
        OUTBOX.add(joined, Noted(), key="RES-1")
        OUTBOX.add(joined, Noted(), key="RES-1", message_id="mine")
    carrying.dispose()

    with engine.connect() as connection:
        query = select(OUTBOX.table.c.message_id, OUTBOX.table.c.body).order_by(OUTBOX.table.c.seq)
        rows = connection.execute(query).all()
    assert [row.message_id for row in rows] == ["M-1", "mine"]
    assert "2026-02-17T16:01:00.000Z" in rows[0].body
