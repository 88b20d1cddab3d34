"""What runs in a home right now, without starting or stopping anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psycopg
import redis
from sqlalchemy.engine import make_url

from labkit.lab import embedded
from labkit.lab.environment import named_servers, place_of, with_password
from labkit.lab.home import find_home
from labkit.lab.starting import Server

Source = Literal["environment", "embedded"]


@dataclass(frozen=True)
class ServerStatus:
    """One server.

    Args:
        name: `PostgreSQL` or `Valkey` (`Redis` when it comes from the environment).
        running: there is a process of ours, or something answers at its address.
        healthy: it answers.
        place: host and port, None when it does not run.
        port: the port alone.
        pid: its process; None when it is not ours.
        since: when we started it (ISO-8601, UTC); None when it is not ours.
    """

    name: str
    running: bool
    healthy: bool
    place: str | None = None
    port: int | None = None
    pid: int | None = None
    since: str | None = None


@dataclass(frozen=True)
class StackStatus:
    """Both servers of a home.

    Args:
        source: where they come from.
        home: directory whose `.labkit/` holds the state.
        servers: PostgreSQL and Redis.
    """

    source: Source
    home: Path
    servers: tuple[ServerStatus, ...]

    @property
    def healthy(self) -> bool:
        """Both answer."""
        return all(server.healthy for server in self.servers)


def status(home: str | Path | None = None) -> StackStatus:
    """Look at the servers of a home and leave them as they are.

    Args:
        home: directory for the state; default `LABKIT_HOME`, else the repository.

    Returns:
        What was seen.

    Raises:
        ServerError: the environment names one server and not the other.
    """
    place = find_home(home)
    urls = named_servers(place)
    if urls:
        return StackStatus("environment", place.root, _named(*urls))
    ours = tuple(_embedded(server) for server in embedded.servers_of(place))
    return StackStatus("embedded", place.root, ours)


def _embedded(server: Server) -> ServerStatus:
    seen = embedded.look(server)
    if seen is None:
        return ServerStatus(server.title, running=False, healthy=False)
    process, port = seen
    # The settings are written right before the start.
    since = datetime.fromtimestamp(server.settings.stat().st_mtime, UTC)
    return ServerStatus(
        server.title,
        running=True,
        healthy=embedded.is_healthy(server, process, port),
        place=f"127.0.0.1:{port}",
        port=port,
        pid=process.pid,
        since=since.isoformat(timespec="seconds"),
    )


def _named(database: str, redis_url: str) -> tuple[ServerStatus, ServerStatus]:
    return (
        _seen("PostgreSQL", database, alive=_postgres_answers(database)),
        _seen("Redis", redis_url, alive=_redis_answers(redis_url)),
    )


def _seen(name: str, url: str, *, alive: bool) -> ServerStatus:
    return ServerStatus(name, alive, alive, place_of(url), make_url(url).port)


def _postgres_answers(url: str) -> bool:
    try:
        plain = with_password(make_url(url).set(drivername="postgresql"))
        psycopg.connect(plain, connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=3.0, socket_connect_timeout=3.0) as client:
            client.ping()
    except redis.RedisError:
        return False
    return True
