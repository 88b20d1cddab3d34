"""Measures of sagas: how many began, ended and are stuck, how long they take, who is under way.

Guarantee: all of it is read from the tables, so it is the same whichever process is asked, and
survives them all. Totals come from the history, where nothing is taken back: a saga that was stuck
and went on stays counted.
Not guaranteed: that totals cost nothing: they read what is kept, about a third of a second for
100,000 sagas. Who is under way costs what is under way.

Crash windows: none; nothing is written.

Source: Beyer et al., *Site Reliability Engineering*, ch. 6 ("Monitoring Distributed Systems").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine, RowMapping, text

from labkit import db, unit_of_work
from labkit.clock import SystemClock
from labkit.observe import Measure
from labkit.saga.rows import sagas_of
from labkit.saga.state import COMPENSATED, COMPLETED, ENDED, STUCK, Status
from labkit.service import Service

# The longest durations of the histogram's buckets, in seconds: from a hop to a night.
BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
# What the history says when a saga ends, or is stuck.
_ENDS = {"completed": COMPLETED, "compensated": COMPENSATED}
_STUCK = str(STUCK).lower()


def measure(service: Service, engine: Engine) -> list[Measure]:
    """Measure all sagas of a service's context.

    Args:
        service: whose.
        engine: its database.

    Returns:
        The measures, zeros included; none when no sagas are declared.

    Raises:
        sqlalchemy.exc.DBAPIError: when the database does not answer.
    """
    sagas = sagas_of(service.metadata)
    if not sagas:
        return []
    with engine.connect() as connection:
        found = [
            each
            for one in sagas.values()
            for each in _of_one(
                connection,
                one.name,
                db.quoted_in_text(one.store.table),
                db.quoted_in_text(one.store.history),
            )
        ]
    return [each._replace(labels={"service": service.context.name} | each.labels) for each in found]


def _of_one(connection: Connection, saga: str, table: str, history: str) -> Iterator[Measure]:
    yield from _totals(connection, saga, table, history)
    yield from _under_way(connection, saga, table)
    yield from _ended(connection, saga, table, history)


def _totals(connection: Connection, saga: str, table: str, history: str) -> Iterator[Measure]:
    query = f"""
        select (select count(*) from {table} where saga = :saga) as started,
               (select count(*) from {history} where saga = :saga and what = '{_STUCK}') as failed
    """
    for row in _rows(connection, query, saga):
        yield Measure("saga_started", {"saga": saga}, row["started"], "total")
        yield Measure("saga_failed", {"saga": saga}, row["failed"], "total")


def _under_way(connection: Connection, saga: str, table: str) -> Iterator[Measure]:
    ended = ", ".join(f"'{status}'" for status in sorted(ENDED))
    query = f"""
        select status, count(*) as rows, min(started_at) as oldest
        from {table} where saga = :saga and status not in ({ended}) group by status
    """
    rows = {row["status"]: row for row in _rows(connection, query, saga)}
    for status in Status:
        if status not in ENDED:
            labels = {"saga": saga, "status": str(status)}
            yield Measure("saga_under_way", labels, rows[status]["rows"] if status in rows else 0)
    now = unit_of_work.carried(connection, "labkit_clock", SystemClock()).now()
    oldest = min((row["oldest"] for row in rows.values()), default=now)
    age_s = max(0.0, (now - oldest).total_seconds())
    yield Measure("saga_oldest_under_way_age", {"saga": saga}, age_s, "seconds")


def _ended(connection: Connection, saga: str, table: str, history: str) -> Iterator[Measure]:
    """Count what ended by how long it took: from its beginning to the line that says so.

    Why not `updated_at`: an answer that comes again touches a saga long after its end.
    """
    took_s = "cast(extract(epoch from h.at - s.started_at) as float8)"
    upto = [f"count(*) filter (where {took_s} <= {most_s}) as b{n}" for n, most_s in _numbered()]
    query = f"""
        select h.what, count(*) as rows, sum({took_s}) as seconds, {", ".join(upto)}
        from {history} as h join {table} as s on s.saga = h.saga and s.id = h.id
        where h.saga = :saga and h.what in ({", ".join(f"'{what}'" for what in _ENDS)})
        group by h.what
    """
    rows = {row["what"]: row for row in _rows(connection, query, saga)}
    for what, status in _ENDS.items():
        row = rows.get(what, _NONE)
        yield Measure(f"saga_{what}", {"saga": saga}, row["rows"], "total")
        yield from _histogram({"saga": saga, "status": str(status)}, row)


def _histogram(labels: dict[str, str], row: RowMapping | dict[str, float]) -> Iterator[Measure]:
    name = "saga_duration_seconds"
    for n, most_s in _numbered():
        yield Measure(f"{name}_bucket", labels | {"le": str(most_s)}, row[f"b{n}"], "histogram")
    yield Measure(f"{name}_bucket", labels | {"le": "+Inf"}, row["rows"], "histogram")
    yield Measure(f"{name}_sum", labels, row["seconds"], "histogram")
    yield Measure(f"{name}_count", labels, row["rows"], "histogram")


def _numbered() -> list[tuple[int, float]]:
    return list(enumerate(BUCKETS_S))


_NONE: dict[str, float] = {"rows": 0, "seconds": 0.0} | {f"b{n}": 0 for n, _ in _numbered()}


def _rows(connection: Connection, query: str, saga: str) -> Sequence[RowMapping]:
    return connection.execute(text(query), {"saga": saga}).mappings().all()
