"""Correlator: an answer names the conversation and the part; we look up what it is about.

The problem: who answers knows our request, not our model. `RES-1, BOOK-DDD` has to become a
line of `ORD-1`, after any restart, and the answers come in any order and more than once.

Guarantee: what is expected is stored with the request, so an answer is matched or known to be
nobody's. The first answer of a part stays; a later one is told as not new and changes nothing.
Answers of one conversation are noted one after the other, so each sees all that came before it,
and exactly one of them sees the last gap close.
Not guaranteed: that an answer comes (see `labkit.saga` for deadlines), or that rows go by
themselves: they are kept as long as your orders are, and `forget` takes them away with those.

Crash windows: none of its own; before your commit nothing is noted, and after it the answer that
comes again is a duplicate.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Correlation Identifier"; Khononov,
*Learning Domain-Driven Design*, ch. 9 ("Stateful model translation").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Select, Table, Text, delete, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import PermanentError


def correlation_table(metadata: MetaData, name: str) -> Table:
    """Define the table on your metadata.

    Args:
        metadata: yours; your migrations see it.
        name: the table's name.
    """
    limits.table_name(name)
    return Table(
        name,
        metadata,
        Column("conversation", Text, primary_key=True),
        Column("part", Text, primary_key=True),
        Column("target", Text, nullable=False),
        Column("answer", JSONB(none_as_null=True)),
    )


class Match(NamedTuple):
    """What an answer is about: its target, whether it is new, and all answers so far by part."""

    target: str
    new: bool
    answers: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Say whether every part has its answer."""
        return None not in self.answers.values()


class Correlator:
    """Remembers who asked for what, and what was answered.

    Args:
        metadata: where to define the table.
        table: the table's name.
    """

    def __init__(self, metadata: MetaData, table: str = "correlations") -> None:
        self.table = correlation_table(metadata, table)

    def expect(
        self, session: Session | Connection, conversation: str, parts: Mapping[str, str]
    ) -> None:
        """Note what will be answered, in the transaction that sends the request.

        Expecting the same again changes nothing, also when it has been answered.

        Args:
            session: your transaction; joins it, never commits.
            conversation: what all answers name, such as a reservation.
            parts: what each answer names, such as an article, to what it is about for us.

        Raises:
            PermanentError: when a part of this conversation is about something else already.
        """
        # Sorted: two transactions with the same parts must not wait for each other in a circle.
        rows = [
            {"conversation": conversation, "part": part, "target": parts[part]}
            for part in sorted(parts)
        ]
        if not rows:
            return
        session.execute(insert(self.table).values(rows).on_conflict_do_nothing())
        for row in session.execute(self._parts(conversation)):
            if parts.get(row.part, row.target) != row.target:
                raise PermanentError(
                    f"{conversation} {row.part} is about {row.target}, not {parts[row.part]}"
                )

    def answer(
        self, session: Session | Connection, conversation: str, part: str, answer: Any
    ) -> Match | None:
        """Note an answer, unless its part has one, and tell what it is about.

        Args:
            session: your transaction; joins it, never commits. It holds the conversation until
                it ends: others that answer in it wait.
            conversation: what the answer names.
            part: what the answer names.
            answer: any JSON but null; the first one stays.

        Returns:
            The match, or None when nobody asked for this.

        Raises:
            PermanentError: when the answer is None, which stands for none yet.
        """
        if answer is None:
            raise PermanentError(
                f"{conversation} {part}: None is no answer, it stands for none yet"
            )
        # All parts, not only ours: else two last answers at once would each see the other's gap.
        query = self._parts(conversation).with_for_update()
        found = {row.part: row for row in session.execute(query)}
        if part not in found:
            return None
        answers = {name: row.answer for name, row in found.items()}
        new = answers[part] is None
        if new:
            columns = self.table.c
            mine = (columns.conversation == conversation) & (columns.part == part)
            kept = update(self.table).where(mine).values(answer=answer).returning(columns.answer)
            answers[part] = session.execute(kept).scalar_one()
        return Match(found[part].target, new, answers)

    def answers(self, session: Session | Connection, conversation: str) -> dict[str, Any]:
        """Return every part that was asked for, with its answer or None.

        Args:
            session: your transaction, or any connection.
            conversation: which one; unknown ones have no parts.
        """
        return {row.part: row.answer for row in session.execute(self._parts(conversation))}

    def forget(self, session: Session | Connection, conversations: Collection[str]) -> int:
        """Delete conversations, answered or not; an answer that still comes is nobody's then.

        Args:
            session: your transaction, such as the one that deletes or archives the order; joins
                it, never commits.
            conversations: which; unknown ones are no trouble.

        Returns:
            How many parts there were.
        """
        mine = self.table.c.conversation.in_(sorted(conversations))
        return len(
            session.execute(delete(self.table).where(mine).returning(self.table.c.part)).all()
        )

    def _parts(self, conversation: str) -> Select[Any]:
        columns = self.table.c
        mine = columns.conversation == conversation
        return select(columns.part, columns.target, columns.answer).where(mine).order_by("part")
