"""Cleaner: deletes what is older than the retention, and trims the stream behind its readers.

Guarantee: no unpublished or refused row goes, and no entry that a registered reader may still
need (`labkit.readers`). One cleaner works at a time, in short transactions that wait for nobody.
Not guaranteed: that a row goes at the minute it may. And a reader that stands still for longer
than `delivery_s` is reported and waited for: nobody can tell whether it will come back.

Crash windows: none. Each deletion is one statement, and doing it again deletes nothing more.

Source: outbox tables that were never cleaned, and cleaners that ran on every node and deadlocked
with the work (NServiceBus.Persistence.Sql#778).
"""

from __future__ import annotations

import math
import threading

from sqlalchemy import Engine, Table, text

from labkit import db, readers
from labkit.clock import Clock, SystemClock
from labkit.inbox import Inbox
from labkit.lease import Leases
from labkit.loop import run_until
from labkit.outbox import Outbox
from labkit.ports import Log
from labkit.reports import CleanerReport
from labkit.retention import Retention

# One transaction deletes from so many pages: 1 MB, some 1,800 outbox or 8,000 inbox rows, which
# takes some 10 to 50 ms. A pass looks at so many pages at least, which takes a few milliseconds
# when nothing is due; and at so many more that a table is walked several times per retention.
_PAGES_PER_STEP = 128
_PAGES_PER_PASS = 1024
_WALKS_PER_RETENTION = 8
# After a pass that found something, the next one lets others work first.
_BREATH_S = 0.1
# Whose lease ended so long ago will not come back; if it does, it joins anew.
_MEMBER_S = 3600.0


class Cleaner:
    """Deletes what is older than the retention; run as many as you like, one of them works.

    Its lease only saves work: every deletion is right whoever does it, also a cleaner that was
    frozen and wakes, so the broker need not know the epoch.

    Args:
        engine: the service's database, from `labkit.db.connect` with the same lease.
        outbox: whose published rows go; its stream is trimmed.
        inbox: whose old rows go.
        stream_log: the outbox's stream.
        name: the service's name.
        retention: how long to keep what.
        owner: this worker's name; unique.
        lease_s: see `labkit.lease`.
        pause_s: seconds between two passes that found nothing.
        clock: for the pace of renewals; ages are measured on PostgreSQL's and the broker's clock.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        inbox: Inbox,
        stream_log: Log,
        *,
        name: str,
        retention: Retention,
        owner: str | None = None,
        lease_s: float = db.DEFAULT_LEASE_S,
        pause_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.retention = retention
        self.leases = Leases(
            engine,
            _NoFence(),
            kind="cleaner",
            name=name,
            partitions=1,
            owner=owner,
            lease_s=lease_s,
            clock=clock,
        )
        self._engine = engine
        self._stream = outbox.stream
        self._log = stream_log
        self._pause_s = pause_s
        self._clock = clock or SystemClock()
        self._published = _Walk(engine, outbox.table, "published_at", retention.published_s)
        self._handled = _Walk(engine, inbox.table, "handled_at", retention.window_s)

    def __repr__(self) -> str:
        """Say what it cleans."""
        return f"cleaner of {self.name}"

    def run_once(self) -> CleanerReport:
        """Do one pass, in short transactions.

        Returns:
            What was deleted; nothing when another cleaner has the lease.

        Raises:
            BrokerUnavailableError: when the broker does not answer; rows are deleted by then.
            sqlalchemy.exc.DBAPIError: when the database does not answer; nothing is lost.
        """
        self.leases.tick()
        if not self.leases.owned:
            return CleanerReport()
        with self._engine.begin() as connection:
            members = connection.execute(_MEMBERS, {"member_s": _MEMBER_S}).rowcount
        # Rows before entries: what has a row must have its entry.
        return (
            CleanerReport(
                outbox_rows=self._published.step(self._pause_s),
                inbox_rows=self._handled.step(self._pause_s),
                members=members,
            )
            + self._trim()
        )

    def run(self, stop: threading.Event) -> CleanerReport:
        """Clean until told to stop.

        Args:
            stop: set it to end after the pass in hand.

        Returns:
            The sum of all passes.
        """
        total, next_s = CleanerReport(), float("-inf")

        def work() -> bool:
            nonlocal total, next_s
            # Between passes too: else the lease ends, and all cleaners take turns at each pass.
            self.leases.tick()
            if self._clock.monotonic_s() < next_s:
                return False
            report = self.run_once()
            total += report
            next_s = self._clock.monotonic_s() + (_BREATH_S if report else self._pause_s)
            return False

        def wait(seconds: float) -> None:
            stop.wait(seconds)

        rest_s = min(self._pause_s, self.leases.lease_s / 4)
        try:
            run_until(stop, work, wait, poll_s=(min(_BREATH_S, rest_s), rest_s))
        finally:
            self.leases.release()
        return total

    def _trim(self) -> CleanerReport:
        partitions = range(self._stream.partitions)
        states = {partition: self._log.state(partition) for partition in partitions}
        with self._engine.begin() as connection:
            known = readers.remember(
                connection, self._stream.name, states, self.retention.delivery_s
            )
        trimmed = alarms = 0
        for partition, groups in known.items():
            alarmed = sum(alarm is not None for alarm in groups.values())
            alarms += alarmed
            if not alarmed:
                kept_s = self.retention.stream_s
                trimmed += self._log.trim(partition, groups=groups, kept_s=kept_s)
        return CleanerReport(entries=trimmed, alarms=alarms)


_MEMBERS = text("""
    delete from member where until < clock_timestamp() - make_interval(secs => :member_s)
""")


class _Walk:
    """Deletes a table's old rows page by page, and remembers where it is."""

    # Why not an index on the time: it would cost every insert, and the old rows of a BRIN block
    # count for ever, so that after one retention it would find everything. Why not from the
    # lowest `seq`: each pass would step over the dead index entries of the last one, and over
    # every row that cannot be published.

    def __init__(self, engine: Engine, table: Table, column: str, kept_s: float) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._kept_s = kept_s
        self._next = 0
        quoted = db.quoted_in_text(table)
        self._count = text(f"""
            select pg_relation_size('{quoted.replace("'", "''")}')
                   / current_setting('block_size')::int
        """)
        # "skip locked": whoever works on a row comes first, and nobody waits in a circle.
        self._delete = text(f"""
            delete from {quoted} where ctid = any(array(
                select ctid from {quoted}
                where ctid >= cast(:first as tid) and ctid < cast(:behind as tid)
                  and {column} < clock_timestamp() - make_interval(secs => :kept_s)
                for update skip locked))
        """)

    def step(self, pause_s: float) -> int:
        """Look at a part of the table; return how many rows were deleted."""
        deleted = 0
        with self._engine.connect() as connection:
            pages: int = connection.execute(self._count).scalar_one()
            share = math.ceil(pages * pause_s * _WALKS_PER_RETENTION / self._kept_s)
            for _ in range(0, min(pages, max(share, _PAGES_PER_PASS)), _PAGES_PER_STEP):
                first = self._next if self._next < pages else 0
                self._next = first + _PAGES_PER_STEP
                place = {"first": f"({first},0)", "behind": f"({self._next},0)"}
                values = place | {"kept_s": self._kept_s}
                deleted += connection.execute(self._delete, values).rowcount
        return deleted


class _NoFence:
    """The cleaner's lease has no side at the broker."""

    def epoch(self, partition: int) -> int:  # noqa: ARG002
        return 0

    def raise_epoch(self, partition: int, epoch: int) -> None:
        """Let everybody in."""
