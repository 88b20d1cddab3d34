"""Dead letters: what an operator sees of parked messages, and the two ways out.

    redrive   it is tried again, in its place: before anything later of its key
    discard   it will never be handled; what waited behind it goes on

The problem: a parked message stops its key until a person decides. Deleting its row by hand loses
it without a trace, and the next redelivery would handle it after all, out of order.

How: `redrive` only sets a flag; the partition's owner runs the message. `discard` moves the whole
row to a table of its own with who, when and why, and notes the id in the inbox, in one
transaction: to its consumer, a message that was discarded is one that was handled.

Guarantee: both are safe while workers run. A dead letter is redriven, discarded or still there,
never two of these: they act on a row only while it is parked, and its owner takes it out of that
state before it runs. One id with two contents is two dead letters, told apart by position.
Not guaranteed: that what is older than the inbox remembers is new, so it is not redriven. Bytes
that are no message have no id of their own, and no row in the inbox could keep them out: delivered
again, they are dead letters again; so is another content of an id that was handled.

Pattern: Hohpe and Woolf, "Dead Letter Channel", "Invalid Message Channel".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Column, Connection, Identity, MetaData, Table, delete, func, insert, text
from sqlalchemy.types import BigInteger, DateTime, Integer, LargeBinary, Text

from labkit import db, limits
from labkit.errors import InvalidMessageError, RejectedError
from labkit.held import Held
from labkit.inbox import Inbox
from labkit.wire import Envelope, decode_envelope

_PAGE = 100


def discarded_table(metadata: MetaData, name: str = "discarded") -> Table:
    """Define the table on your metadata: one row for each dead letter that was given up."""
    return Table(
        name,
        metadata,
        Column("seq", BigInteger, Identity(always=True), primary_key=True),
        Column("position", BigInteger, nullable=False),
        Column("consumer", Text, nullable=False),
        Column("stream", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("key", Text),
        Column("body", LargeBinary, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("reason", Text),
        Column("held_at", DateTime(timezone=True)),
        Column("discarded_at", DateTime(timezone=True), server_default=func.clock_timestamp()),
        Column("discarded_by", Text, nullable=False),
        Column("why", Text, nullable=False),
    )


class DeadLetter(NamedTuple):
    """A parked message.

    `blocks` is the key that waits for it, None when nobody does; `behind` counts those that wait.
    `redrive` says that it was asked for again and its owner has not begun. `held_s` is its age.
    """

    position: int
    consumer: str
    stream: str
    partition: int
    message_id: str
    blocks: str | None
    body: bytes
    attempts: int
    reason: str
    redrive: bool
    held_at: datetime
    held_s: float
    behind: int

    @property
    def envelope(self) -> Envelope | None:
        """Return the message up to its payload, None when the bytes are no message."""
        return _envelope(self.body)


@dataclass(frozen=True)
class Wanted:
    """Which dead letters; what is None does not matter.

    Args:
        consumer: whose.
        message_id: of the message.
        key: of the message, whether or not its key waits for it.
        event_type: of the message.
        reason: a part of the reason, in upper or lower case.
        held_for_s: how long it has been held at least, in seconds.
    """

    consumer: str | None = None
    message_id: str | None = None
    key: str | None = None
    event_type: str | None = None
    reason: str | None = None
    held_for_s: float = 0.0

    def fits(self, letter: DeadLetter) -> bool:
        """Say whether the content of a dead letter is wanted: PostgreSQL cannot read it."""
        if self.key is None and self.event_type is None:
            return True
        read = letter.envelope
        ours = read and self.key in {None, read.key} and self.event_type in {None, read.event.type}
        return bool(ours)


class Redriven(NamedTuple):
    """Positions of what will be tried again, and of what is older than the inbox remembers."""

    flagged: list[int]
    too_old: list[int]


class DeadLetters:
    """The operator's verbs.

    Args:
        metadata: where to define the table of what was discarded.
        held: where the dead letters are.
        inbox: remembers what was handled, and what never will be.
        window_s: how old a dead letter may be redriven, in seconds, at most what the inbox
            remembers: of older ones nobody can tell whether they had their effect.
    """

    def __init__(
        self,
        metadata: MetaData,
        held: Held,
        inbox: Inbox,
        *,
        window_s: float,
    ) -> None:
        self.discarded = discarded_table(metadata)
        self.window_s = window_s
        self._held = held.table
        self._inbox = inbox
        name = db.quoted_in_text(held.table)
        # By PostgreSQL's clock, which wrote `held_at`.
        age_s = "cast(extract(epoch from clock_timestamp() - held_at) as float8)"
        self._find = text(f"""
            select position, consumer, stream, partition, message_id, key, body, attempts,
                   coalesce(reason, ''), redrive, held_at, {age_s},
                   (select count(*) from {name} as later
                    where later.consumer = held.consumer and later.stream = held.stream
                      and later.partition = held.partition and later.key = held.key
                      and later.position > held.position)
            from {name} as held
            where state = 'parked' and {age_s} >= :held_for_s
              and (cast(:consumer as text) is null or consumer = :consumer)
              and (cast(:message_id as text) is null or message_id = :message_id)
              and (cast(:reason as text) is null or position(lower(:reason) in lower(reason)) > 0)
            order by position
        """)
        self._flag = text(f"""
            update {name} set redrive = true, attempts = 0
            where position = any(:positions) and state = 'parked' and {age_s} < :window_s
            returning position
        """)

    def find(
        self, connection: Connection, wanted: Wanted | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """Return dead letters, oldest first: all, or those that are wanted, up to a limit."""
        return list(islice(self._each(connection, wanted or Wanted()), limit))

    def one(
        self,
        connection: Connection,
        message_id: str | None = None,
        *,
        consumer: str | None = None,
        position: int | None = None,
    ) -> DeadLetter:
        """Return one dead letter.

        Args:
            connection: your transaction.
            message_id: of the message.
            consumer: whose; several may have a dead letter of one message.
            position: of the dead letter, which is always enough.

        Raises:
            RejectedError: when there is none, or more than one.
        """
        wanted = Wanted(consumer=consumer, message_id=message_id)
        every = self._each(connection, wanted)
        found = [letter for letter in every if position in {None, letter.position}]
        if not found:
            raise _missing(repr(message_id) if message_id else f"at position {position}")
        if len(found) > 1:
            positions = ", ".join(f"{x.position} ({x.consumer})" for x in found)
            raise RejectedError(
                f"{message_id!r} is several dead letters: name the position of one, {positions}"
            )
        return found[0]

    def redrive(self, connection: Connection, position: int) -> None:
        """Ask for a dead letter to be tried again, in its place, with all its attempts.

        Args:
            connection: your transaction; the partition's owner sees it once you commit.
            position: of the dead letter.

        Raises:
            RejectedError: when there is none (any more), or it is older than the inbox remembers.
        """
        if not self._flagged(connection, [position]):
            letter = self.one(connection, position=position)
            raise RejectedError(
                f"{letter.message_id!r} has been held for {letter.held_s:.0f} s, longer than the "
                f"inbox remembers ({self.window_s:.0f} s): it may have had its effect. Look, then "
                "discard it; if the effect is missing, have it sent anew under a new id"
            )

    def redrive_all(self, connection: Connection, wanted: Wanted) -> Redriven:
        """Ask for all these dead letters to be tried again, except those that are too old.

        Args:
            connection: your transaction.
            wanted: which.

        Returns:
            What will be tried again, and what will not.
        """
        ages = {letter.position: letter.held_s for letter in self._each(connection, wanted)}
        flagged = self._flagged(connection, list(ages))
        return Redriven(flagged, [p for p, held_s in ages.items() if held_s >= self.window_s])

    def discard(self, connection: Connection, position: int, *, who: str, why: str) -> None:
        """Give a dead letter up: it will not be handled, and its key goes on without it.

        Args:
            connection: your transaction.
            position: of the dead letter.
            who: decided it.
            why: for whoever asks later.

        Raises:
            RejectedError: when there is none (any more), or no reason is given.
        """
        if not (who.strip() and why.strip()):
            raise RejectedError("say who discards the message, and why: nobody else will know")
        parked = [self._held.c.position == position, self._held.c.state == "parked"]
        taken = connection.execute(delete(self._held).where(*parked).returning(self._held))
        row = taken.mappings().one_or_none()
        if row is None:
            raise _missing(f"at position {position}")
        kept = {name: row[name] for name in self.discarded.c.keys() & row.keys()}
        decided = {"discarded_by": limits.storable(who), "why": limits.storable(why)}
        connection.execute(insert(self.discarded).values(kept | decided))
        # Why not the row's id: where nobody could read one it is made up, and a stranger may send
        # a message that is really called so. An id that was handled keeps its first content.
        if envelope := _envelope(row["body"]):
            digests = {envelope.message_id: envelope.digest()}
            self._inbox.accept(connection, row["consumer"], digests)

    def _each(self, connection: Connection, wanted: Wanted) -> Iterator[DeadLetter]:
        # In pages: a bad day leaves more dead letters than fit into memory.
        query = self._find.execution_options(yield_per=_PAGE)
        with connection.execute(query, asdict(wanted)) as rows:
            yield from filter(wanted.fits, (DeadLetter(*row) for row in rows))

    def _flagged(self, connection: Connection, positions: list[int]) -> list[int]:
        wanted = {"positions": positions, "window_s": self.window_s}
        return sorted(connection.execute(self._flag, wanted).scalars())


def _envelope(body: bytes) -> Envelope | None:
    try:
        return decode_envelope(body)
    except InvalidMessageError:
        return None


def _missing(what: str) -> RejectedError:
    return RejectedError(
        f"there is no dead letter {what}: it was handled, discarded or is being tried right now; "
        "see labkit dead-letters list"
    )
