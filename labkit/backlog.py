"""Backlog: the relay's statements on the outbox table, each of them a transaction of its own.

Reading needs no permission. Every statement that changes a row carries the owner's epoch and
locks the lease's row first, so an owner that was frozen, and wakes up, changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, TextClause, text

from labkit import db
from labkit.errors import LeaseLostError
from labkit.lease import Lease
from labkit.outbox import Outbox

# How many bytes of one partition are claimed at once, so that a batch of large messages is still
# sent within the broker's time limit; and how many rows one statement unmarks, so that it ends
# within PostgreSQL's.
CLAIM_BYTES = 8_388_608
UNMARK_ROWS = 5_000


class Claim(NamedTuple):
    """Unpublished rows of one partition in `seq` order, as two columns."""

    seqs: list[int]
    bodies: list[str]


class Backlog:
    """What is left to publish, and the marks of what was published.

    Args:
        engine: the outbox's database.
        outbox: whose rows.
        lease_id: kind and name of the relay's leases.
    """

    def __init__(self, engine: Engine, outbox: Outbox, lease_id: dict[str, str]) -> None:
        # Why autocommit: each statement is a transaction, without BEGIN and COMMIT around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lease_id = lease_id
        self._sql = _Statements(db.quoted_in_text(outbox.table))

    def claim(self, partitions: Sequence[int], batch: int) -> dict[int, Claim]:
        """Return the next rows of each partition; a key waits behind its refused row.

        Args:
            partitions: where to look.
            batch: how many rows per partition, at most.
        """
        claimed: dict[int, Claim] = defaultdict(lambda: Claim([], []))
        parameters = {"partitions": list(partitions), "batch": batch, "bytes": CLAIM_BYTES}
        with self._engine.connect() as connection:
            for partition, seq, body in connection.execute(self._sql.claim, parameters):
                claim = claimed[partition]
                claim.seqs.append(seq)
                claim.bodies.append(body)
        return claimed

    def plan(self, partitions: Sequence[int]) -> str:
        """Return how PostgreSQL would claim, as its EXPLAIN says it."""
        parameters = {"partitions": list(partitions), "batch": 1000, "bytes": CLAIM_BYTES}
        with self._engine.connect() as connection:
            lines = connection.execute(text(f"explain {self._sql.claim.text}"), parameters)
            return "\n".join(lines.scalars())

    def acked(self, lease: Lease) -> int:
        """Return the last batch that was marked.

        Raises:
            LeaseLostError: when another epoch is in force; so do all methods below.
        """
        acked: int = self._change(self._sql.acked, lease)
        return acked

    def mark(self, lease: Lease, batch: int, seqs: Sequence[int]) -> None:
        """Mark rows as published, and the batch as the last one."""
        self._change(self._sql.mark, lease, batch=batch, seqs=seqs)

    def unmark(self, lease: Lease, head: int, acked: int, resend_s: float) -> int:
        """Take back the marks of what was published after batch `head`, up to batch `acked`.

        Args:
            lease: ours.
            head: the last batch that the broker still has.
            acked: the last batch that was marked.
            resend_s: how old a row may be, in seconds.

        Returns:
            How many rows, up to `UNMARK_ROWS`; call again until there are none.
        """
        lost = {"head": head, "acked": acked, "resend_s": resend_s}
        unmarked: int = self._change(self._sql.unmark, lease, limit=UNMARK_ROWS, **lost)
        return unmarked

    def too_old(self, lease: Lease, head: int, acked: int) -> int:
        """Return how many marks are left in that range after `unmark`."""
        left: int = self._change(self._sql.too_old, lease, head=head, acked=acked)
        return left

    def refuse(self, lease: Lease, seq: int, reason: str) -> None:
        """Set a row aside, and its key with it, until somebody clears `refused`."""
        self._change(self._sql.refuse, lease, seq=seq, reason=reason)

    def _change(self, statement: TextClause, lease: Lease, **values: Any) -> Any:
        parameters = self._lease_id | {"partition": lease.partition, "epoch": lease.epoch} | values
        with self._engine.connect() as connection:
            found = connection.execute(statement, parameters).one_or_none()
        if found is None:
            raise LeaseLostError(lease.partition)
        return found[0]


class _Statements:
    """The SQL for one outbox table. A lost lease shows as a statement that returns no row."""

    def __init__(self, table: str) -> None:
        ours = "kind = :kind and name = :name and lease.partition = :partition and epoch = :epoch"
        fence = f"with fence as (select acked from lease where {ours} for update)"
        # A lateral subquery per partition reads the partial index in order and stops at the
        # batch, however long the backlog is. Why not "partition = p": then the primary key gives
        # the order as well, and the planner may walk along it through everything published.
        self.claim = text(f"""
            select p, seq, body
            from unnest(cast(:partitions as int[])) as p
            cross join lateral (
                select seq, body, sum(octet_length(body)) over (order by partition, seq) as bytes
                from (select partition, seq, body from {table} as row
                      where (partition, seq) >= (p, 0) and (partition, seq) < (p + 1, 0)
                        and published_at is null and refused is null
                        and not exists (select from {table} as earlier
                                        where earlier.refused is not null
                                          and earlier.key = row.key and earlier.seq < row.seq)
                      order by partition, seq limit :batch) as head
            ) as claimed
            where bytes - octet_length(body) < :bytes
            order by p, seq
        """)
        self.acked = text(f"select acked from lease where {ours}")
        # "acked < :batch": a mark that was held up on its way must not take a later one back.
        self.mark = text(f"""
            with fence as (
                update lease set acked = :batch where {ours} and acked < :batch returning 1
            ), marked as (
                update {table} set published_at = clock_timestamp(), batch = :batch
                from fence where seq = any(cast(:seqs as bigint[]))
            )
            select 1 from fence
        """)
        lost = "partition = :partition and batch > :head and batch <= :acked"
        # The age counts from when the row was stored: a row that is published again gets a new
        # `published_at`, and the inbox remembers the first time.
        self.unmark = text(f"""
            {fence}, unmarked as (
                update {table} set published_at = null, batch = null
                from fence
                where seq in (select seq from {table} where {lost}
                              and created_at > clock_timestamp() - make_interval(secs => :resend_s)
                              limit :limit)
                returning 1
            )
            select (select count(*) from unmarked) from fence
        """)
        self.too_old = text(f"""
            select (select count(*) from {table} where {lost}) from lease where {ours}
        """)
        self.refuse = text(f"""
            {fence}, refused as (
                update {table} set refused = :reason
                from fence where seq = :seq and published_at is null
            )
            select 1 from fence
        """)
