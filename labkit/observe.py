"""Observe: what an operator watches, in numbers that are cheap to ask for.

The problem: a stuck outbox looks like a quiet one. So the ages of what waits are measured beside
the counts, on PostgreSQL's and the broker's own clocks.

Guarantee: what is asked of the outbox costs as much as its backlog, not as what it keeps; the
inbox is estimated by the planner's statistics, never counted.
Not guaranteed: one moment: the numbers are read one after the other.

Crash windows: none; nothing is written.

Source: Beyer et al., *Site Reliability Engineering*, ch. 6 ("Monitoring Distributed Systems").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Literal, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, text

from labkit import db
from labkit.consumer import Consumer
from labkit.ports import Inspection
from labkit.relay import Relay
from labkit.service import Service, Worker

Unit = Literal["", "seconds", "total", "histogram"]


class Measure(NamedTuple):
    """A number: what, of what, how much; `total` is what only grows.

    A `histogram` is several: its name ends in `_bucket` (with the label `le`), `_sum` or `_count`.
    """

    name: str
    labels: dict[str, str]
    value: float
    unit: Unit = ""


def measure(
    service: Service, engine: Engine, inspection: Inspection | None = None
) -> list[Measure]:
    """Measure a service's tables, and its stream's readers where the broker can be asked.

    Services of one context share them: each gives the same numbers, under the context's name.

    Args:
        service: what to measure.
        engine: its database.
        inspection: the broker's side.

    Returns:
        The measures; what is not known (no message was ever published) is left out.

    Raises:
        BrokerUnavailableError: when the broker does not answer.
        sqlalchemy.exc.DBAPIError: when the database does not.
    """
    return measure_database(service, engine) + measure_stream(service, inspection)


def measure_database(service: Service, engine: Engine) -> list[Measure]:
    """Measure the half of `measure` that is in PostgreSQL."""
    with engine.connect() as connection:
        found = [
            *_outbox(service, connection),
            *_refused(service, connection),
            *_held(service, connection),
            *_leases(connection),
            *_inbox(service, connection),
        ]
    return [each._replace(labels={"service": service.context.name} | each.labels) for each in found]


def measure_stream(service: Service, inspection: Inspection | None) -> list[Measure]:
    """Measure the half of `measure` that is at the broker: this service's stream."""
    found = []
    for partition in inspection.look(service.stream) if inspection else []:
        place = {"service": service.context.name, "partition": str(partition.partition)}
        found.append(Measure("stream_length", place, partition.length))
        for each in partition.groups:
            labels = place | {"group": each.group}
            if each.lag is not None:
                found.append(Measure("group_lag", labels, each.lag))
            found += [
                Measure("group_pending", labels, each.pending),
                Measure("group_oldest_lag_age", labels, each.lag_age_s, "seconds"),
                Measure("group_oldest_pending_age", labels, each.pending_age_s, "seconds"),
            ]
    return found


def counters(workers: Iterable[Worker]) -> list[Measure]:
    """Return what the workers of this process have done since it began, by outcome."""
    found = []
    for worker in workers:
        if isinstance(worker, Relay):
            labels = {"stream": worker.outbox.stream.name}
            for outcome, count in asdict(worker.total).items():
                found.append(Measure(f"relay_{outcome}", labels, count, "total"))
        elif isinstance(worker, Consumer):
            labels = {"consumer": worker.name, "stream": worker.stream.name}
            for outcome, count in asdict(worker.total).items():
                by = labels | {"outcome": outcome}
                found.append(Measure("consumer_messages", by, count, "total"))
    return found


def _outbox(service: Service, connection: Connection) -> Iterator[Measure]:
    table = db.quoted_in_text(service.outbox.table)
    # The partial index holds what is unpublished and nothing else.
    pending = _rows(
        connection,
        f"""
        select partition, count(*) as rows,
               extract(epoch from clock_timestamp() - min(created_at)) as age_s
        from {table} where published_at is null and refused is null group by partition
        """,
    )
    by_partition = {row["partition"]: row for row in pending}
    for partition in range(service.stream.partitions):
        labels, row = {"partition": str(partition)}, by_partition.get(partition)
        yield Measure("outbox_pending", labels, row["rows"] if row else 0)
        age_s = float(row["age_s"]) if row else 0.0
        yield Measure("outbox_oldest_pending_age", labels, max(0.0, age_s), "seconds")
    # Backwards along the primary key: as far as the newest row that is published.
    newest = _rows(
        connection,
        f"""
        select extract(epoch from clock_timestamp() - published_at) as age_s
        from {table} where published_at is not null order by seq desc limit 1
        """,
    )
    for row in newest:
        yield Measure("outbox_last_published_age", {}, max(0.0, float(row["age_s"])), "seconds")


def _refused(service: Service, connection: Connection) -> Iterator[Measure]:
    table = db.quoted_in_text(service.outbox.table)
    query = f"""
        select (select count(*) from {table} where refused is not null) as rows, count(*) as keys
        from (select key, partition, min(seq) as seq from {table}
              where refused is not null and key is not null group by key, partition) as first
        where exists (select from {table} as later
                      where later.published_at is null and later.refused is null
                        and later.partition = first.partition
                        and later.seq > first.seq and later.key = first.key)
    """
    for row in _rows(connection, query):
        yield Measure("outbox_refused", {}, row["rows"])
        yield Measure("outbox_keys_waiting", {}, row["keys"])


def _held(service: Service, connection: Connection) -> Iterator[Measure]:
    rows = _rows(
        connection,
        f"""
        select consumer, state, count(*) as rows,
               extract(epoch from clock_timestamp() - min(held_at)) as age_s
        from {db.quoted_in_text(service.held.table)} group by consumer, state
        order by consumer, state
        """,
    )
    for row in rows:
        labels = {"consumer": row["consumer"], "state": row["state"]}
        yield Measure("held", labels, row["rows"])
        yield Measure("held_oldest_age", labels, max(0.0, float(row["age_s"])), "seconds")
    parked = {row["consumer"]: row["rows"] for row in rows if row["state"] == "parked"}
    # Zeros too: an alarm needs a line to watch.
    for consumer in sorted({each.consumer for each in service.subscribed()} | set(parked)):
        yield Measure("dead_letters", {"consumer": consumer}, parked.get(consumer, 0))


def _leases(connection: Connection) -> Iterator[Measure]:
    query = """
        select kind, name, count(distinct owner) filter (where until > clock_timestamp()) as owners,
               count(*) filter (where until is null or until <= clock_timestamp()) as idle
        from lease group by kind, name order by kind, name
    """
    for row in _rows(connection, query):
        labels = {"kind": row["kind"], "name": row["name"]}
        yield Measure("lease_owners", labels, row["owners"])
        yield Measure("lease_idle_partitions", labels, row["idle"])


def _inbox(service: Service, connection: Connection) -> Iterator[Measure]:
    query = "select reltuples from pg_class where oid = cast(:name as regclass)"
    name = db.quoted(service.inbox.table).replace("%%", "%")
    for row in _rows(connection, query, name=name):
        if row["reltuples"] >= 0:  # below: never analysed
            yield Measure("inbox_rows_estimate", {}, row["reltuples"])


def _rows(connection: Connection, query: str, **values: str) -> Sequence[RowMapping]:
    return connection.execute(text(query), values).mappings().all()
