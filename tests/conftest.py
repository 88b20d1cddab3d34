"""Real servers for every test: one PostgreSQL and one Valkey per run, databases per test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from labkit import db
from labkit.clock import FakeClock
from labkit.lab.servers import Stack, stack
from labkit.transports import redis_streams
from labkit.transports.redis_streams import RedisStreams


@pytest.fixture(scope="session")
def servers() -> Iterator[Stack]:
    """Start both servers in a home of their own; leave nothing running."""
    if os.environ.get("LABKIT_DATABASE_URL"):
        yield stack()
        return
    home = Path(tempfile.mkdtemp(prefix="labkit-tests-"))
    running = stack(home=home)
    yield running
    running.down(erase=True)
    shutil.rmtree(home, ignore_errors=True)


NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(servers: Stack) -> Iterator[NewDatabase]:
    """Return a function that makes an empty database and returns its URL."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{uuid.uuid4().hex[:12]}")
        return servers.database(names[-1])

    yield make
    # DROP DATABASE waits for a checkpoint; our own servers are deleted whole at the end.
    if servers.source == "environment":
        for name in names:
            servers.drop_database(name)


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
