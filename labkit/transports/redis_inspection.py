"""What Redis knows about streams and their groups, read without changing anything.

Guarantee: two round trips for a stream and one per partition, however long it is.
Not guaranteed: one moment: each partition is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit.ports import GroupState, PartitionState, Stream
from labkit.transports.redis_connection import naming_errors
from labkit.transports.redis_streams import RedisStreams


class RedisInspection:
    """See `labkit.ports.Inspection`.

    Args:
        streams: client and prefix.
    """

    def __init__(self, streams: RedisStreams) -> None:
        self._streams = streams

    def look(self, stream: Stream) -> list[PartitionState]:
        """Return the partitions that exist."""
        keys = [self._streams.stream_key(stream, p) for p in range(stream.partitions)]
        length, found = self._ask(("exists", key) for key in keys), []
        present = [p for p, exists in enumerate(length) if exists]
        answers = self._ask(
            command
            for p in present
            for command in (("xlen", keys[p]), ("xinfo_groups", keys[p]), ("time",))
        )
        for place, partition in enumerate(present):
            entries, groups, now = answers[3 * place : 3 * place + 3]
            states = self._groups(keys[partition], groups, now[0] + now[1] / 1e6)
            found.append(PartitionState(partition, entries, states))
        return found

    def _groups(
        self, key: str, groups: Sequence[dict[str, Any]], now_s: float
    ) -> tuple[GroupState, ...]:
        answers = self._ask(
            command
            for each in groups
            for command in (
                ("xpending", key, each["name"]),
                ("xrange", key, f"({each['last-delivered-id'].decode()}", "+", 1),
                ("xinfo_consumers", key, each["name"]),
            )
        )
        states = []
        for place, each in enumerate(groups):
            pending, undelivered, consumers = answers[3 * place : 3 * place + 3]
            oldest = undelivered[0][0] if undelivered else None
            states.append(
                GroupState(
                    group=each["name"].decode(),
                    # Redis cannot tell after an entry was deleted from the middle.
                    lag=each.get("lag"),
                    pending=pending["pending"],
                    lag_age_s=_age_s(oldest, now_s),
                    pending_age_s=_age_s(pending["min"], now_s),
                    consumers=tuple(one["name"].decode() for one in consumers),
                )
            )
        return tuple(states)

    def _ask(self, commands: Any) -> list[Any]:
        pipeline = self._streams.client.pipeline(transaction=False)
        for name, *arguments in commands:
            getattr(pipeline, name)(*arguments)
        with naming_errors():
            return pipeline.execute()


def _age_s(position: bytes | None, now_s: float) -> float:
    """Return how long ago an entry was published: its id begins with Redis' time in ms."""
    if not position:
        return 0.0
    return max(0.0, now_s - int(position.split(b"-")[0]) / 1000)
