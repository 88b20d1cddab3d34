"""Readers: which groups a context's stream must keep its entries for.

The problem: a broker forgets a group as easily as an entry, and a stream trimmed behind the
groups that happen to be there loses what the missing one never read. So every group that was
ever seen is a row here, in the publishing context's database, until an operator forgets it.

An alarm is a sentence in the row: while one stands in a partition, nothing is trimmed there. It
goes when its cause does.

    vanished    somebody else deleted entries, perhaps before they were read: `labkit.reconcile`
    missing     the broker does not know the group: a lost one is made anew by its consumer
    standing    entries wait, and the oldest one needed has been the same for `delivery_s`

Guarantee: a group seen on one partition protects all of them.
Not guaranteed: anything for a reader that came and went between two passes of the cleaner.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    text,
)

from labkit.ports import Log, LogState, Stream

log = logging.getLogger(__name__)
# A consumer makes a group that was lost within its lease, or when it is started again.
MISSING_S = 60.0


def reader_table(metadata: MetaData) -> Table:
    """Define the table `reader` on your metadata, once per database."""
    if "reader" in metadata.tables:
        return metadata.tables["reader"]
    now = func.clock_timestamp()
    return Table(
        "reader",
        metadata,
        Column("stream", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("group_name", Text, primary_key=True),
        Column("needs", Text),
        Column("waits", Boolean, nullable=False, server_default="false"),
        Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("seen_at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("moved_at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("alarm", Text),
    )


_SEEN = text("""
    insert into reader (stream, partition, group_name, needs, waits)
    select :stream, seen.*
    from unnest(cast(:partitions as int[]), cast(:groups as text[]),
                cast(:needs as text[]), cast(:waits as bool[])) as seen
    on conflict (stream, partition, group_name) do update set
        needs = excluded.needs, waits = excluded.waits, seen_at = clock_timestamp(),
        moved_at = case when excluded.waits and reader.needs = excluded.needs
                        then reader.moved_at else clock_timestamp() end
""")
_EVERYWHERE = text("""
    insert into reader (stream, partition, group_name)
    select distinct :stream, p, group_name
    from reader cross join unnest(cast(:all as int[])) as p
    where stream = :stream
    on conflict do nothing
""")
# A reader for which nothing waits has moved just now: see above.
_JUDGE = text("""
    update reader set alarm = case
        when gone.entries > 0 then gone.entries || ' entries were deleted by somebody else'
        when seen_at < clock_timestamp() - make_interval(secs => :missing_s)
            then 'is missing at the broker'
        when moved_at < clock_timestamp() - make_interval(secs => :delivery_s)
            then 'stands still while entries wait'
        end
    from unnest(cast(:all as int[]), cast(:vanished as bigint[])) as gone(partition, entries)
    where stream = :stream and reader.partition = gone.partition
    returning reader.partition, group_name, alarm
""")


class Alarm(NamedTuple):
    """Why a partition is not trimmed, and since when its reader was last seen to move."""

    stream: str
    partition: int
    group: str
    reason: str
    moved_at: datetime


def remember(
    connection: Connection, stream: str, states: Mapping[int, LogState], delivery_s: float
) -> dict[int, dict[str, str | None]]:
    """Store what was seen of a stream's readers, and judge it.

    Args:
        connection: your transaction.
        stream: the stream's name.
        states: what the broker says of each partition, all of them.
        delivery_s: how long a reader may stand still while entries wait, in seconds.

    Returns:
        By partition, each group that was ever seen, with its alarm if there is one.
    """
    seen = [(p, *reader) for p, state in states.items() for reader in state.readers]
    partitions, groups, needs, waits = zip(*seen, strict=True) if seen else ((), (), (), ())
    values = {
        "stream": stream,
        "partitions": list(partitions),
        "groups": list(groups),
        "needs": list(needs),
        "waits": list(waits),
        "all": list(states),
        "vanished": [state.vanished for state in states.values()],
        "missing_s": MISSING_S,
        "delivery_s": delivery_s,
    }
    connection.execute(_SEEN, values)
    connection.execute(_EVERYWHERE, values)
    known: dict[int, dict[str, str | None]] = defaultdict(dict)
    for partition, group, alarm in connection.execute(_JUDGE, values):
        known[partition][group] = alarm
        if alarm:
            log.warning("%s:%d is not trimmed: %s %s", stream, partition, group, alarm)
    return known


def alarms(connection: Connection) -> list[Alarm]:
    """Return what the cleaner's last pass found, for whoever shows it."""
    query = text("""
        select stream, partition, group_name, alarm, moved_at from reader
        where alarm is not null order by stream, partition, group_name
    """)
    return [Alarm(*row) for row in connection.execute(query)]


def forget_reader(connection: Connection, stream_log: Log, stream: Stream, group: str) -> int:
    """Forget a group whose reader will never come back, here and at the broker.

    What is pending for it is lost. A consumer that comes back under its name begins at what is
    left of the stream.

    Args:
        connection: your transaction, in the publishing context's database.
        stream_log: the stream's log.
        stream: the stream.
        group: the consumer's or projection's name.

    Returns:
        How many partitions it was known on; 0 when nobody knows it.
    """
    # The broker first: if your transaction fails, the group is missing, and an alarm says so.
    stream_log.drop_reader(group)
    columns = reader_table(MetaData()).c
    known = delete(columns.stream.table).where(columns.stream == stream.name)
    return connection.execute(known.where(columns.group_name == group)).rowcount
