"""Partitions: who owns which, and how an operator stops some of them without stopping a process.

The problem: to repair a database, or to look at a key while nothing moves, somebody has to stop
the work on it. Stopping the processes stops everything else too, and whoever watches them starts
them again.

How: `paused_at` on the partition's row. Nobody renews or takes a paused partition: its owner
finishes what it has in hand, gives it up at its next tick (a quarter of a lease later at most) and
goes on with the others. After `resume` the first worker that has room takes it.

Guarantee: once `list_partitions` shows a paused partition without an active owner, nobody works on
it until it is resumed; then each key goes on where it stopped, in order, and nothing is lost.
Not guaranteed: that it stops at once, since a batch that was begun is finished; and a relay that
was frozen while it published may still append, when it wakes, the batch that it had claimed.

Crash windows: none; pausing and resuming are one statement each.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    text,
)

from labkit.errors import ConfigurationError

_WANTED = """
    (cast(:kind as text) is null or kind = :kind) and (cast(:name as text) is null or name = :name)
    and (cast(:partitions as int[]) is null or partition = any(:partitions))
"""
_COLUMNS = """
    kind, name, partition, owner, epoch, until,
    coalesce(until > clock_timestamp(), false) as is_active, acked, paused_at, paused_why
"""
_LIST = text(f"select {_COLUMNS} from lease where {_WANTED} order by kind, name, partition")
# Why not only the rows: workers renew theirs in an order of their own, and would deadlock with us.
_LOCK = text("lock table lease in share row exclusive mode")
# Paused again, it stays paused since the first time, for the newest reason.
_PAUSE = text(f"""
    update lease set paused_at = coalesce(paused_at, clock_timestamp()), paused_why = :why
    where {_WANTED} returning {_COLUMNS}
""")
_RESUME = text(f"""
    update lease set paused_at = null, paused_why = null
    where {_WANTED} and paused_at is not null returning {_COLUMNS}
""")


def lease_tables(metadata: MetaData) -> tuple[Table, Table]:
    """Define the tables `lease` and `member` on your metadata, once per database."""
    if "lease" in metadata.tables:
        return metadata.tables["lease"], metadata.tables["member"]
    lease = Table(
        "lease",
        metadata,
        Column("kind", Text, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("epoch", BigInteger, nullable=False, server_default="0"),
        Column("owner", Text),
        Column("until", DateTime(timezone=True)),
        Column("acked", BigInteger, nullable=False, server_default="0"),
        Column("paused_at", DateTime(timezone=True)),
        Column("paused_why", Text),
    )
    member = Table(
        "member",
        metadata,
        Column("kind", Text, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("owner", Text, primary_key=True),
        Column("until", DateTime(timezone=True), nullable=False),
    )
    return lease, member


class Partition(NamedTuple):
    """A partition of a relay (its name is the stream) or of a consumer (`name < stream`).

    `is_active` says that the owner's lease has not ended, by PostgreSQL's clock; `acked` is the
    last batch that a relay marked.
    """

    kind: str
    name: str
    partition: int
    owner: str | None
    epoch: int
    until: datetime | None
    is_active: bool
    acked: int
    paused_at: datetime | None
    paused_why: str | None


def list_partitions(
    connection: Connection, kind: str | None = None, name: str | None = None
) -> list[Partition]:
    """Return what workers have registered, in order.

    Args:
        connection: your transaction.
        kind: `relay` or `consumer`; None for all.
        name: of the relay or consumer; None for all.
    """
    return _run(connection, _LIST, kind, name, None)


def pause(
    connection: Connection,
    kind: str,
    name: str | None = None,
    partitions: Iterable[int] | None = None,
    *,
    why: str = "",
) -> list[Partition]:
    """Stop the work on partitions once your transaction commits, until they are resumed.

    Args:
        connection: your transaction.
        kind: `relay` or `consumer`.
        name: of the relay or consumer; None for all of that kind.
        partitions: their numbers; None for all.
        why: shown to whoever wonders.

    Returns:
        What is paused now; wait until none of them is active before you rely on it.

    Raises:
        ConfigurationError: when no worker has ever registered one of them.
    """
    wanted = None if partitions is None else sorted(set(partitions))
    _refuse_unknown(connection, kind, name, wanted)
    connection.execute(_LOCK)
    return sorted(_run(connection, _PAUSE, kind, name, wanted, why=why))


def resume(
    connection: Connection,
    kind: str,
    name: str | None = None,
    partitions: Iterable[int] | None = None,
) -> list[Partition]:
    """Let the work on partitions go on once your transaction commits.

    Args:
        connection: your transaction.
        kind: `relay` or `consumer`.
        name: of the relay or consumer; None for all of that kind.
        partitions: their numbers; None for all.

    Returns:
        What was paused until now.

    Raises:
        ConfigurationError: when no worker has ever registered one of them.
    """
    wanted = None if partitions is None else sorted(set(partitions))
    _refuse_unknown(connection, kind, name, wanted)
    connection.execute(_LOCK)
    return sorted(_run(connection, _RESUME, kind, name, wanted))


def _run(
    connection: Connection,
    statement: TextClause,
    kind: str | None,
    name: str | None,
    partitions: list[int] | None,
    **values: str,
) -> list[Partition]:
    wanted = {"kind": kind, "name": name, "partitions": partitions, **values}
    return [Partition(*row) for row in connection.execute(statement, wanted)]


def _refuse_unknown(
    connection: Connection, kind: str, name: str | None, wanted: list[int] | None
) -> None:
    registered = list_partitions(connection)
    found = {p.partition for p in registered if p.kind == kind and name in {None, p.name}}
    unknown = set(wanted or []) - found
    if found and not unknown:
        return
    known = ", ".join(sorted({f"{p.kind} {p.name}" for p in registered}))
    what = f"{kind} {name or ''}".strip() + "".join(f" partition {p}" for p in sorted(unknown))
    raise ConfigurationError(
        f"no worker has registered {what} here; there are: {known or 'none, so run a worker first'}"
    )
