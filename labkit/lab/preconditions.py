"""Each precondition of the promise: one small function that asks and names the remedy.

Guarantee: nothing is changed by asking, and only `show`, `INFO`, `TIME` and `COMMAND INFO` are
used, which hosted servers allow too. Not guaranteed: that disks do not lie about `fsync`.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
import redis
from redis.utils import HIREDIS_AVAILABLE

from labkit.lab.environment import place_of

Level = Literal["error", "warning"]

_WITH_TRANSACTION_TIMEOUT = 170000
# The first with XAUTOCLAIM and XTRIM MINID.
_OLDEST_REDIS = (6, 2)
_CONNECTIONS = 100
_SKEW_S = 2.0
_COMMANDS = (
    *("xadd", "xack", "xautoclaim", "xdel", "xgroup", "xinfo", "xlen", "xpending"),
    *("xrange", "xread", "xreadgroup", "xtrim", "eval", "evalsha", "script", "time"),
    *("hget", "hset", "get", "set", "incr", "pexpire"),
)


@dataclass(frozen=True)
class Check:
    """One precondition and whether it holds.

    Args:
        name: what was looked at.
        ok: it holds.
        detail: what was seen.
        remedy: what to do when it does not hold.
        level: `error` breaks the promise, `warning` narrows it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str
    level: Level = "error"


def python_version() -> Check:
    """Python is new enough."""
    return Check(
        "Python version",
        sys.version_info >= (3, 11),
        sys.version.split()[0],
        "install Python 3.11 or newer and make the virtual environment again",
    )


def hiredis_in_use() -> Check:
    """redis-py parses answers in C."""
    return Check(
        "hiredis",
        HIREDIS_AVAILABLE,
        "in use" if HIREDIS_AVAILABLE else "not in use: answers are parsed in Python",
        "pip install hiredis: without it the consumer reads several times slower",
        "warning",
    )


def postgres_version(conn: psycopg.Connection) -> Check:
    """PostgreSQL can end a transaction that outlives its lease."""
    return Check(
        "PostgreSQL version",
        conn.info.server_version >= _WITH_TRANSACTION_TIMEOUT,
        _setting(conn, "server_version"),
        "use PostgreSQL 17 or newer: older ones have no transaction_timeout, so a frozen process "
        "can hold the next owner up for longer than its lease",
        "warning",
    )


def synchronous_commit(conn: psycopg.Connection) -> Check:
    """A committed event is on disk."""
    value = _setting(conn, "synchronous_commit")
    return Check(
        "PostgreSQL synchronous_commit",
        value in {"on", "remote_apply", "remote_write", "local"},
        value,
        "alter system set synchronous_commit = on, then select pg_reload_conf(): without it a "
        "crash loses commits that were confirmed",
    )


def fsync(conn: psycopg.Connection) -> Check:
    """PostgreSQL waits for the disk."""
    value = _setting(conn, "fsync")
    return Check(
        "PostgreSQL fsync",
        value == "on",
        value,
        "set fsync = on in postgresql.conf: without it a crash of the machine can destroy all data",
    )


def encoding(conn: psycopg.Connection) -> Check:
    """Payloads are stored as the JSON that they are."""
    value = _setting(conn, "server_encoding")
    return Check(
        "PostgreSQL encoding",
        value == "UTF8",
        value,
        "create the database with encoding 'UTF8': JSON payloads may hold any character",
    )


def max_connections(conn: psycopg.Connection) -> Check:
    """Relays, consumers and tests find room."""
    value = _setting(conn, "max_connections")
    return Check(
        "PostgreSQL max_connections",
        int(value) >= _CONNECTIONS,
        value,
        f"alter system set max_connections = {2 * _CONNECTIONS} and restart: each worker keeps "
        "a few connections",
        "warning",
    )


