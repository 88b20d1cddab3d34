"""Each precondition that a running service can lose: its tables, its readers, its times.

Guarantee: a service without a database is left out, and none is created; nothing is changed.
Not guaranteed: that a group is leaked. Other services may read a stream: name them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from labkit import db
from labkit.backlog import Backlog
from labkit.context import Context
from labkit.errors import ConfigurationError, LabkitError
from labkit.lab import sites
from labkit.lab.preconditions import Check
from labkit.lab.servers import Stack
from labkit.ports import PartitionState
from labkit.readers import alarms
from labkit.service import Service
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams, connect

# A reader that is so far behind is not just busy.
_LONG_LAG_S = 3600.0
# On a smaller table PostgreSQL reads everything, and is right.
_LARGE_ROWS = 10_000
_OUR_READER = "owner"


class _Case(NamedTuple):
    service: Service
    engine: Engine
    stream: Sequence[PartitionState]
    known_groups: frozenset[str]


def checks(stack: Stack, services: Sequence[Service], prefix: str = "") -> list[Check]:
    """Check the services whose database exists.

    Args:
        stack: where they run.
        services: all that share these streams.
        prefix: put before every key in Redis.

    Returns:
        The checks, service by service; what does not answer is a failed check.
    """
    client = connect(stack.redis_url)
    inspection = RedisInspection(RedisStreams(client, prefix))
    found: list[Check] = []
    try:
        # The services of a context share what is checked: the first one stands for them.
        contexts: dict[Context, Service] = {}
        for service in services:
            contexts.setdefault(service.context, service)
        present = sites.existing(stack, [context.name for context in contexts])
        for context, service in contexts.items():
            if context.name in present:
                engine = sites.engine_of(stack, context.name)
                try:
                    found += _of_service(service, engine, inspection, services)
                finally:
                    engine.dispose()
    except LabkitError as error:
        found.append(_silent("Services", error))
    finally:
        client.close()
    return found


def _of_service(
    service: Service, engine: Engine, inspection: RedisInspection, services: Sequence[Service]
) -> Iterator[Check]:
    known = {
        reader.consumer
        for each in services
        for reader in each.subscribed()
        if reader.stream == service.stream
    }
    case = _Case(service, engine, inspection.look(service.stream), frozenset(known))
    first = schema(case)
    yield first
    for question in _QUESTIONS if first.ok else ():
        try:
            yield question(case)
        except (SQLAlchemyError, LabkitError) as error:
            name = question.__name__.replace("_", " ")
            yield _silent(f"{service.context.name} {name}", error)


def schema(case: _Case) -> Check:
    """The tables are there, in this version."""
    try:
        db.check_schema(case.engine, case.service.metadata)
        problem = ""
    except (ConfigurationError, SQLAlchemyError) as error:
        problem = str(error)
    return Check(
        f"{case.service.context.name} schema",
        not problem,
        problem or f"version {db.SCHEMA_VERSION}",
        "`labkit run` creates what is missing; another version needs db.migration_sql",
    )


def claim(case: _Case) -> Check:
    """The relay finds unpublished rows without walking through the published ones."""
    table = case.service.outbox.table
    plan = Backlog(case.engine, case.service.outbox, {}).plan(range(case.service.stream.partitions))
    with case.engine.connect() as connection:
        query = text("select reltuples from pg_class where oid = cast(:name as regclass)")
        rows = connection.execute(query, {"name": db.quoted(table).replace("%%", "%")}).scalar_one()
    indexed = f"{table.name}_unpublished" in plan
    seen = "by the partial index" if indexed else f"by reading the table, about {rows:.0f} rows"
    return Check(
        f"{case.service.context.name} claim",
        indexed or rows < _LARGE_ROWS,
        seen,
        f"analyze {table.name}, and see that the index {table.name}_unpublished exists: each poll "
        "reads every row that was ever published",
        "warning",
    )


def retention(case: _Case) -> Check:
    """Nothing waits for longer than the inboxes remember."""
    window_s = case.service.retention.window_s
    with case.engine.connect() as connection:
        ages = connection.execute(
            text(f"""
                select extract(epoch from clock_timestamp() - (
                    select min(created_at) from {db.quoted_in_text(case.service.outbox.table)}
                    where published_at is null))::float8,
                  extract(epoch from clock_timestamp() - (
                    select min(held_at) from {db.quoted_in_text(case.service.held.table)}))::float8
            """)
        ).one()
    pending_s = max(
        (max(g.pending_age_s, g.lag_age_s) for p in case.stream for g in p.groups), default=0.0
    )
    oldest = {"unpublished": ages[0] or 0.0, "held": ages[1] or 0.0, "unread": pending_s}
    what = max(oldest, key=lambda name: oldest[name])
    return Check(
        f"{case.service.context.name} retention",
        oldest[what] < window_s,
        f"oldest {what}: {oldest[what]:.0f} s of {window_s:.0f} s" if oldest[what] else "all new",
        "publish, redrive or discard it first: it is older than the inbox window, so that a repeat "
        "of it may take effect twice",
        "warning",
    )


def groups(case: _Case) -> Check:
    """Every group of the stream is one that somebody still reads."""
    found = {g.group for p in case.stream for g in p.groups} - case.known_groups
    return Check(
        f"{case.service.context.name} groups",
        not found,
        f"nobody reads as {', '.join(sorted(found))}" if found else "all known",
        "name its service with --service, or let labkit.readers.forget_reader drop the group: as "
        "long as it is there or remembered, the stream cannot be trimmed",
        "warning",
    )


def lag(case: _Case) -> Check:
    """Every group keeps up."""
    ages = {
        (g.group, p.partition): max(g.lag_age_s, g.pending_age_s)
        for p in case.stream
        for g in p.groups
    }
    (group, partition), age_s = max(ages.items(), key=lambda item: item[1], default=(("", 0), 0.0))
    return Check(
        f"{case.service.context.name} readers",
        age_s < _LONG_LAG_S,
        f"{group}, partition {partition}: {age_s:.0f} s behind" if age_s else "up to date",
        "start its consumer: labkit run MODULE:SERVICE --role all",
        "warning",
    )


def trimming(case: _Case) -> Check:
    """Nothing keeps the cleaner from trimming the stream."""
    with case.engine.connect() as connection:
        found = [a for a in alarms(connection) if a.stream == case.service.stream.name]
    first = f"partition {found[0].partition}, {found[0].group}: {found[0].reason}" if found else ""
    return Check(
        f"{case.service.context.name} trimming",
        not found,
        first or "no alarms",
        "`labkit outbox reconcile` brings lost entries back; start the reader, or let "
        "labkit.readers.forget_reader drop one that will not come back",
        "warning",
    )


def reader_names(case: _Case) -> Check:
    """Each group is read under one name, so that names do not pile up."""
    strange = sorted(
        {f"{g.group}/{c}" for p in case.stream for g in p.groups for c in g.consumers}
        - {f"{g.group}/{_OUR_READER}" for p in case.stream for g in p.groups}
    )
    return Check(
        f"{case.service.context.name} consumer names",
        not strange,
        f"{len(strange)} besides ours, such as {strange[0]}" if strange else "ours only",
        "XGROUP DELCONSUMER what nobody uses, after its pending entries were claimed: it deletes "
        "them",
        "warning",
    )


_QUESTIONS: tuple[Callable[[_Case], Check], ...] = (
    claim,
    retention,
    groups,
    lag,
    reader_names,
    trimming,
)


def _silent(name: str, error: Exception) -> Check:
    first = (str(error).splitlines() or [""])[0]
    return Check(
        name, ok=False, detail=f"no answer: {first}", remedy="see that both servers answer"
    )
