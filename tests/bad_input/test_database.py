"""Databases that are not as a worker needs them, and rows that PostgreSQL refuses."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from sqlalchemy import Engine, MetaData, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from labkit import db
from labkit.errors import ConfigurationError, InvalidEventError, InvalidMessageError
from labkit.inbox import Inbox
from labkit.lease import lease_tables
from labkit.messages import Event
from labkit.outbox import Outbox
from labkit.ports import Stream
from labkit.relay import Relay
from labkit.service import Worker
from labkit.transports.redis_streams import RedisStreams
from tests import toy

SECRET = "my-secret"


class Noted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v1"


def workers(engine: Engine, transport: RedisStreams) -> list[Worker]:
    service = toy.target
    return service.workers("all", engine, transport)


def test_workers_whose_tables_were_never_created_say_so_and_work_once_they_are(
    engine: Engine, transport: RedisStreams
) -> None:
    made = workers(engine, transport)
    for worker in made:
        with pytest.raises(ConfigurationError, match=r"labkit_schema, lease, member.*create_all"):
            worker.run(threading.Event())

    toy.target.create_tables(engine)

    assert [bool(worker.run_once()) for worker in made] == [False] * len(made)


@pytest.mark.parametrize("stored", [0, 99])
def test_workers_refuse_the_schema_of_another_labkit(
    engine: Engine, transport: RedisStreams, stored: int
) -> None:
    toy.target.create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text("update labkit_schema set version = :stored"), {"stored": stored})

    for worker in workers(engine, transport):
        with pytest.raises(ConfigurationError, match=f"labkit schema {stored}"):
            worker.run(threading.Event())


def test_a_database_that_does_not_exist_ends_a_worker_with_its_name(
    database: str, transport: RedisStreams
) -> None:
    engine = db.connect(make_url(database).set(database="nowhere"))

    for worker in workers(engine, transport):
        with pytest.raises(ConfigurationError, match='database "nowhere" does not exist'):
            worker.run(threading.Event())


def test_a_wrong_password_ends_a_worker_and_is_not_shown(
    database: str, transport: RedisStreams, caplog: pytest.LogCaptureFixture
) -> None:
    engine = db.connect(make_url(database).set(password=SECRET))

    for worker in workers(engine, transport):
        with pytest.raises(ConfigurationError, match="check the database address") as caught:
            worker.run(threading.Event())
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__) + caplog.text


@pytest.mark.parametrize("password", [f"{SECRET}@part", f"a@{SECRET}"])
def test_an_at_sign_in_a_password_does_not_make_it_a_host_that_is_shown(password: str) -> None:
    with pytest.raises(ConfigurationError, match="%40") as caught:
        db.connect(f"postgresql+psycopg://user:{password}@localhost/x")

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_table_of_an_odd_name_in_a_schema_of_its_own_is_published(
    engine: Engine, transport: RedisStreams
) -> None:
    with engine.begin() as connection:
        connection.execute(text('create schema "Odd:100% ""s"""'))
    metadata = MetaData(schema='Odd:100% "s"')
    outbox = Outbox(metadata, Stream("odd.events", 1), table="Out.box:100%(s)", notify=True)
    leases = MetaData()
    lease_tables(leases)
    db.create_all(engine, metadata, leases)
    relay = Relay(engine, outbox, transport.publisher(outbox.stream))
    with engine.begin() as connection:
        outbox.add(connection, Noted(), key="k")

    assert sum(relay.run_once().published for _ in range(3)) == 1


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    metadata = MetaData()
    made = Outbox(metadata, Stream("test.events"))
    db.create_all(engine, metadata)
    return made


def stored(engine: Engine, outbox: Outbox) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox.table.c.message_id)).scalars())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"key": key} for key in (7, b"k", ["k"], "", "a\0", "\ud800", "x" * 256)),
        *({"message_id": value} for value in (7, b"m", "", "a\0", "\ud800")),
        *({"correlation_id": value} for value in (7, b"c", "a\0", "\ud800")),
        *({"headers": value} for value in ({"a": 1}, {1: "a"}, {"a\0": "b"}, {"a": "\ud800"})),
        *({"event": value} for value in (None, 7, {"a": 1}, Noted, "Noted")),
        {"occurred_at": "2026-02-17"},
    ],
    ids=ascii,
)
def test_what_the_outbox_refuses_leaves_the_transaction_as_it_was(
    engine: Engine, outbox: Outbox, wrong: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"event": Noted(), "key": "k"}
    with engine.begin() as connection, Session(engine) as session, session.begin():
        for joined in (connection, session):
            with pytest.raises(InvalidEventError) as caught:
                outbox.add(joined, **arguments | wrong)
            assert len(str(caught.value)) < 300
        outbox.add(connection, Noted(), key="k", message_id="on a connection")
        outbox.add(session, Noted(), key="other", message_id="on a session")

    assert sorted(stored(engine, outbox)) == ["on a connection", "on a session"]


def test_an_id_used_twice_is_named_and_the_next_transaction_goes_on(
    engine: Engine, outbox: Outbox
) -> None:
    def add(joined: Session | Any, message_id: str) -> None:
        outbox.add(joined, Noted(), key="k", message_id=message_id)

    with engine.begin() as connection:
        add(connection, "M-1")
    with pytest.raises(InvalidEventError, match="An id is used once"), engine.begin() as connection:
        add(connection, "M-1")
    with Session(engine) as session:
        add(session, "M-1")
        with pytest.raises(InvalidEventError, match=r"=\(M-1\)"):
            session.commit()
    with engine.begin() as connection:
        with pytest.raises(InvalidEventError), connection.begin_nested():
            add(connection, "M-1")
        add(connection, "M-2")

    assert stored(engine, outbox) == ["M-1", "M-2"]


@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 256, 7, None], ids=ascii)
def test_an_inbox_takes_ids_only_and_its_transaction_goes_on(engine: Engine, bad: Any) -> None:
    metadata = MetaData()
    inbox = Inbox(metadata)
    db.create_all(engine, metadata)

    with engine.begin() as connection:
        with pytest.raises(InvalidMessageError, match="a message id must be"):
            inbox.accept(connection, "me", {"good": b"1", bad: b"2"})
        assert inbox.accept(connection, "me", {"good": b"1"}).fresh == {"good"}
