"""Backpressure: a producer that looks at the stream and waits, beside two that do not look.

For forty turns there are 15 messages a turn to be sent, and a consumer handles 10 a turn. One
producer appends whatever comes. One caps the stream's length (MAXLEN), and Redis deletes what was
never read. One asks how many messages its reader has yet to handle, appends what there is room for,
and keeps the rest to itself: where somebody can say no, or wait. All go on until nothing is left.

Stream, group and backlog are real; turns are not seconds, so everything is the same each time.

Guarantee: what is counted is what Redis gave to the reader.
Not guaranteed: a limit that several producers keep together: each may find the same room. And the
backlog is the group's lag (Redis 7) and what it has not acknowledged; the length of the stream is
not: in labkit, what was handled stays for a while.

Source: Little, L = λW; *Reactive Streams*, demand instead of push.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from labkit.lab.servers import Stack
from labkit.lab.spanish import number
from labkit.ports import Stream
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams, connect

TURNS, COME, HANDLED, LIMIT = 40, 15, 10, 50
UNBOUNDED, CAPPED, LOOKING = "sin mirar", "con MAXLEN", "mira y espera"
_STREAM = Stream("contrapresion", partitions=1)
_GROUP = "lector"
_PREFIX = "contrapresion:"


class Queue:
    """A real stream with one reader.

    Args:
        transport: where; the stream must be empty.
    """

    def __init__(self, transport: RedisStreams) -> None:
        self._client: Any = transport.client
        self._key = transport.stream_key(_STREAM, 0)
        self._inspection = RedisInspection(transport)
        self._reader = transport.subscription(_STREAM, _GROUP, "0")
        self._reader.raise_epoch(0, 1)

    def append(self, turn: int, most: int | None) -> None:
        """Append a message that says when; `most` caps the stream's length."""
        self._client.xadd(self._key, {"body": str(turn)}, maxlen=most, approximate=False)

    def handle(self, count: int) -> list[int]:
        """Handle so many messages at most; return when each was appended."""
        entries = self._reader.read_new(0, epoch=1, count=count)
        self._reader.ack(0, [each.position for each in entries])
        return [int(each.body or 0) for each in entries]

    def waiting(self) -> int:
        """Return how many messages the reader has yet to handle."""
        (partition,) = self._inspection.look(_STREAM)
        (reader,) = partition.groups
        return (reader.lag or 0) + reader.pending


# What a producer appends of what it has at hand.
Producer = Callable[[Queue, int], int]


def all_of_it(_queue: Queue, at_hand: int) -> int:
    """Append everything."""
    return at_hand


def what_there_is_room_for(queue: Queue, at_hand: int) -> int:
    """Append no more than the reader may have waiting, and keep the rest."""
    room = LIMIT - queue.waiting()
    return min(at_hand, max(0, room))


PRODUCERS: Mapping[str, tuple[Producer, int | None]] = {
    UNBOUNDED: (all_of_it, None),
    CAPPED: (all_of_it, LIMIT),
    LOOKING: (what_there_is_room_for, None),
}


@dataclass
class Run:
    """What came of a producer.

    Attributes:
        waiting: turn by turn, how many messages waited in the stream when it ended.
        waits: of each message that was handled, the turns from the stream to its reader.
        kept: turn by turn, how many the producer kept to itself.
        sent: how many were appended.
    """

    waiting: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    sent: int = 0

    @property
    def lost(self) -> int:
        """Return how many were appended and never handled."""
        return self.sent - len(self.waits)


def run(servers: Stack, name: str) -> Run:
    """Let a producer and the consumer take turns until nothing is left.

    Args:
        servers: where; the stream of an earlier run is deleted.
        name: one of `PRODUCERS`.
    """
    producer, most = PRODUCERS[name]
    found, at_hand, turn = Run(), 0, 0
    with _empty(servers) as queue:
        while turn < TURNS or at_hand or queue.waiting():
            at_hand += COME if turn < TURNS else 0
            sent = producer(queue, at_hand)
            for _ in range(sent):
                queue.append(turn, most)
            found.waits += [turn - since for since in queue.handle(HANDLED)]
            found.waiting.append(queue.waiting())
            found.sent, at_hand, turn = found.sent + sent, at_hand - sent, turn + 1
            found.kept.append(at_hand)
    return found


@contextmanager
def _empty(servers: Stack) -> Iterator[Queue]:
    transport = RedisStreams(connect(servers.redis_url), _PREFIX)
    _delete(transport)
    try:
        yield Queue(transport)
    finally:
        _delete(transport)
        transport.client.close()


def _delete(transport: RedisStreams) -> None:
    client = transport.client
    if found := list(client.scan_iter(match=f"*{{{_PREFIX}*", count=1000)):
        client.delete(*found)


def compare(servers: Stack) -> dict[str, Run]:
    """Run each of `PRODUCERS`.

    Args:
        servers: where.
    """
    return {name: run(servers, name) for name in PRODUCERS}


def points(runs: Mapping[str, Run]) -> dict[str, list[tuple[float, float]]]:
    """Return what `charts.lines` draws: the backlog turn by turn, of those that lose nothing.

    Args:
        runs: from `compare`.
    """
    return {
        name: [(float(turn), float(waiting)) for turn, waiting in enumerate(found.waiting, 1)]
        for name, found in runs.items()
        if not found.lost
    }


def table(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return what came of each producer.

    Args:
        runs: from `compare`.
    """
    return pd.DataFrame(
        [
            {
                "productor": name,
                "enviados": found.sent,
                "perdidos": found.lost,
                "esperan en el stream": max(found.waiting),
                "espera más larga (turnos)": max(found.waits),
                "se guarda el productor": max(found.kept),
                "acaba en el turno": len(found.waiting),
            }
            for name, found in runs.items()
        ]
    )


def reading(runs: Mapping[str, Run]) -> str:
    """Read how long messages wait in the stream.

    Args:
        runs: from `compare`.
    """
    said = [
        f"«{name}» llegan a esperar {number(max(found.waiting))} mensajes, hasta "
        f"{number(max(found.waits))} turnos, y acaba en el turno {number(len(found.waiting))}"
        for name, found in runs.items()
        if not found.lost
    ]
    return f"{'; '.join(said)}."
