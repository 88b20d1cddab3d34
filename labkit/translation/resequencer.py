"""Resequencer: numbered items of a key come in any order and go out in theirs.

The problem: a source without order per key, such as a fleet of senders or a queue with retries,
numbers its messages and leaves the order to us. (labkit's own streams keep it by themselves.)

Guarantee: the items of a key are released by ascending number, each at most once. One that is
ahead is kept in a table until the gap before it closes. A gap that stays open for `gap_s` is
given up by `give_up`: the missing numbers are told, what waited behind them is released, and an
item of theirs that comes later is told as late and not released, since its turn is over: apply
it in a way that needs no order, or let it be a dead letter.
Not guaranteed: that nothing is lost; giving up says which numbers were. Nor a bound on how much
waits: a key whose gap is never given up keeps all that comes. A key's place in its sequence stays
until you `forget` it: only its source knows whether there is more to come.

Crash windows: none of its own; the place in the sequence, the items kept and your effect are
your transaction.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Resequencer".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Index,
    MetaData,
    Table,
    Text,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, JSONB, Range, insert
from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import PermanentError
from labkit.translation.deadlines import BATCH, now_of

MAX_NUMBER = 2**62


class Place(StrEnum):
    """Where an item stands in its sequence."""

    NEXT = "next"
    AHEAD = "ahead"
    DUPLICATE = "duplicate"
    LATE = "late"


class Sequenced(NamedTuple):
    """Where an item stands, and the items that go out now, in their order."""

    place: Place
    released: list[Any]


class GivenUp(NamedTuple):
    """A gap that was given up: the numbers that are missed, and what had waited behind them."""

    key: str
    missing: range
    released: list[Any]


class Resequencer:
    """Puts the items of each key back into their order.

    Args:
        metadata: where to define the two tables.
        table: the keys' table; the items that wait are in `<table>_items`.
        gap_s: how long a gap may stay open, in seconds.
        first: the number that each key begins with.

    Raises:
        ConfigurationError: when the table's name or a number makes no sense.
    """

    def __init__(
        self, metadata: MetaData, table: str = "sequences", *, gap_s: float, first: int = 1
    ) -> None:
        limits.number("gap_s", gap_s, 0.001)
        limits.number("first", first, 0, MAX_NUMBER)
        self.keys = _keys_table(metadata, table)
        self.items = _items_table(metadata, f"{table}_items")
        self._gap = timedelta(seconds=gap_s)
        self._first = first

    def accept(self, session: Session | Connection, key: str, number: int, item: Any) -> Sequenced:
        """Take an item in, and return those whose turn has come.

        Args:
            session: your transaction; joins it, never commits. Handle what is released in it.
            key: whose sequence it belongs to.
            number: its place, counted without gaps.
            item: any JSON.

        Raises:
            PermanentError: when this cannot be a number of the sequence.
        """
        if type(number) is not int or not self._first <= number <= MAX_NUMBER:
            raise PermanentError(f"{key}: {number!r:.40} is no number from {self._first}")
        state = self._locked(session, key)
        if number < state.next_number:
            return Sequenced(_behind(number, state.given_up), [])
        if number > state.next_number:
            return Sequenced(self._keep(session, state, number, item), [])
        behind = self._run(session, key, number + 1)
        self._go_on(session, key, number + 1 + len(behind), state.given_up)
        return Sequenced(Place.NEXT, [item, *behind])

    def give_up(
        self, session: Session | Connection, now: datetime, limit: int = BATCH
    ) -> list[GivenUp]:
        """Give up the gaps whose time is over: one gap of each key, the oldest first.

        A gap behind it has `gap_s` of its own from now on.

        Args:
            session: your transaction; joins it, never commits. Handle what is released in it.
            now: the time, with time zone.
            limit: so many keys at most.

        Returns:
            What was given up; nothing of keys that another transaction works on.
        """
        due = select(self.keys).where(self.keys.c.due_at <= now)
        first = due.order_by(self.keys.c.due_at, self.keys.c.key).limit(limit)
        states = session.execute(first.with_for_update(skip_locked=True)).all()
        return [self._give_up(session, state) for state in states]

    def forget(self, session: Session | Connection, keys: Collection[str]) -> list[str]:
        """Delete keys whose sequence has ended; one that still waits for a gap stays.

        An item that comes all the same begins its key anew: do it when the source sends no more,
        nor sends again.

        Args:
            session: your transaction; joins it, never commits.
            keys: which; unknown ones are no trouble.

        Returns:
            Those that are gone, sorted.
        """
        columns = self.keys.c
        ended = select(columns.key).where(columns.key.in_(sorted(keys)), columns.due_at.is_(None))
        # In one order, as everybody takes several keys.
        locked = ended.order_by(columns.key).with_for_update()
        gone = delete(self.keys).where(columns.key.in_(locked)).returning(columns.key)
        return sorted(session.execute(gone).scalars())

    def _give_up(self, session: Session | Connection, state: Any) -> GivenUp:
        waiting = select(func.min(self.items.c.number)).where(self.items.c.key == state.key)
        found = session.execute(waiting).scalar_one()
        released = self._run(session, state.key, found)
        given_up = [*state.given_up, Range(state.next_number, found)]
        self._go_on(session, state.key, found + len(released), given_up)
        return GivenUp(state.key, range(state.next_number, found), released)

    def _locked(self, session: Session | Connection, key: str) -> Any:
        """Return a key's row, new or not; its items are taken in one after the other."""
        new = insert(self.keys).values(key=key, next_number=self._first, given_up=[])
        session.execute(new.on_conflict_do_nothing())
        mine = select(self.keys).where(self.keys.c.key == key)
        return session.execute(mine.with_for_update()).one()

    def _keep(self, session: Session | Connection, state: Any, number: int, item: Any) -> Place:
        new = insert(self.items).values(key=state.key, number=number, item=item)
        kept = new.on_conflict_do_nothing().returning(self.items.c.number)
        if session.execute(kept).scalar() is None:
            return Place.DUPLICATE
        if state.due_at is None:
            due_at = now_of(session) + self._gap
            mine = update(self.keys).where(self.keys.c.key == state.key)
            session.execute(mine.values(due_at=due_at))
        return Place.AHEAD

    def _run(self, session: Session | Connection, key: str, first: int) -> list[Any]:
        """Return the items that are there from a number on without a gap; none is below it."""
        columns = self.items.c
        # In a run, number and row count rise together, so their difference is the first one's.
        base = columns.number - func.row_number().over(order_by=columns.number)
        waiting = select(columns.number, columns.item, base.label("base"))
        numbered = waiting.where(columns.key == key).subquery()
        run = select(numbered.c.item).where(numbered.c.base == first - 1)
        return list(session.execute(run.order_by(numbered.c.number)).scalars())

    def _go_on(
        self, session: Session | Connection, key: str, next_number: int, given_up: Iterable[Any]
    ) -> None:
        """Move to the next number; what still waits is behind a gap that opens now."""
        columns = self.items.c
        mine = columns.key == key
        session.execute(delete(self.items).where(mine, columns.number < next_number))
        waits = session.execute(select(func.min(columns.number)).where(mine)).scalar()
        due_at = None if waits is None else now_of(session) + self._gap
        moved = {"next_number": next_number, "due_at": due_at, "given_up": list(given_up)}
        session.execute(update(self.keys).where(self.keys.c.key == key).values(moved))


def _behind(number: int, given_up: Iterable[Range[int]]) -> Place:
    """Say why a number's turn is over: it was released, or given up."""
    return Place.LATE if any(number in missing for missing in given_up) else Place.DUPLICATE


def _keys_table(metadata: MetaData, name: str) -> Table:
    limits.table_name(name)
    table = Table(
        name,
        metadata,
        Column("key", Text, primary_key=True),
        Column("next_number", BigInteger, nullable=False),
        Column("given_up", INT8MULTIRANGE, nullable=False),
        Column("due_at", DateTime(timezone=True)),
    )
    Index(f"{name}_due", table.c.due_at, postgresql_where=table.c.due_at.is_not(None))
    return table


def _items_table(metadata: MetaData, name: str) -> Table:
    limits.table_name(name)
    return Table(
        name,
        metadata,
        Column("key", Text, primary_key=True),
        Column("number", BigInteger, primary_key=True),
        Column("item", JSONB, nullable=False),
    )
