"""Records: what a service's database has written down about one message.

The rows of outbox, inbox and `held`, with the commit times that PostgreSQL keeps when
`track_commit_timestamp` is on. A time that cannot be true (a commit before its own row, as after
a restore into another cluster, whose transaction numbers mean nothing here) is no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from labkit import db
from labkit.lab.sites import Site

# Rows of concurrent transactions interleave a little.
_SLACK = timedelta(seconds=2)
# Asked while the setting is off, the function is an error; and it knows 32 bits of a number only.
_COMMIT = """
    case when current_setting('track_commit_timestamp')::boolean
         then pg_xact_commit_timestamp({xid}) end
"""
_OF_OUTBOX = _COMMIT.format(xid="xid::text::xid8::xid")
_OF_INBOX = _COMMIT.format(xid="xmin")


class Said(NamedTuple):
    """A row of the outbox."""

    message_id: str
    key: str | None
    partition: int
    body: str
    created_at: datetime
    committed_at: datetime | None
    published_at: datetime | None
    batch: int | None
    refused: str | None


class Handled(NamedTuple):
    """A row of the inbox."""

    handled_at: datetime
    committed_at: datetime | None


class Kept(NamedTuple):
    """A row of `held`."""

    held_at: datetime
    state: str
    attempts: int
    due_at: datetime
    reason: str | None


class Records:
    """Asks one service's database.

    Args:
        site: the service and its database.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        # Why autocommit: no transaction stays open while the broker is asked.
        self._connection: Connection = site.engine.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._outbox = db.quoted_in_text(site.service.outbox.table)
        self._inbox = db.quoted_in_text(site.service.inbox.table)
        self._held = db.quoted_in_text(site.service.held.table)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def commits_are_timed(self) -> bool:
        """Say whether PostgreSQL keeps the times of commits."""
        query = "select current_setting('track_commit_timestamp')::boolean"
        return bool(self._rows(query)[0][0])

    def ids(self, beginning: str, *, whole: bool) -> set[str]:
        """Return up to two ids, from each table, that are (`whole`) or begin with a text."""
        escaped = beginning.replace("!", "!!").replace("%", "!%").replace("_", "!_")
        values = {"id": beginning} if whole else {"id": f"{escaped}%"}
        condition = "= :id" if whole else "like :id escape '!'"
        found: set[str] = set()
        for table in (self._outbox, self._inbox, self._held):
            query = f"select distinct message_id from {table} where message_id {condition} limit 2"
            found |= {row[0] for row in self._rows(query, **values)}
        return found

    def said(self, message_id: str) -> Said | None:
        """Return the message as this service stored it."""
        rows = self._said("message_id = :id", id=message_id)
        return rows[0] if rows else None

    def handled(self, consumer: str, message_id: str) -> Handled | None:
        """Return when a consumer of this service handled a message."""
        query = f"""select handled_at, {_OF_INBOX} from {self._inbox}
                    where consumer = :consumer and message_id = :id"""
        rows = self._rows(query, consumer=consumer, id=message_id)
        return Handled(rows[0][0], _after(rows[0][0], rows[0][1])) if rows else None

    def held(self, consumer: str, message_id: str) -> list[Kept]:
        """Return what failed, waits or is a dead letter."""
        query = f"""select held_at, state, attempts, due_at, reason from {self._held}
                    where consumer = :consumer and message_id = :id order by position"""
        return [Kept(*row) for row in self._rows(query, consumer=consumer, id=message_id)]

    def caused(self, message_id: str, handled: Handled) -> list[Said]:
        """Return what was stored while a message was handled and names it, in order."""
        # A payload may have such a field too: the caller looks at the header.
        header = '"causationId":' + msgspec.json.encode(message_id).decode()
        until = (handled.committed_at or handled.handled_at + 30 * _SLACK) + _SLACK
        first, last = self._seq_at(handled.handled_at - _SLACK), self._seq_at(until)
        condition = "seq between :first and :last and position(:header in body) > 0"
        return self._said(condition, first=first, last=last, header=header)

    def _said(self, condition: str, **values: Any) -> list[Said]:
        query = f"""select message_id, key, partition, body, created_at, {_OF_OUTBOX},
                           published_at, batch, refused
                    from {self._outbox} where {condition} order by seq"""
        rows = [Said(*row) for row in self._rows(query, **values)]
        return [r._replace(committed_at=_after(r.created_at, r.committed_at)) for r in rows]

    def _seq_at(self, moment: datetime) -> int:
        """Return the first `seq` that was drawn at a time or later, by halving."""
        # Why not "created_at between": it has no index, and `seq` was drawn in the same order.
        ends = "select coalesce(min(seq), 0), coalesce(max(seq), 0) + 1"
        low, high = self._rows(f"{ends} from {self._outbox}")[0]
        query = f"select seq, created_at from {self._outbox} where seq >= :seq order by seq limit 1"
        while low < high:
            middle = (low + high) // 2
            rows = self._rows(query, seq=middle)
            if rows and rows[0][1] < moment:
                low = rows[0][0] + 1
            else:
                high = middle
        return int(low)

    def _rows(self, query: str, **values: Any) -> Sequence[Any]:
        return self._connection.execute(text(query), values).all()


def _after(row: datetime, committed: datetime | None) -> datetime | None:
    return committed if committed is not None and committed >= row else None