def redis_version(client: redis.Redis) -> Check:
    """Redis or Valkey has streams that can be trimmed behind their readers."""
    info = client.info("server")
    valkey = info.get("valkey_version")
    # Valkey tells the Redis version that it is compatible with, besides its own.
    numbers = tuple(int(n) for n in re.findall(r"\d+", str(info["redis_version"]))[:2])
    return Check(
        "Redis version",
        numbers >= _OLDEST_REDIS,
        f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
        "use Redis 6.2 or newer, or any Valkey: older ones have no XTRIM MINID and no XAUTOCLAIM",
    )


def append_only_file(client: redis.Redis) -> Check:
    """A restart of Redis brings the streams back."""
    enabled = bool(int(client.info("persistence")["aof_enabled"]))
    return Check(
        "Redis append-only file",
        enabled,
        "on" if enabled else "off",
        "set appendonly yes; or rely on the relay's reconcile, which publishes retained outbox "
        "rows again after a loss",
        "warning",
    )


def eviction(client: redis.Redis) -> Check:
    """Redis refuses writes when memory is full, instead of forgetting streams."""
    policy = str(client.info("memory")["maxmemory_policy"])
    return Check(
        "Redis maxmemory-policy",
        policy == "noeviction",
        policy,
        "set maxmemory-policy noeviction: any other policy may throw a stream away unread",
    )


def primary(client: redis.Redis) -> Check:
    """This Redis takes writes."""
    role = str(client.info("replication")["role"])
    return Check(
        "Redis role",
        role == "master",
        "primary" if role == "master" else f"{role}, read-only",
        "point LABKIT_REDIS_URL to the primary: a replica refuses to publish",
    )


def commands(client: redis.Redis) -> Check:
    """Every command that labkit sends exists here (asked by name: versions tell little)."""
    # Why not ("COMMAND", "INFO", ...): redis-py's own parser fails on a command that is missing.
    ask: Any = client.execute_command
    answers = ask("COMMAND INFO", *_COMMANDS)
    missing = [name for name, about in zip(_COMMANDS, answers, strict=True) if not about]
    return Check(
        "Redis commands",
        not missing,
        f"missing: {', '.join(missing)}" if missing else f"all {len(_COMMANDS)} are there",
        "use Redis 6.2 or newer, or Valkey; some hosted ones take commands away",
    )


def clocks(conn: psycopg.Connection, client: redis.Redis) -> Check:
    """PostgreSQL, Redis and this machine agree on the time."""
    ahead = {
        "this machine": 0.0,
        "PostgreSQL": _ahead(lambda: _postgres_time(conn)),
        "Redis": _ahead(lambda: _redis_time(client)),
    }
    skew_s = max(ahead.values()) - min(ahead.values())
    return Check(
        "Clocks",
        skew_s < _SKEW_S,
        f"{skew_s:.2f} s apart",
        "let NTP set every clock (Docker Desktop and WSL2: restart the virtual machine): leases "
        "count on one clock, but deadlines and event times would contradict each other",
        "warning",
    )


def loopback(service: str, url: str) -> Check:
    """Nobody on the network reaches a server of the bench."""
    name, place = f"{service} closed to the network", place_of(url)
    host, _, port = place.rpartition(":")
    if not socket.gethostbyname(host).startswith("127."):
        remedy = "use TLS, a firewall and a password of its own for a server on the network"
        return Check(
            name, ok=False, detail=f"{place}, over the network", remedy=remedy, level="warning"
        )
    outward = _outward_address()
    exposed = outward is not None and _accepts(outward, int(port))
    return Check(
        name,
        not exposed,
        f"also at {outward}:{port}, from the network" if exposed else f"{place}, from here only",
        "bind it to 127.0.0.1 (compose: 127.0.0.1:5432:5432)",
        "warning",
    )


def _setting(conn: psycopg.Connection, name: str) -> str:
    row = conn.execute("select current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""


def _ahead(remote_time: Callable[[], float]) -> float:
    # The answer is as old as half the way there and back.
    before = time.time()
    remote = remote_time()
    return remote - (before + time.time()) / 2


def _postgres_time(conn: psycopg.Connection) -> float:
    row = conn.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
    return float(row[0]) if row else 0.0


def _redis_time(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def _outward_address() -> str | None:
    # Connecting a datagram socket sends nothing; it only chooses the interface.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
