"""What can go wrong with good servers in time: a warning each, and what to do about it.

Guarantee: nothing is changed by asking. Not guaranteed: what the user may not see; PostgreSQL shows
other users' transactions to members of `pg_read_all_stats` only.
"""

from __future__ import annotations

import psycopg
import redis

from labkit.lab.preconditions import Check

_LONG_TRANSACTION_S = 60.0
_FULL = 0.9


def commit_times(conn: psycopg.Connection) -> Check:
    """A trace can tell when something was committed."""
    row = conn.execute("select current_setting('track_commit_timestamp')").fetchone()
    value = str(row[0]) if row else ""
    return Check(
        "PostgreSQL track_commit_timestamp",
        value == "on",
        value,
        "alter system set track_commit_timestamp = on and restart: without it `labkit outbox "
        "trace` does not know when anything was committed",
        "warning",
    )


def open_transactions(conn: psycopg.Connection, longest_s: float = _LONG_TRANSACTION_S) -> Check:
    """No transaction of the whole cluster keeps vacuum from its work.

    Args:
        conn: the server.
        longest_s: how old a transaction may be, in seconds.
    """
    row = conn.execute(
        "select pid, application_name, extract(epoch from clock_timestamp() - xact_start)::float8"
        " from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()"
        " and backend_type = 'client backend' order by xact_start limit 1"
    ).fetchone()
    seen = f"pid {row[0]} ({row[1] or 'without a name'}), open for {row[2]:.0f} s" if row else ""
    return Check(
        "PostgreSQL open transactions",
        row is None or float(row[2]) < longest_s,
        seen or "none",
        "end it, or select pg_terminate_backend(pid): until then vacuum removes nothing, and the "
        "outbox grows with every mark",
        "warning",
    )


def prepared_transactions(conn: psycopg.Connection) -> Check:
    """No forgotten two-phase commit holds locks for ever."""
    row = conn.execute(
        "select gid, extract(epoch from clock_timestamp() - prepared)::float8"
        " from pg_prepared_xacts order by prepared limit 1"
    ).fetchone()
    return Check(
        "PostgreSQL prepared transactions",
        row is None,
        f"{row[0]}, prepared {row[1]:.0f} s ago" if row else "none",
        "commit prepared or rollback prepared: it outlives every restart, keeps its locks and "
        "stops vacuum; labkit itself refuses two-phase commit",
        "warning",
    )


def memory(client: redis.Redis) -> Check:
    """Redis has room for what is published next."""
    info = client.info("memory")
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    return Check(
        "Redis maxmemory",
        not most or used < _FULL * most,
        f"{used / most:.0%} of {most / 1e6:.0f} MB in use" if most else "no limit",
        "raise maxmemory, or let the cleaner trim streams: at 100 % Redis refuses to publish and "
        "the outbox fills",
        "warning",
    )
