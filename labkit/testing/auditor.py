"""Auditor: reads what services committed, streamed and applied, and finds the first contradiction.

The problem: "it worked" is no proof. A lost event leaves no trace where one looks for it; it
shows only when the books of all sides are laid beside each other.

Guarantee: when `audit(...)` holds, then within its region

    no loss        every committed event is in its stream and, for each consumer that handles its
                   type, in the inbox with its effect, or visibly in `held` or `discarded`
    no phantom     nothing is in stream, inbox or effects that no committed event explains
    no double      no effect was applied twice
    order per key  first occurrences in the stream, and effects, come in commit order

Not guaranteed: anything about a flow that is still moving, since the books are read one after
the other, never joined: what waits unpublished counts as lost. Events that the broker refused,
and those of the key behind them, are set aside visibly and not lost.

The region is explicit. By default everything is judged. With `since`, an event committed
earlier owes nothing, and what was seen earlier needs no explanation: choose a moment after what
retention deletes, plus the longest delivery delay. With `trimmed`, a stream may lack its oldest
entries: an event marked as published before the first entry left needs no entry, but still its
inbox row and effect; and as a repeat may have outlived its original, order in the stream is then
judged by last occurrences.

Pattern: double-entry book-keeping: two books, kept apart, must agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from labkit.testing.findings import Finding, Findings
from labkit.testing.ledgers import (
    Entry,
    Fact,
    Received,
    Sent,
    read_entries,
    read_ids,
    snapshot,
)
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope


def audit(
    sent: Sequence[Sent],
    received: Sequence[Received],
    transport: RedisStreams,
    *,
    since: datetime | None = None,
    trimmed: bool = False,
) -> Findings:
    """Compare all books; run it when the flow has come to rest.

    Args:
        sent: the producers, such as `books_of(service, engine)[0]`.
        received: the consumers; those whose sources are not all in `sent` are judged as far as
            they go.
        transport: where the streams are.
        since: judge what was committed at this moment or later; None for everything.
        trimmed: whether retention may have cut the oldest entries off the streams.

    Returns:
        The findings, streams first.
    """
    books = {each.stream.name: _read_book(each, transport, since, trimmed=trimmed) for each in sent}
    found: list[Finding] = []
    for book in books.values():
        found += book.judge()
    for each in received:
        found += _Account(each, books, since).judge()
    facts = sum(len(book.facts) for book in books.values())
    excused = sum(not _is_due(f.at, since) for book in books.values() for f in book.facts)
    region = f"{facts - excused} events" + (f" since {since.isoformat()}" if since else "")
    repeated = sum(book.repeated for book in books.values())
    return Findings(found, facts - excused, excused, repeated, region)


class _Place(NamedTuple):
    """Where something was seen, for order and for words."""

    message_id: str
    said: str


@dataclass
class _Book:
    """One stream beside the facts that belong in it."""

    sent: Sent
    since: datetime | None
    trimmed: bool
    facts: list[Fact]
    entries: list[Entry]
    ranks: dict[str, int] = field(init=False)
    lost: set[str] = field(default_factory=set, init=False)
    repeated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.ranks = {fact.message_id: rank for rank, fact in enumerate(self.facts)}

    @property
    def where(self) -> str:
        return f"stream {self.sent.stream.name}"

    def judge(self) -> list[Finding]:
        order = list(reversed(self.entries)) if self.trimmed else self.entries
        seen: dict[str, Entry] = {}
        for entry in order:
            if entry.message_id is not None:
                seen.setdefault(entry.message_id, entry)
        self.repeated = sum(entry.message_id is not None for entry in order) - len(seen)
        places = [
            _Place(id_, f"{entry.partition}@{entry.position}")
            for id_, entry in (reversed(seen.items()) if self.trimmed else seen.items())
        ]
        return [
            *self._losses(seen),
            *self._phantoms(),
            *_inversions(places, {id_: (self, id_) for id_ in self.ranks}, self.where),
        ]

    def _losses(self, seen: Mapping[str, Entry]) -> Iterator[Finding]:
        left = self._first_left(seen) if self.trimmed else {}
        for rank, fact in enumerate(self.facts):
            if fact.message_id in seen or fact.set_aside or not _is_due(fact.at, self.since):
                continue
            partition = self.sent.stream.partition_of(fact.key or fact.message_id)
            if self.trimmed and fact.published and rank < left.get(partition, len(self.facts)):
                continue
            self.lost.add(fact.message_id)
            why = "is marked as published" if fact.published else "was never published"
            told = f"{self.told(fact)} {why} and is not there"
            yield Finding("lost", fact.message_id, self.where, told)

    def _first_left(self, seen: Mapping[str, Entry]) -> dict[int, int]:
        """Return the rank of the oldest fact that each partition still has."""
        left: dict[int, int] = {}
        for id_, entry in seen.items():
            if id_ in self.ranks:
                rank = self.ranks[id_]
                left[entry.partition] = min(rank, left.get(entry.partition, rank))
        return left

    def _phantoms(self) -> Iterator[Finding]:
        told: set[str] = set()
        for entry in self.entries:
            name = entry.message_id or f"entry {entry.position}"
            rank = self.ranks.get(entry.message_id or "")
            if rank is None:
                why = "and nobody committed it"
            elif (body := self.facts[rank].body) is not None and body.encode() != entry.body:
                why = "with other content than was committed"
            else:
                continue
            if _is_due(entry.at, self.since) and name not in told:
                told.add(name)
                said = f"of key {entry.key} is at {entry.partition}@{entry.position} {why}"
                yield Finding("phantom", name, self.where, said)

    def told(self, fact: Fact) -> str:
        """Introduce a fact: its key, number and time."""
        at = f" at {fact.at.isoformat()}" if fact.at else ""
        return f"of key {fact.key}, committed as number {self.ranks[fact.message_id] + 1}{at},"


def _read_book(
    sent: Sent, transport: RedisStreams, since: datetime | None, *, trimmed: bool
) -> _Book:
    with snapshot(sent.engine) as connection:
        facts = list(sent.facts(connection))
    partitions = range(sent.stream.partitions)
    entries = [e for p in partitions for e in read_entries(transport, sent.stream, p)]
    return _Book(sent, since, trimmed, facts, entries)


# By what a consumer knows an event (its message id, or the name of its effect): whose it is.
_Explained = Mapping[str, tuple[_Book, str]]


class _Account:
    """One consumer beside the books of its sources."""

    def __init__(
        self, received: Received, books: Mapping[str, _Book], since: datetime | None
    ) -> None:
        self._received = received
        self._since = since
        self._sources = [books[name] for name in received.handles if name in books]
        self._knows_all = len(self._sources) == len(received.handles)
        with snapshot(received.engine) as connection:
            self._inbox = read_ids(connection, received.inbox, received.name)
            self._held = read_ids(connection, received.held, received.name)
            self._held |= read_ids(connection, received.discarded, received.name)
            self._effects = list(received.effects(connection)) if received.effects else []

    def judge(self) -> list[Finding]:
        ids = {fact.message_id: (book, fact.message_id) for book, fact in self._owed()}
        names = self._effect_names()
        explained = {names[id_]: owner for id_, owner in ids.items()}
        effects = f"effects of {self._received.name}"
        first: dict[str, _Place] = {}
        for number, effect in enumerate(self._effects, start=1):
            if effect.id in explained:
                message_id = explained[effect.id][1]
                first.setdefault(effect.id, _Place(message_id, f"effect {number}"))
        return [
            *self._losses(names),
            *self._phantoms(explained),
            *self._doubles(explained, effects),
            *_inversions(first.values(), ids, effects),
        ]

    def _owed(self) -> Iterator[tuple[_Book, Fact]]:
        """Return the events that this consumer handles."""
        for book in self._sources:
            types = self._received.handles[book.sent.stream.name]
            for fact in book.facts:
                if fact.type in types:
                    yield book, fact

    def _effect_names(self) -> dict[str, str]:
        name = self._received.effect_of
        return {
            fact.message_id: name(decode_envelope(fact.body)) if name and fact.body else fact[0]
            for _, fact in self._owed()
        }

    def _losses(self, names: Mapping[str, str]) -> Iterator[Finding]:
        applied = {effect.id for effect in self._effects}
        for book, fact in self._owed():
            id_ = fact.message_id
            visible = id_ in book.lost or id_ in self._held or fact.set_aside
            if visible or not _is_due(fact.at, self._since):
                continue
            if self._received.inbox is not None and id_ not in self._inbox:
                where, why = f"inbox of {self._received.name}", "is neither here nor held"
            elif self._received.effects and names[id_] not in applied:
                noted = f", though noted in the inbox at {self._inbox[id_].isoformat()}"
                where = f"effects of {self._received.name}"
                why = "has no effect" + (noted if id_ in self._inbox else "")
            else:
                continue
            yield Finding("lost", fact.message_id, where, f"{book.told(fact)} {why}")

    def _phantoms(self, explained: _Explained) -> Iterator[Finding]:
        if not self._knows_all:
            return  # another source may explain it
        name, committed = self._received.name, {owner[1] for owner in explained.values()}
        for id_, at in self._inbox.items():
            if id_ not in committed and _is_due(at, self._since):
                said = f"was noted at {at.isoformat()} and nobody committed it"
                yield Finding("phantom", id_, f"inbox of {name}", said)
        for number, effect in enumerate(self._effects, start=1):
            if effect.id not in explained and _is_due(effect.at, self._since):
                said = f"of key {effect.key} is effect {number} and nobody committed it"
                yield Finding("phantom", effect.id, f"effects of {name}", said)

    def _doubles(self, explained: _Explained, where: str) -> Iterator[Finding]:
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, effect in enumerate(self._effects, start=1):
            numbers[effect.id].append(number)
        for id_, applied in numbers.items():
            if len(applied) > 1 and id_ in explained:
                book, message_id = explained[id_]
                fact = book.facts[book.ranks[message_id]]
                times = ", ".join(map(str, applied))
                said = f"{book.told(fact)} was applied {len(applied)} times: as effects {times}"
                yield Finding("doubled", fact.message_id, where, said)


def _inversions(places: Iterable[_Place], explained: _Explained, where: str) -> Iterator[Finding]:
    """Find what comes behind an event of its key that was committed later."""
    latest: dict[tuple[int, str], tuple[int, _Place]] = {}
    for place in places:
        if place.message_id not in explained:
            continue
        book, id_ = explained[place.message_id]
        rank = book.ranks[id_]
        fact = book.facts[rank]
        if fact.key is None:
            continue
        lane = (id(book), fact.key)
        highest, other = latest.get(lane, (-1, place))
        if rank > highest:
            latest[lane] = (rank, place)
            continue
        said = f"{book.told(fact)} comes at {place.said}, behind {other.message_id} at {other.said}"
        yield Finding("reordered", fact.message_id, where, said)


def _is_due(at: Any, since: datetime | None) -> bool:
    """Say whether something of this time is in the region; nobody knows what has no time."""
    return since is None or (at is not None and at >= since)
