"""Arena: the database and the stream on which an exercise is attacked; never the story's.

Guarantee: empty afterwards, whatever a student's function left open; two examinations of one
exercise on the same servers wait for each other. The empty database is kept: creating one takes
longer than most attacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, delete, make_url, text

from labkit import db
from labkit.lab.exercises.steps import Steps
from labkit.lab.servers import Stack
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams, connect

# Whoever sets up and looks is in no lease; a student's transaction may take five seconds.
_WATCHER_S = 120.0
_ALONE_KEY = (1819042162, 7)
_ALONE = f"select pg_advisory_lock({_ALONE_KEY[0]}, {_ALONE_KEY[1]})"
_STRAYS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'
      and pid <> pg_backend_pid()
"""
# Why not pg_blocking_pids: it would count another examination that waits for this one to end.
_WAITS = f"""
    select exists(
        select from pg_locks join pg_stat_activity using (pid)
        where datname = current_database() and not granted
          and (locktype, classid, objid) is distinct from
              ('advisory', {_ALONE_KEY[0]}, {_ALONE_KEY[1]}))
"""


class Arena:
    """One service's database, emptied, and a prefix for its streams.

    Args:
        name: names both; lower case.
        service: whose tables.
        servers: where.
    """

    def __init__(self, name: str, service: Service, servers: Stack) -> None:
        address = make_url(servers.database(name))
        # Negotiating Kerberos in a forked process crashes on macOS.
        self._url = address.update_query_dict({"gssencmode": "disable"})
        self._service = service
        self.watcher = db.connect(self._url, lease_s=_WATCHER_S)
        self.transport = RedisStreams(connect(servers.redis_url), f"{name}:")

    def create_tables(self) -> None:
        """Create what is missing."""
        self._service.create_tables(self.watcher)

    @contextmanager
    def engine(self, steps: Steps) -> Iterator[Engine]:
        """Lend an engine whose every step is noted."""
        engine = steps.watch(db.connect(self._url))
        try:
            yield engine
        finally:
            engine.dispose()

    def empty(self) -> None:
        """Delete all rows and entries; end whoever left a transaction open."""
        with self.watcher.begin() as connection:
            connection.execute(text(_STRAYS))
            for table in reversed(self._service.metadata.sorted_tables):
                connection.execute(delete(table))
        client: Any = self.transport.client
        keys = list(client.scan_iter(match=f"{{{self.transport.prefix}*", count=1000))
        if keys:
            client.delete(*keys)

    def rows(self, query: str, **values: Any) -> Sequence[Any]:
        """Return the rows of a query."""
        with self.watcher.connect() as connection:
            return connection.execute(text(query), values).all()

    def someone_waits(self) -> bool:
        """Say whether a connection to this database waits for a lock.

        Another examination, which waits for this one, is not meant.
        """
        return bool(self.rows(_WAITS)[0][0])

    def sent(self) -> list[bytes]:
        """Return what is on the service's stream, whichever way it got there."""
        stream = self._service.stream
        client: Any = self.transport.client
        keys = [self.transport.stream_key(stream, n) for n in range(stream.partitions)]
        return [fields[b"body"] for key in keys for _, fields in client.xrange(key)]

    def close(self) -> None:
        """Close all connections."""
        self.watcher.dispose()
        self.transport.client.close()


@contextmanager
def arena(name: str, service: Service, servers: Stack) -> Iterator[Arena]:
    """Open an arena that nobody else uses meanwhile.

    Args:
        name: names database and streams.
        service: whose tables.
        servers: where.
    """
    place = Arena(name, service, servers)
    try:
        with place.watcher.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(_ALONE))
            try:
                # Here, and not before: creating takes locks, for which someone would wait.
                place.create_tables()
                yield place
            finally:
                place.empty()
                # Back in the pool, the connection would keep its lock.
                connection.invalidate()
    finally:
        place.close()
