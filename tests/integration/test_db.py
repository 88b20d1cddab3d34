"""Engine and schema: limits, races, versions, and a COMMIT whose answer is lost."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import psycopg
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from labkit import db
from labkit.errors import CommitUnknownError, ConfigurationError
from labkit.inbox import Inbox
from labkit.messages import Event
from labkit.outbox import Outbox
from labkit.ports import Stream
from tests.conftest import NewDatabase
from tests.waiting import eventually

METADATA = MetaData()
OUTBOX = Outbox(METADATA, Stream("test.events"))
RACE = """
import os, sys
from labkit import db
from labkit.messages import Registry
from labkit.service import Service

metadata = Service("racer", Registry()).metadata
gate, starter = os.pipe()
racers = []
for _ in range(8):
    racers.append(os.fork())
    if racers[-1] == 0:
        os.close(starter)
        engine = db.connect(sys.argv[1])
        engine.connect().close()
        os.read(gate, 1)
        db.create_all(engine, metadata)
        os._exit(0)
os.close(starter)
print([os.waitpid(racer, 0)[1] for racer in racers])
"""
CATALOGUE = """
select table_name, column_name, data_type, is_nullable, column_default, identity_generation
from information_schema.columns where table_schema = 'public'
union all
select tablename, indexname, indexdef, null, null, null from pg_indexes where schemaname = 'public'
union all
select conrelid::regclass::text, conname, pg_get_constraintdef(oid), null, null, null
from pg_constraint where connamespace = 'public'::regnamespace
order by 1, 2, 3
"""


class Noted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v1"

    n: int = 0


@pytest.fixture
def other_database(new_database: NewDatabase) -> str:
    return new_database()


class Proxy:
    """A loopback TCP proxy that swallows the answer to one statement and hangs up.

    Args:
        target: host and port of the server.
        cut_at: the statement, as it is on the wire.
        reaches_server: whether the server still gets that statement.
    """

    def __init__(self, target: tuple[str, int], cut_at: bytes, *, reaches_server: bool) -> None:
        self._target = target
        self._cut_at = cut_at
        self._reaches_server = reaches_server
        self.armed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                ends = (client, server, threading.Event())
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, cut: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.armed and self._cut_at in data:
                    cut.set()
                    if not self._reaches_server:
                        break
                server.sendall(data)
        self._hang_up(client, server)

    def _to_client(
        self, client: socket.socket, server: socket.socket, cut: threading.Event
    ) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not cut.is_set():
                client.sendall(data)
        self._hang_up(client, server)

    @staticmethod
    def _hang_up(*ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cut(database: str) -> Iterator[Callable[..., Engine]]:
    """Return a function that makes an engine whose connection is cut at a statement."""
    address = make_url(database)
    proxies: list[Proxy] = []
    engines: list[Engine] = []

    def build(at: bytes, *, reaches_server: bool = True) -> Engine:
        target = (address.host or "127.0.0.1", address.port or 5432)
        proxies.append(Proxy(target, at, reaches_server=reaches_server))
        url = address.set(host="127.0.0.1", port=proxies[-1].port)
        engines.append(db.connect(url))
        engines[-1].connect().close()  # the first connection sends statements of its own
        proxies[-1].armed = True
        return engines[-1]

    yield build
    for engine in engines:
        engine.dispose()
    for proxy in proxies:
        proxy.close()


def scalar(engine: Engine, statement: str, **values: object) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(statement), values).scalar()


def test_eight_processes_create_the_tables_once(database: str, engine: Engine) -> None:
    command = [sys.executable, "-c", RACE, database]

    raced = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (raced.stdout, raced.stderr) == (f"{[0] * 8}\n", "")
    assert scalar(engine, "select count(*) from labkit_schema") == 1


def test_tables_are_created_again_without_harm(engine: Engine) -> None:
    db.create_all(engine, METADATA)
    with engine.begin() as connection:
        OUTBOX.add(connection, Noted(), key="k")

    db.create_all(engine, METADATA)

    db.check_schema(engine, METADATA)
    assert scalar(engine, "select count(*) from outbox_messages") == 1


@pytest.mark.parametrize(
    ("stored", "remedy"), [(99, "newer than 1: upgrade labkit"), (0, "older than 1: run db.migra")]
)
def test_another_version_is_refused_with_the_remedy(
    engine: Engine, stored: int, remedy: str
) -> None:
    db.create_all(engine, METADATA)
    scalar(engine, "update labkit_schema set version = :v returning 1", v=stored)

    for use in (db.create_all, db.check_schema):
        with pytest.raises(ConfigurationError, match=f"schema {stored}, {remedy}"):
            use(engine, METADATA)


def test_a_refused_version_creates_nothing(engine: Engine) -> None:
    db.create_all(engine)
    scalar(engine, "update labkit_schema set version = 99 returning 1")

    with pytest.raises(ConfigurationError):
        db.create_all(engine, METADATA)

    assert scalar(engine, "select to_regclass('outbox_messages')") is None


def test_missing_tables_are_named_with_the_remedy(engine: Engine) -> None:
    db.create_all(engine, METADATA)
    OUTBOX.table.drop(engine)

    with pytest.raises(ConfigurationError, match=r"missing: outbox_messages; call db\.create_all"):
        db.check_schema(engine, METADATA)


def test_an_empty_database_lacks_even_the_version(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="missing: labkit_schema, outbox_messages"):
        db.check_schema(engine, METADATA)


def test_the_migration_gives_the_same_catalogue(
    engine: Engine, database: str, other_database: str
) -> None:
    metadata = MetaData()
    Outbox(metadata, Stream("s"), table='Odd 50% "name"')
    Inbox(metadata, table="In%s")
    other = db.connect(other_database)

    db.create_all(other, metadata)
    run(database, db.migration_sql(engine, metadata))
    run(database, db.migration_sql(engine, metadata))

    assert run(database, CATALOGUE) == run(other_database, CATALOGUE)
    db.check_schema(engine, metadata)
    other.dispose()


def run(url: str, sql: str) -> list[tuple[Any, ...]]:
    address = make_url(url).set(drivername="postgresql")
    plain = address.render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@localhost/x",
        "postgresql+psycopg2://user:s3cret@localhost/x",
        "postgresql+asyncpg://user:s3cret@localhost/x",
        "redis://user:s3cret@localhost",
        "user:s3cret@localhost",
        "",
        "postgresql+psycopg://user:s3cret@localhost:port/x",
        "postgresql+psycopg://user:pass/s3cret@localhost/x",
        "postgresql+psycopg://user:s3cret@127.0.0.1:1/x",
    ],
)
def test_a_wrong_address_is_refused_and_no_text_holds_the_password(url: str) -> None:
    with pytest.raises((ConfigurationError, OperationalError)) as caught:
        db.connect(url).connect()

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_not_shown(database: str) -> None:
    wrong = make_url(database).set(password="s3cret")  # pragma: allowlist secret

    with pytest.raises(OperationalError) as caught:
        db.connect(wrong).connect()

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "name", ["transaction_timeout", "idle_in_transaction_session_timeout", "statement_timeout"]
)
def test_every_connection_has_time_limits_of_half_a_lease(database: str, name: str) -> None:
    engine = db.connect(database, lease_s=3.0)
    with engine.connect() as one, engine.connect() as other:
        one.rollback()

        found = {c.execute(text(f"show {name}")).scalar() for c in (one, other)}

    assert found == {"1500ms"}
    engine.dispose()


def test_a_transaction_that_stands_still_is_ended(database: str) -> None:
    engine = db.connect(database, lease_s=0.1)
    with engine.connect() as frozen:
        pid = frozen.execute(text("select pg_backend_pid()")).scalar_one()
        watcher = db.connect(database)
        alive = "select count(*) from pg_stat_activity where pid = :pid"

        eventually(lambda: scalar(watcher, alive, pid=pid), 0)

        with pytest.raises(DBAPIError, match=r"due to .* timeout"):
            frozen.execute(text("select 1"))
    for each in (engine, watcher):
        each.dispose()


def test_a_foreign_engine_is_refused(database: str, engine: Engine) -> None:
    db.check_worker(engine, db.DEFAULT_LEASE_S)
    foreign = create_engine(database)

    with pytest.raises(ConfigurationError, match=r"labkit\.db\.connect\(url, lease_s=10\.0\)"):
        db.check_worker(foreign, db.DEFAULT_LEASE_S)

    foreign.dispose()


def test_an_engine_for_a_longer_lease_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"5000 ms, longer than the lease of 1\.0 s"):
        db.check_worker(engine, 1.0)


@pytest.mark.parametrize(
    ("reaches_server", "outcome", "rows"), [(True, "committed", 1), (False, "aborted", 0)]
)
def test_a_commit_without_answer_names_a_true_xid(
    engine: Engine, cut: Callable[..., Engine], reaches_server: bool, outcome: str, rows: int
) -> None:
    db.create_all(engine, METADATA)
    flaky = cut(b"COMMIT", reaches_server=reaches_server)

    with pytest.raises(CommitUnknownError) as caught:
        add_and_commit(flaky)

    status = "select pg_xact_status(:xid ::xid8)"
    eventually(lambda: scalar(engine, status, xid=str(caught.value.xid)), outcome)
    assert scalar(engine, "select count(*) from outbox_messages") == rows


def test_a_connection_whose_commit_was_lost_is_not_used_again(
    engine: Engine, cut: Callable[..., Engine]
) -> None:
    db.create_all(engine, METADATA)
    flaky = cut(b"COMMIT")
    with flaky.connect() as connection:
        before = connection.execute(text("select pg_backend_pid()")).scalar()

    with pytest.raises(CommitUnknownError):
        add_and_commit(flaky)

    with flaky.connect() as connection:
        assert connection.execute(text("select pg_backend_pid()")).scalar() != before


def add_and_commit(engine: Engine) -> None:
    with Session(engine) as session:
        OUTBOX.add(session, Noted(), key="k")
        session.commit()


def test_a_lost_answer_to_a_rollback_is_no_unknown_commit(
    engine: Engine, cut: Callable[..., Engine]
) -> None:
    db.create_all(engine, METADATA)
    with cut(b"ROLLBACK").connect() as connection:
        OUTBOX.add(connection, Noted(), key="k")

        with pytest.raises(OperationalError):
            connection.rollback()


def test_a_lost_answer_to_a_query_is_no_unknown_commit(
    engine: Engine, cut: Callable[..., Engine]
) -> None:
    db.create_all(engine, METADATA)
    with cut(b"select 42").connect() as connection:
        OUTBOX.add(connection, Noted(), key="k")

        with pytest.raises(OperationalError):
            connection.execute(text("select 42"))


@pytest.mark.parametrize(
    ("sqlstate", "error"), [("40001", OperationalError), ("23514", IntegrityError)]
)
def test_a_commit_that_the_server_refuses_is_no_unknown_commit(
    engine: Engine, sqlstate: str, error: type[Exception]
) -> None:
    db.create_all(engine, METADATA)
    refuse_at_commit(engine, sqlstate)

    connection = engine.connect()
    OUTBOX.add(connection, Noted(), key="k")
    connection.execute(text("insert into refused values (1)"))

    with pytest.raises(error):
        connection.commit()

    connection.close()


def refuse_at_commit(engine: Engine, sqlstate: str) -> None:
    metadata = MetaData()
    Table("refused", metadata, Column("n", Integer))
    db.create_all(engine, metadata)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"""
            create function refuse() returns trigger language plpgsql as
            $$ begin raise exception 'no' using errcode = '{sqlstate}'; end $$;
            create constraint trigger refuse after insert on refused
            deferrable initially deferred for each row execute function refuse();
            """
        )
