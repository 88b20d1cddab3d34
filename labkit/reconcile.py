"""Reconcile: find what is missing in the stream, and let the relay publish it again in order.

The problem: the relay notices a loss at the end of a stream by its head (`labkit.relay`). A loss
at the beginning or in the middle (a stranger's XTRIM or XDEL) leaves the head as it is.

How: the retained rows of a partition are compared with its entries. From the first missing
batch on, everything must come again, or later events of a key would be handled before the lost
ones. So the head is lowered to just before it, and the partition's owner does what it always does
when the broker's head is below its own: unmark, and publish in `seq` order before anything newer.
A batch in flight meanwhile meets a head that it does not expect, and is published in its turn.

Guarantee: every retained row is in the stream afterwards, rows of a key in commit order behind
the gap; the inbox absorbs the repeats. Entries that nobody was given yet are taken out, so that a
reader that has not come to the gap sees no later event before the lost one.
Not guaranteed: order for a reader that was already past the gap, or for entries that two groups
read at different speed; and what is older than `Retention.resend_s` stays lost (counted).

Crash windows: none. Until the head is lowered nothing has changed; from then on the relay's own
repair goes on after any crash.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, text

from labkit import db
from labkit.errors import InvalidMessageError
from labkit.outbox import Outbox
from labkit.ports import Entry, Log
from labkit.reports import ReconcileReport
from labkit.retention import Retention
from labkit.wire import decode_envelope

log = logging.getLogger(__name__)
_PAGE = 1000


class _Row(NamedTuple):
    """A published row; `lasts` says that it will still be there when the relay comes to it."""

    message_id: str
    batch: int
    published_at: datetime
    sendable: bool
    lasts: bool


def reconcile(
    engine: Engine,
    outbox: Outbox,
    stream_log: Log,
    retention: Retention,
    *,
    since: datetime | None = None,
) -> ReconcileReport:
    """Compare the outbox with the stream; what is missing is published again by the relay.

    A running relay begins within a quarter of its lease. Compared is what `published_s` keeps: a
    million rows take some seconds, so give it an engine with time: `db.connect(url, lease_s=600)`.

    Args:
        engine: the outbox's database.
        outbox: whose rows.
        stream_log: the outbox's stream.
        retention: how long rows are kept, and how old they may be to be published again.
        since: publish again everything published at or after this time, missing or not; with
            time zone.

    Returns:
        How many rows are missing, will be published again, and are missing but too old.

    Raises:
        BrokerUnavailableError: when the broker did not answer; partitions before it are done.
    """
    report = ReconcileReport()
    for partition in range(outbox.stream.partitions):
        # Rows first: what is published between the two looks has an entry and no row yet.
        rows = _retained(engine, outbox, retention, partition)
        report += _repair(stream_log, partition, rows, since)
    return report


def _retained(engine: Engine, outbox: Outbox, retention: Retention, partition: int) -> list[_Row]:
    # `lasts`: half of the retention is left for the relay to come, before the cleaner does.
    query = text(f"""
        select message_id, batch, published_at,
               created_at > clock_timestamp() - make_interval(secs => :resend_s),
               created_at > clock_timestamp() - make_interval(secs => :published_s) / 2
        from {db.quoted_in_text(outbox.table)}
        where partition = :partition and batch is not null
          and published_at > clock_timestamp() - make_interval(secs => :published_s)
        order by batch, seq
    """)
    ages = {"resend_s": retention.resend_s, "published_s": retention.published_s}
    with engine.connect() as connection:
        return [_Row(*row) for row in connection.execute(query, ages | {"partition": partition})]


def _repair(
    stream_log: Log, partition: int, rows: list[_Row], since: datetime | None
) -> ReconcileReport:
    there = _positions(stream_log, partition)
    missing = [row for row in rows if row.message_id not in there]
    wanted = [row for row in rows if row.published_at >= since] if since else missing
    first = min((row.batch for row in wanted if row.sendable), default=None)
    again = [row for row in rows if first is not None and row.batch >= first and row.sendable]
    # An entry is taken out only when its row is sure to bring it back.
    positions = [at for row in again if row.lasts for at in there.get(row.message_id, [])]
    head = None if first is None else first - 1
    stream_log.repair(partition, head=head, positions=positions)
    too_old = sum(not row.sendable for row in missing)
    if missing:
        log.warning(
            "partition %d: %d rows are missing, %d of them too old to be published again",
            partition,
            len(missing),
            too_old,
        )
    return ReconcileReport(missing=len(missing), again=len(again), too_old=too_old)


def _positions(stream_log: Log, partition: int) -> dict[str, list[str]]:
    """Return where each message id is in a partition."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in _entries(stream_log, partition):
        try:
            found[decode_envelope(entry.body or b"").message_id].append(entry.position)
        except InvalidMessageError:
            continue  # a stranger's entry
    return found


def _entries(stream_log: Log, partition: int) -> Iterator[Entry]:
    after = "0"
    while page := stream_log.entries(partition, after=after, count=_PAGE):
        yield from page
        after = page[-1].position
