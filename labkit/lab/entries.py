"""Entries: one message in a Redis stream, found by its time, and how far each group is with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast

import msgspec

from labkit.errors import InvalidMessageError
from labkit.ports import Stream
from labkit.transports.redis_connection import naming_errors
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope

_PAGE = 500
_MOST_PAGES = 400


class Published(NamedTuple):
    """One publication: the entry's id, and the time that is in it (Redis' clock, in ms)."""

    position: str
    at: datetime


class Fate(NamedTuple):
    """What a group did with an entry; `at` is the last delivery of one that is still pending."""

    state: Literal["not delivered", "delivered", "acknowledged"]
    at: datetime | None = None
    deliveries: int = 0


class Entries:
    """Reads streams without changing anything.

    Args:
        streams: client and prefix.
    """

    def __init__(self, streams: RedisStreams) -> None:
        self._streams = streams
        self._client: Any = streams.client

    def find(
        self, stream: Stream, partition: int, message_id: str, since: datetime, until: datetime
    ) -> tuple[list[Published], bool]:
        """Return every publication of a message between two times, and whether all was read.

        Args:
            stream: the stream.
            partition: the partition of the message's key.
            message_id: which message.
            since: read from here on.
            until: and no further.
        """
        key = self._streams.stream_key(stream, partition)
        # Only what looks like it is decoded.
        wanted = b'"messageId":' + msgspec.json.encode(message_id)
        start, end = str(_ms(since)), str(_ms(until))
        found: list[Published] = []
        for _ in range(_MOST_PAGES):
            with naming_errors():
                page = self._client.xrange(key, start, end, _PAGE)
            for position, fields in page:
                body = (fields or {}).get(b"body", b"")
                if wanted in body and _id_of(body) == message_id:
                    found.append(Published(position.decode(), time_of(position.decode())))
            if len(page) < _PAGE:
                return found, True
            start = f"({page[-1][0].decode()}"
        return found, False

    def fate(self, stream: Stream, partition: int, group: str, position: str) -> Fate:
        """Return how far a group is with an entry."""
        key = self._streams.stream_key(stream, partition)
        with naming_errors():
            groups = {g["name"]: g for g in self._client.xinfo_groups(key)}
            mine = groups.get(group.encode())
            if mine is None or _order(mine["last-delivered-id"].decode()) < _order(position):
                return Fate("not delivered")
            pending = self._client.xpending_range(key, group, position, position, 1)
            now_s, now_us = cast("tuple[int, int]", self._client.time())
        if not pending:
            return Fate("acknowledged")
        idle_s = pending[0]["time_since_delivered"] / 1000
        at = datetime.fromtimestamp(now_s + now_us / 1e6 - idle_s, UTC)
        return Fate("delivered", at, pending[0]["times_delivered"])

    def now(self) -> datetime:
        """Return Redis' time."""
        with naming_errors():
            seconds, micros = cast("tuple[int, int]", self._client.time())
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)


def time_of(position: str) -> datetime:
    """Return the time in an entry's id."""
    return datetime.fromtimestamp(int(position.split("-", maxsplit=1)[0]) / 1000, UTC)


def _id_of(body: bytes) -> str | None:
    try:
        return decode_envelope(body).message_id
    except InvalidMessageError:
        return None


def _ms(moment: datetime) -> int:
    return max(0, int(moment.timestamp() * 1000))


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)
