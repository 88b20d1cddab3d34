"""Redis Streams as a transport: one stream per partition, one fence beside it.

Keys share a hash tag, so that a script may touch them together on a cluster:

    {inventory.events:3}               the stream; an entry has one field, `body`
    {inventory.events:3}:relay         hash: epoch of the owner, head = last batch published
    {inventory.events:3}:group:NAME    hash: epoch of the owner
    {inventory.events:3}:log           see `labkit.transports.redis_log`
    {inventory.events}:partitions      how many there are; another number is refused

Guarantee: a batch is appended whole or not at all, and never by an owner that lost its lease:
epoch check, head check, XADDs and the new head are one script.
Not guaranteed: that Redis keeps what it acknowledged (no AOF, a failover): the relay notices by the
head. Blocking reads look at several keys at once, which a cluster of several nodes refuses. No
command is newer than Redis 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis

from labkit import limits
from labkit.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    HeadMismatchError,
    LeaseLostError,
    RefusedByBrokerError,
)
from labkit.ports import Entry, Stream
from labkit.transports.redis_connection import connect, naming_errors
from labkit.transports.redis_log import RedisLog

__all__ = ["MAX_ENTRY_BYTES", "RedisPublisher", "RedisStreams", "RedisSubscription", "connect"]

MAX_ENTRY_BYTES = 1_048_576
_CONSUMER = "owner"
# Shorter than the client's time limit, and short enough to notice that we were told to stop.
_LONGEST_BLOCK_S = 1.0

_CHECK_EPOCH = """
local epoch = redis.call('hget', KEYS[2], 'epoch')
if not epoch then return {'LOST'} end
if tonumber(epoch) > tonumber(ARGV[1]) then return {'STALE'} end
if epoch ~= ARGV[1] then return {'LOST'} end
"""

_RAISE_EPOCH = """
local epoch = tonumber(redis.call('hget', KEYS[1], 'epoch') or '0')
if epoch > tonumber(ARGV[1]) then return 0 end
redis.call('hset', KEYS[1], 'epoch', ARGV[1])
return 1
"""

# A stream that was deleted, or made anew by a reader, has lost what the head says.
_FIND_HEAD = """
local head, last = redis.call('hget', KEYS[2], 'head') or '', '0-0'
local info = redis.pcall('xinfo', 'stream', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
if last == '0-0' then head = '' end
"""

_PUBLISH = """
if head ~= ARGV[2] then return {'HEAD', head} end
for i = 4, #ARGV do redis.call('xadd', KEYS[1], '*', 'body', ARGV[i]) end
redis.call('hset', KEYS[2], 'head', ARGV[3])
return {'OK'}
"""

_READ = """
return {'OK', redis.call('xreadgroup', 'group', ARGV[2], ARGV[3], 'count', ARGV[4],
                         'streams', KEYS[1], ARGV[5])}
"""


class RedisStreams:
    """Makes publishers and subscriptions on one Redis.

    Args:
        client: a redis-py client without `decode_responses` (bodies are bytes).
        prefix: put before every key, so that tests and tenants share a server.

    Raises:
        ConfigurationError: when the client decodes responses, or the prefix cannot be in a key.
    """

    def __init__(self, client: redis.Redis, prefix: str = "") -> None:
        limits.kind("client", client, redis.Redis)
        limits.name("prefix", prefix, empty=True)
        if client.get_connection_kwargs().get("decode_responses"):
            raise ConfigurationError(
                "give RedisStreams a client without decode_responses=True: bodies are bytes"
            )
        self.client = client
        self.prefix = prefix

    def publisher(self, stream: Stream) -> RedisPublisher:
        """Return a publisher for a stream."""
        return RedisPublisher(self, stream)

    def subscription(self, stream: Stream, group: str, start: str) -> RedisSubscription:
        """Return a subscription of a group, which begins at `start` (`0` or `$`) if it is new."""
        return RedisSubscription(self, stream, group, start)

    def log(self, stream: Stream) -> RedisLog:
        """Return a stream's log."""
        return RedisLog(self.client, [self.stream_key(stream, p) for p in range(stream.partitions)])

    def stream_key(self, stream: Stream, partition: int) -> str:
        """Return the key of one partition's stream."""
        return f"{{{self.prefix}{stream.name}:{partition}}}"

    def check_partitions(self, stream: Stream) -> None:
        """Remember the number of partitions, or refuse another one.

        Raises:
            ConfigurationError: when the stream has another number: its keys would change place
                and lose their order.
        """
        key = f"{{{self.prefix}{stream.name}}}:partitions"
        with naming_errors(key):
            self.client.set(key, stream.partitions, nx=True)
            known = int(cast("bytes", self.client.get(key)) or stream.partitions)
        if known != stream.partitions:
            raise ConfigurationError(
                f"{stream.name} has {known} partitions, not {stream.partitions}: keys would move; "
                f"drain it and delete {key} to change the number"
            )


class _Fenced:
    """Epochs of one role (the relay, or one group) on the partitions of one stream."""

    def __init__(self, streams: RedisStreams, stream: Stream, role: str) -> None:
        self.stream = stream
        self._streams = streams
        self._client = streams.client
        self._role = role
        self._raise_epoch = self._client.register_script(_RAISE_EPOCH)

    def epoch(self, partition: int) -> int:
        """Return the epoch that Redis knows, 0 when it knows none.

        Raises:
            ConfigurationError: when the stream has another number of partitions.
        """
        # Here, since whoever takes a partition asks first, also after Redis lost everything.
        self._streams.check_partitions(self.stream)
        with naming_errors(self._fence(partition)):
            return int(cast("bytes", self._client.hget(self._fence(partition), "epoch")) or 0)

    def raise_epoch(self, partition: int, epoch: int) -> None:
        """Shut out every owner below `epoch`."""
        with naming_errors(self._fence(partition)):
            raised = self._raise_epoch(keys=[self._fence(partition)], args=[epoch])
        if not raised:
            raise LeaseLostError(partition, "a newer owner raised the epoch in Redis")

    def _stream(self, partition: int) -> str:
        return self._streams.stream_key(self.stream, partition)

    def _fence(self, partition: int) -> str:
        return f"{self._stream(partition)}:{self._role}"

    def _refuse_unless_ours(self, partition: int, verdict: bytes) -> None:
        if verdict == b"STALE":
            raise LeaseLostError(partition)
        if verdict == b"LOST":
            raise LeaseLostError(partition, "its epoch is gone: emptied, or restored from backup")


class RedisPublisher(_Fenced):
    """Appends numbered batches under an epoch. See `labkit.ports.Publisher`."""

    def __init__(self, streams: RedisStreams, stream: Stream) -> None:
        super().__init__(streams, stream, "relay")
        self._head = self._client.register_script(_FIND_HEAD + "return head")
        self._publish = self._client.register_script(_CHECK_EPOCH + _FIND_HEAD + _PUBLISH)

    def head(self, partition: int) -> int | None:
        """Return the last batch that Redis knows, None when it knows none."""
        with naming_errors(self._fence(partition)):
            head: bytes = self._head(keys=[self._stream(partition), self._fence(partition)])
            return int(head) if head else None

    def publish(
        self, partition: int, *, epoch: int, head: int | None, batch: int, bodies: Sequence[str]
    ) -> None:
        """Append a batch whole, or raise and append nothing."""
        for index, body in enumerate(bodies):
            # A character is four bytes at most, so few bodies need to be measured.
            if len(body) > MAX_ENTRY_BYTES // 4 and len(body.encode()) > MAX_ENTRY_BYTES:
                raise RefusedByBrokerError(index, f"larger than {MAX_ENTRY_BYTES} bytes")
        args = [epoch, "" if head is None else head, batch, *bodies]
        with naming_errors(self._stream(partition)):
            reply = self._publish(keys=[self._stream(partition), self._fence(partition)], args=args)
        self._refuse_unless_ours(partition, reply[0])
        if reply[0] == b"HEAD":
            raise HeadMismatchError(partition, int(reply[1]) if reply[1] else None)


class RedisSubscription(_Fenced):
    """Reads partitions for one group under an epoch. See `labkit.ports.Subscription`.

    Every owner reads under the same consumer name, so that whoever comes next finds what the
    last one left pending.
    """

    # Why not XAUTOCLAIM: pending entries already belong to the one name; the lease decides who
    # may use it, and an idle time would only guess at that.

    def __init__(self, streams: RedisStreams, stream: Stream, group: str, start: str) -> None:
        super().__init__(streams, stream, f"group:{group}")
        self.group = group
        self._start = start
        self._read = self._client.register_script(_CHECK_EPOCH + _READ)
        self._seen: dict[int, str] = {}

    def raise_epoch(self, partition: int, epoch: int) -> None:
        """Shut out older owners and make sure that the group exists."""
        # Only the first owner ever meets a group that is missing because it is new. Later ones
        # meet one that was lost, and must not skip what was there before it.
        self._create_group(partition, self._start if epoch == 1 else "0")
        self._seen.pop(partition, None)
        super().raise_epoch(partition, epoch)

    def read_pending(self, partition: int, *, epoch: int, after: str, count: int) -> list[Entry]:
        """Return what was delivered and never acknowledged, after a position (`0` = all)."""
        return self._entries(partition, epoch, after, count)

    def read_new(self, partition: int, *, epoch: int, count: int) -> list[Entry]:
        """Return what was never delivered to the group."""
        entries = self._entries(partition, epoch, ">", count)
        if entries:
            self._seen[partition] = entries[-1].position
        return entries

    def ack(self, partition: int, positions: Sequence[str]) -> None:
        """Acknowledge positions."""
        if positions:
            with naming_errors():
                self._client.xack(self._stream(partition), self.group, *positions)

    def wait(self, partitions: Sequence[int], timeout_s: float) -> list[int]:
        """Return which partitions have an entry after the last one seen; 0 seconds look once."""
        # Why not `$`: an entry that came between the last read and this call would not wake us.
        for partition in set(partitions) - self._seen.keys():
            self._seen[partition] = self._last_id(partition)
        after = {self._stream(partition): self._seen[partition] for partition in partitions}
        block_ms = max(1, int(min(timeout_s, _LONGEST_BLOCK_S) * 1000)) if timeout_s else None
        with naming_errors():
            reply = cast("Any", self._client.xread(cast("Any", after), count=1, block=block_ms))
        found = {stream.decode() for stream, _ in reply or ()}
        return [partition for partition in partitions if self._stream(partition) in found]

    def _last_id(self, partition: int) -> str:
        with naming_errors():
            groups = self._client.xinfo_groups(self._stream(partition))
        mine = [g for g in groups if g["name"] == self.group.encode()]
        return cast("bytes", mine[0]["last-delivered-id"]).decode() if mine else "0"

    def _entries(self, partition: int, epoch: int, start: str, count: int) -> list[Entry]:
        keys = [self._stream(partition), self._fence(partition)]
        args: list[str | int] = [epoch, self.group, _CONSUMER, count, start]
        try:
            with naming_errors(self._stream(partition)):
                reply = self._read(keys=keys, args=args)
        except BrokerUnavailableError as error:
            if "NOGROUP" not in str(error):
                raise
            # The stream was lost. Why not `$`: what came in between would never be read; the
            # inbox absorbs what `0` repeats.
            self._create_group(partition, "0")
            self._seen.pop(partition, None)
            return []
        self._refuse_unless_ours(partition, reply[0])
        return [_entry(raw) for raw in (reply[1][0][1] if reply[1] else [])]

    def _create_group(self, partition: int, start: str) -> None:
        key = self._stream(partition)
        try:
            with naming_errors(key):
                self._client.xgroup_create(key, self.group, id=start, mkstream=True)
        except BrokerUnavailableError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _entry(raw: Sequence[Any]) -> Entry:
    position, fields = raw[0].decode(), raw[1]
    if not fields:
        return Entry(position, None)
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    # An entry that somebody else wrote has no body: an empty one is refused as no message.
    return Entry(position, named.get(b"body", b""))
