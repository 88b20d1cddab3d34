"""Aggregator: many small messages in, one result out, complete or at its deadline.

The problem: three warehouses answer one question, in any order, more than once, and one of them
perhaps never. Others want one message that says what there is.

Guarantee: a group has exactly one result. It comes with the part that fulfils the completeness
condition, or from `expire` after the deadline with what is there by then. A part that comes
twice counts once, with its first content, and what comes after the result is told as late. Two
parts at once are taken in one after the other. The result does not depend on their order.
Not guaranteed: that a part which comes between the deadline and `expire` is too late; the row
decides, not the clock. Once `forget` has deleted a group, a straggler would begin it anew: keep
groups longer than any part may take.

Crash windows: none of its own; part, result and what you send about it are your transaction.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Aggregator" (correlation,
completeness condition, aggregation algorithm); Khononov, *Learning Domain-Driven Design*, ch. 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    delete,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from labkit import limits
from labkit.translation.deadlines import BATCH, now_of

OPEN, COMPLETE, INCOMPLETE = "open", "complete", "incomplete"


class Outcome(StrEnum):
    """What became of a part."""

    WAITING = "waiting"
    COMPLETED = "completed"
    DUPLICATE = "duplicate"
    LATE = "late"


class Aggregate(NamedTuple):
    """A group's only result: what `combine` made of its parts, sorted by their names."""

    group: str
    complete: bool
    parts: dict[str, Any]
    result: Any


class Added(NamedTuple):
    """What became of a part, and the group's result when this part completed it."""

    outcome: Outcome
    aggregate: Aggregate | None = None


class Aggregator:
    """Collects the parts of groups.

    Args:
        metadata: where to define the two tables.
        table: the groups' table; the parts are in `<table>_parts`.
        complete: whether these parts, by name, are all that is needed; a pure function.
        combine: makes the result of the parts, by name; a pure function that can live with some
            of them missing.
        deadline_s: how long a group waits from its beginning, in seconds.

    Raises:
        ConfigurationError: when the table's name or the deadline makes no sense.
    """

    def __init__(
        self,
        metadata: MetaData,
        table: str = "aggregates",
        *,
        complete: Callable[[Mapping[str, Any]], bool],
        combine: Callable[[Mapping[str, Any]], Any],
        deadline_s: float,
    ) -> None:
        limits.number("deadline_s", deadline_s, 0.001)
        self.groups = _groups_table(metadata, table)
        self.parts = _parts_table(metadata, self.groups)
        self._is_complete = complete
        self._combine = combine
        self._deadline = timedelta(seconds=deadline_s)

    def begin(self, session: Session | Connection, group: str) -> None:
        """Let a group's time run, in the transaction of the question.

        Without it, a group begins with its first part, and one that never gets any has no
        result. Beginning again changes nothing.

        Args:
            session: your transaction; joins it, never commits.
            group: what the parts will have in common.
        """
        due_at = now_of(session) + self._deadline
        new = insert(self.groups).values(group_id=group, state=OPEN, due_at=due_at)
        session.execute(new.on_conflict_do_nothing())

    def add(self, session: Session | Connection, group: str, part: str, content: Any) -> Added:
        """Take a part in.

        Args:
            session: your transaction; joins it, never commits. Send the result in it.
            group: what the parts have in common, such as the question's id.
            part: which of the group's parts this is, such as the warehouse.
            content: any JSON.

        Returns:
            The outcome, with the result when this part completed the group.
        """
        self.begin(session, group)
        # One after the other: else two last parts at once would each see the other's gap.
        lock = select(self.groups.c.state).where(self.groups.c.group_id == group)
        state = session.execute(lock.with_for_update()).scalar_one()
        parts = self._parts_of(session, group)
        if part in parts:
            return Added(Outcome.DUPLICATE)
        if state != OPEN:
            return Added(Outcome.LATE)
        row = {"group_id": group, "part": part, "content": content}
        # As it was stored: a tuple is a list there, and would differ for the last part alone.
        kept = session.execute(insert(self.parts).values(row).returning(self.parts.c.content))
        parts = dict(sorted((parts | {part: kept.scalar_one()}).items()))
        if not self._is_complete(parts):
            return Added(Outcome.WAITING)
        return Added(Outcome.COMPLETED, self._close(session, group, parts, COMPLETE))

    def expire(
        self, session: Session | Connection, now: datetime, limit: int = BATCH
    ) -> list[Aggregate]:
        """Close the groups whose deadline has come, as incomplete.

        Args:
            session: your transaction; joins it, never commits. Send the results in it.
            now: the time, with time zone.
            limit: so many groups at most.

        Returns:
            One result for each group; none for those that another transaction works on.
        """
        columns = self.groups.c
        due = select(columns.group_id).where(columns.state == OPEN, columns.due_at <= now)
        first = due.order_by(columns.due_at, columns.group_id).limit(limit)
        groups = session.execute(first.with_for_update(skip_locked=True)).scalars().all()
        return [
            self._close(session, group, self._parts_of(session, group), INCOMPLETE)
            for group in groups
        ]

    def forget(self, session: Session | Connection, before: datetime) -> int:
        """Delete the groups that have their result and whose deadline was before a time.

        Args:
            session: your transaction; joins it, never commits.
            before: with time zone; long enough ago that no part can still be on its way.

        Returns:
            How many there were.
        """
        columns = self.groups.c
        old = delete(self.groups).where(columns.state != OPEN, columns.due_at < before)
        return len(session.execute(old.returning(columns.group_id)).all())

    def _close(
        self, session: Session | Connection, group: str, parts: dict[str, Any], state: str
    ) -> Aggregate:
        mine = update(self.groups).where(self.groups.c.group_id == group)
        session.execute(mine.values(state=state))
        return Aggregate(group, state == COMPLETE, parts, self._combine(parts))

    def _parts_of(self, session: Session | Connection, group: str) -> dict[str, Any]:
        columns = self.parts.c
        mine = select(columns.part, columns.content).where(columns.group_id == group)
        # Why not ORDER BY: how PostgreSQL sorts texts depends on the database's locale.
        return dict(sorted((row.part, row.content) for row in session.execute(mine)))


def _groups_table(metadata: MetaData, name: str) -> Table:
    limits.table_name(name)
    table = Table(
        name,
        metadata,
        Column("group_id", Text, primary_key=True),
        Column("state", Text, nullable=False),
        Column("due_at", DateTime(timezone=True), nullable=False),
    )
    Index(f"{name}_due", table.c.due_at, postgresql_where=table.c.state == OPEN)
    return table


def _parts_table(metadata: MetaData, groups: Table) -> Table:
    limits.table_name(f"{groups.name}_parts")
    group = ForeignKey(groups.c.group_id, ondelete="CASCADE")
    return Table(
        f"{groups.name}_parts",
        metadata,
        Column("group_id", Text, group, primary_key=True),
        Column("part", Text, primary_key=True),
        Column("content", JSONB, nullable=False),
    )
