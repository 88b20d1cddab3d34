"""Trace: what is on record about one message, across services, as one timeline and one tree.

Nothing is guessed. Every time comes from where it was written down: the outbox row (`created_at`,
`published_at`), PostgreSQL's commit timestamps, the entry's id in Redis (its clock, in ms), the
inbox row, `held`. What nobody wrote down has no time here, and says so: the acknowledgement, and
commits while `track_commit_timestamp` was off.

Guarantee: nothing is written, and the cost does not grow with the length of stream or outbox: the
stream is read around the times of the row, the outbox around the time of the handling.
Not guaranteed: what retention deleted, or a stream lost, is missing, and said to be. What a
message caused is what its handler stored with `cause=`.

Pattern: Hohpe and Woolf, "Message History".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from labkit.errors import ConfigurationError, InvalidMessageError
from labkit.lab.entries import Entries, Published
from labkit.lab.records import Handled, Kept, Records, Said
from labkit.lab.sites import Site
from labkit.ports import Stream
from labkit.service import Subscribed
from labkit.wire import decode_envelope

What = Literal[
    "appended", "committed", "published", "marked", "refused", "delivered",
    "received", "effect committed", "acknowledged", "held", "dead letter",
]  # fmt: skip
_SLACK = timedelta(seconds=2)  # between the clocks of two servers
_MOST_MESSAGES = 500


@dataclass(frozen=True)
class Moment:
    """Something that happened to a message, or should.

    Args:
        what: what.
        where: the service, the stream or the consumer.
        at: when; None when nobody wrote it down, or it has not happened.
        note: what else is known.
        happened: False for what is still to come.
    """

    what: What
    where: str
    at: datetime | None
    note: str = ""
    happened: bool = True


@dataclass
class Traced:
    """A message, what happened to it and what it caused.

    Args:
        message_id: its id.
        type: the event's type; empty when only the id is known.
        key: its ordering key.
        service: who stored it; None when it is in none of these outboxes.
        stream: where it was published.
        cause: the id of the message that caused it.
        asked: it is the one that was asked for.
        moments: what is on record, in causal order.
        caused: the messages that its handling stored.
    """

    message_id: str
    type: str = ""
    key: str | None = None
    service: str | None = None
    stream: str | None = None
    cause: str | None = None
    asked: bool = False
    moments: list[Moment] = field(default_factory=list)
    caused: list[Traced] = field(default_factory=list)

    def walk(self) -> Iterator[Traced]:
        """Return this message and everything below it, causes first."""
        yield self
        for each in self.caused:
            yield from each.walk()


@dataclass(frozen=True)
class Trace:
    """The tree, from the first cause that is on record, and what its reader should know."""

    root: Traced
    notes: tuple[str, ...] = ()


def trace(message_id: str, sites: Sequence[Site], entries: Entries) -> Trace:
    """Follow a message through all services.

    Args:
        message_id: its id, or a beginning that no other id shares.
        sites: the services to look in.
        entries: reads the streams.

    Returns:
        What caused it, itself, and everything that it caused.

    Raises:
        ConfigurationError: when no such message, or more than one, is on record.
        BrokerUnavailableError: when the broker does not answer.
    """
    with ExitStack() as opened:
        records = [Records(site) for site in sites]
        for each in records:
            opened.callback(each.close)
        return _Tracer(records, entries).trace(message_id)


def offset(at: datetime, first: datetime) -> str:
    """Return a recorded time as the distance from another."""
    seconds = (at - first).total_seconds()
    return f"+{seconds * 1000:.1f} ms" if seconds < 1 else f"+{seconds:.3f} s"


class _Tracer:
    def __init__(self, records: Sequence[Records], entries: Entries) -> None:
        self._records = records
        self._entries = entries
        self._notes: list[str] = []
        self._seen: set[str] = set()

    def trace(self, beginning: str) -> Trace:
        if not all(each.commits_are_timed() for each in self._records):
            self._notes.append("times of commits are unknown: track_commit_timestamp is off")
        node = self._tree(self._resolve(beginning))
        node.asked = True
        while node.cause and node.cause not in self._seen:
            above, _ = self._message(node.cause)
            above.caused = [node]
            node = above
        return Trace(node, tuple(dict.fromkeys(self._notes)))

    def _resolve(self, beginning: str) -> str:
        for whole in (True, False):
            found = {i for each in self._records for i in each.ids(beginning, whole=whole)}
            if len(found) == 1:
                return found.pop()
            if found:
                raise ConfigurationError(f"{beginning} begins several message ids: write more")
        names = ", ".join(each.site.name for each in self._records)
        raise ConfigurationError(
            f"no message {beginning} is on record in {names}: check the id, --service and "
            "--database; what retention deleted cannot be traced"
        )

    def _tree(self, message_id: str) -> Traced:
        node, handled = self._message(message_id)
        for records, row in handled:
            for said in records.caused(message_id, row):
                # Two consumers of one service may have handled it in the same moment.
                if said.message_id in self._seen or _cause_of(said) != message_id:
                    continue
                if len(self._seen) >= _MOST_MESSAGES:
                    self._notes.append(f"only the first {_MOST_MESSAGES} messages are shown")
                    return node
                node.caused.append(self._tree(said.message_id))
        return node

    def _message(self, message_id: str) -> tuple[Traced, list[tuple[Records, Handled]]]:
        """Return one message, and where it was handled."""
        self._seen.add(message_id)
        node = Traced(message_id)
        publications: list[Published] = []
        for records in self._records:
            if said := records.said(message_id):
                publications = self._add_said(node, records, said)
        if node.service is None:
            self._notes.append(f"{message_id} is in none of these outboxes")
        return node, list(self._add_handled(node, publications))

    def _add_said(self, node: Traced, records: Records, said: Said) -> list[Published]:
        service, stream = records.site.name, records.site.service.stream
        node.service, node.key, node.stream = service, said.key, f"{stream.name}:{said.partition}"
        node.cause = _cause_of(said)
        with suppress(InvalidMessageError):
            node.type = decode_envelope(said.body).event.type
        node.moments += [
            Moment("appended", service, said.created_at),
            Moment("committed", service, said.committed_at),
        ]
        publications = self._published(node, stream, said)
        node.moments += [
            Moment("published", node.stream, each.at, each.position) for each in publications
        ]
        node.moments.append(_mark(service, said))
        return publications

    def _published(self, node: Traced, stream: Stream, said: Said) -> list[Published]:
        until = said.published_at or self._entries.now()
        found, whole = self._entries.find(
            stream, said.partition, said.message_id, said.created_at - _SLACK, until + _SLACK
        )
        if not whole:
            self._notes.append(f"{node.message_id}: too much was published then to read it all")
        elif said.published_at and not found:
            self._notes.append(f"{node.message_id} is no longer in {node.stream}: trimmed or lost")
        return found

    def _add_handled(
        self, node: Traced, publications: Sequence[Published]
    ) -> Iterator[tuple[Records, Handled]]:
        for records in self._records:
            for reader in records.site.subscribed():
                row = records.handled(reader.consumer, node.message_id)
                kept = records.held(reader.consumer, node.message_id)
                # Without a type (the outbox row is gone) only who knows the id is shown.
                if not (row or kept) and not _reads(reader, node):
                    continue
                if _source_of(node) in {None, reader.stream.name}:
                    node.moments += self._at_consumer(node, reader, publications, row, kept)
                    if row:
                        yield records, row

    def _at_consumer(
        self,
        node: Traced,
        reader: Subscribed,
        publications: Sequence[Published],
        row: Handled | None,
        kept: Sequence[Kept],
    ) -> Iterator[Moment]:
        name = reader.consumer
        for each in kept:
            note = f"{each.state}, attempts: {each.attempts}"
            yield Moment("held", name, each.held_at, note)
            if each.state == "parked":
                yield Moment("dead letter", name, None, each.reason or "")
        if row:
            yield Moment("received", name, row.handled_at)
            yield Moment("effect committed", name, row.committed_at)
        elif not kept:
            yield Moment("received", name, None, happened=False)
        for publication in publications:
            yield self._fate(node, reader, publication)

    def _fate(self, node: Traced, reader: Subscribed, publication: Published) -> Moment:
        partition = int((node.stream or "").rpartition(":")[2])
        fate = self._entries.fate(reader.stream, partition, reader.consumer, publication.position)
        if fate.state == "delivered":
            note = f"{publication.position}, {fate.deliveries} times, not acknowledged"
            return Moment("delivered", reader.consumer, fate.at, note)
        done = fate.state == "acknowledged"
        return Moment("acknowledged", reader.consumer, None, publication.position, happened=done)


def _mark(service: str, said: Said) -> Moment:
    if said.refused:
        return Moment("refused", service, None, said.refused)
    note = f"batch {said.batch}" if said.published_at else ""
    return Moment("marked", service, said.published_at, note, happened=bool(said.published_at))


def _cause_of(said: Said) -> str | None:
    try:
        return (decode_envelope(said.body).headers or {}).get("causationId")
    except InvalidMessageError:
        return None


def _reads(reader: Subscribed, node: Traced) -> bool:
    return node.type in reader.types and reader.stream.name == _source_of(node)


def _source_of(node: Traced) -> str | None:
    return node.stream.rpartition(":")[0] if node.stream else None
