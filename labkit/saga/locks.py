"""Semantic locks: while one saga is at work on something, another that wants it is refused.

The problem: a saga's steps commit one by one, so between two of them anybody sees, and may change,
what is half done. A row lock cannot last that long: it ends with its transaction. So the lock is
a row itself, taken in the transaction of the first step and freed in that of the last.

    locks.take(session, "ORD-1", saga_id)      # refused while another saga holds it
    at_end=lambda session, state: locks.free(session, "ORD-1", state.id)

It protects whoever asks for it, between two steps of the holder, from:
- the lost update: a cancellation that the pending order's next step would write over is refused;
- the dirty read: nobody decides on what may yet be made good.

Guarantee: a target has one holder. Of two transactions at once the second waits until the first
has ended; then it is refused, or has it when the first rolled back.
Not guaranteed: anything to who does not ask, such as a plain UPDATE or a report. No queue: who is
refused asks again, says no, or waits for an event. No expiry: a saga that is STUCK holds what it
holds until a person ends it. Where an update can be commutative (`available = available - 1 where
available >= 1`), that is enough and needs no lock.

Crash windows: none; the row commits or rolls back with its step.

Pattern: Richardson, *Microservices Patterns*, ch. 4.3 ("Countermeasures for handling the lack of
isolation"): "Semantic lock". Why refuse, of his two ways: waiting needs a detector of deadlocks.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, DateTime, MetaData, Table, Text, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit import limits, unit_of_work
from labkit.clock import SystemClock
from labkit.errors import ConfigurationError, LockedError


def lock_table(metadata: MetaData, name: str = "semantic_locks") -> Table:
    """Define the table on your metadata: one row for each target that is held."""
    limits.table_name(name)
    return Table(
        name,
        metadata,
        Column("target", Text, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("taken_at", DateTime(timezone=True), nullable=False),
    )


_PASSER_BY = "-"


class SemanticLocks:
    """Who is at work on what.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "semantic_locks") -> None:
        self.table = lock_table(metadata, table)

    def take(self, session: Session | Connection, target: str, holder: str) -> None:
        """Hold a target until `free`; its holder may take it again.

        Take several always in the same order, or PostgreSQL ends one of two that cross.

        Args:
            session: your transaction, never committed here.
            target: what, such as an order's id.
            holder: who, such as a saga's id.

        Raises:
            LockedError: when another holds it; says who, and since when.
            ConfigurationError: when target or holder is empty.
        """
        if not (target and holder):
            raise ConfigurationError(f"a lock needs target and holder, not {target!r}, {holder!r}")
        now = unit_of_work.carried(session, "labkit_clock", SystemClock()).now()
        wanted = insert(self.table).values(target=target, holder=holder, taken_at=now)
        # Why not DO NOTHING and a look: between the two the row may be freed.
        found = session.execute(
            wanted.on_conflict_do_update(
                index_elements=["target"], set_={"holder": self.table.c.holder}
            ).returning(self.table.c.holder, self.table.c.taken_at)
        ).one()
        if found.holder != holder:
            raise LockedError(target, found.holder, found.taken_at)

    def free(self, session: Session | Connection, target: str, holder: str) -> bool:
        """Let go of a target; return whether this holder had it.

        What another holds stays held, so it may come late or twice.
        """
        held = (self.table.c.target == target) & (self.table.c.holder == holder)
        freed = session.execute(delete(self.table).where(held).returning(self.table.c.target))
        return freed.first() is not None

    def refuse_if_held(self, session: Session | Connection, target: str) -> None:
        """Refuse when somebody holds a target, or is about to; nobody holds it afterwards.

        Raises:
            LockedError: says who, and since when.
        """
        # Why not a look: whoever takes it in a transaction that has not ended is not seen yet.
        self.take(session, target, _PASSER_BY)
        self.free(session, target, _PASSER_BY)

    def holder_of(self, session: Session | Connection, target: str) -> str | None:
        """Return who holds a target, None when nobody does."""
        query = select(self.table.c.holder).where(self.table.c.target == target)
        return session.execute(query).scalar_one_or_none()
