"""Real servers for every test: one PostgreSQL and one Valkey per run, empty databases per test."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Engine, make_url

from labkit import db
from labkit.clock import FakeClock
from labkit.lab.servers import Stack, stack
from labkit.transports import redis_streams
from labkit.transports.redis_streams import RedisStreams
from tests.databases import Databases


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over modules and tests, which stay: a pass took 0.2 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def servers() -> Iterator[Stack]:
    """Start both servers in a home of their own; leave nothing running."""
    with started() as running:
        if running.source != "environment":
            _let_the_disk_be(running)
        yield running


@contextmanager
def started() -> Iterator[Stack]:
    """Start servers as a reader of the workbook has them, unless the environment names some."""
    if os.environ.get("LABKIT_DATABASE_URL"):
        yield stack()
        return
    home = Path(tempfile.mkdtemp(prefix="labkit-tests-"))
    running = stack(home=home)
    yield running
    running.down(erase=True)
    shutil.rmtree(home, ignore_errors=True)


def _let_the_disk_be(servers: Stack) -> None:
    """Turn fsync off: it is about a machine that loses its power, which no test can do.

    Killed processes lose nothing by it. With it every DROP DATABASE waits until all that the
    other tests have written is on disk.
    """
    plain = make_url(servers.database_url).set(drivername="postgresql")
    url = plain.render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")


@pytest.fixture(scope="session")
def databases_of_tests(servers: Stack) -> Iterator[Databases]:
    """Return what lends databases to one test after the other."""
    made = Databases(servers)
    yield made
    # Our own servers are deleted whole.
    if servers.source == "environment":
        made.drop()


NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(databases_of_tests: Databases) -> Iterator[NewDatabase]:
    """Return a function that lends an empty database and returns its URL."""
    lent: list[str] = []

    def lend() -> str:
        lent.append(databases_of_tests.lend())
        return lent[-1]

    yield lend
    for url in lent:
        databases_of_tests.take_back(url)


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """Return the URL of an empty database."""
    return new_database()


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """Return an engine on an empty database."""
    made = db.connect(database)
    yield made
    made.dispose()


@pytest.fixture
def client(servers: Stack) -> Iterator[redis.Redis]:
    """Return a Redis client."""
    made = redis_streams.connect(servers.redis_url)
    yield made
    made.close()


@pytest.fixture
def transport(client: redis.Redis) -> Iterator[RedisStreams]:
    """Return a transport whose keys no other test has; delete them afterwards."""
    prefix = f"{uuid.uuid4().hex[:8]}:"
    yield RedisStreams(client, prefix)
    for key in client.scan_iter(match=f"*{prefix}*", count=1000):
        client.delete(key)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves when told to."""
    return FakeClock()
