"""A database for all tests of a module, emptied before each: creating one takes as long as ten."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, MetaData, delete

from labkit import db
from labkit.lab.servers import Stack


@contextmanager
def lent_database(servers: Stack, metadata: MetaData) -> Iterator[Engine]:
    """Create a database with these tables; the servers are deleted with it at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = db.connect(servers.database(name))
    db.create_all(engine, metadata)
    yield engine
    engine.dispose()
    if servers.source == "environment":
        servers.drop_database(name)


def emptied(engine: Engine, metadata: MetaData) -> Engine:
    """Delete all rows."""
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
    return engine
