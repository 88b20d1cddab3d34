"""A stream's log on Redis: who reads it, what may be deleted, and what somebody else deleted.

    {inventory.events:3}:log    hash: `removed` = how many entries left the stream by our hand

Guarantee: `trim` deletes an entry only when it is old enough on Redis' own clock and behind every
group, pending entries included; asking and deleting are one script, so no group can appear or
fall back in between.
Not guaranteed: that nobody else deletes. Redis counts what was ever added, so what is gone and not
by our hand shows as `vanished` (on servers before 7.0, which do not count, it does not).

Why not MAXLEN: it deletes what was never delivered, and the group's lag reads 0 afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import redis

from labkit.ports import Entry, LogState, Reader
from labkit.transports.redis_connection import naming_errors

_MS = 1000

_LOOK = """
local function named(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
local function above(a, b)
  local a_ms, a_n = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_n = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return tonumber(a_ms) > tonumber(b_ms) end
  return tonumber(a_n) > tonumber(b_n)
end
-- A stream that is not there answers with an error, which has no members.
local stream, groups = named(redis.pcall('xinfo', 'stream', KEYS[1])), {}
for i, raw in ipairs(redis.pcall('xinfo', 'groups', KEYS[1])) do
  local group = named(raw)
  group.last, group.needs = group['last-delivered-id'], group['last-delivered-id']
  if group.pending > 0 then group.needs = redis.call('xpending', KEYS[1], group.name)[2] end
  groups[i] = group
end
local gone = (stream['entries-added'] or 0) - (stream['length'] or 0)
if gone < 0 or not stream['entries-added'] then gone = 0 end
local function remember(removed) redis.call('hset', KEYS[2], 'removed', removed) end
local removed = tonumber(redis.call('hget', KEYS[2], 'removed') or '0')
-- More than ever left this stream: it was deleted and made anew.
if removed > gone then removed = gone; remember(removed) end
"""

_STATE = (
    _LOOK
    + """
local readers = {}
for i, group in ipairs(groups) do
  local behind = redis.call('xrange', KEYS[1], '(' .. group.last, '+', 'count', 1)
  local waits = group.pending > 0 or #behind > 0
  readers[i] = {group.name, group.needs, waits and 1 or 0}
end
return {gone - removed, readers}
"""
)

_TRIM = (
    _LOOK
    + """
local now = redis.call('time')
local bound_ms = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1])
local bound = string.format('%d-0', bound_ms)
local there = {}
for _, group in ipairs(groups) do
  there[group.name] = true
  if above(bound, group.needs) then bound = group.needs end
end
for i = 2, #ARGV do if not there[ARGV[i]] then return 0 end end
if #groups == 0 then return 0 end
local trimmed = redis.call('xtrim', KEYS[1], 'minid', bound)
if trimmed > 0 then remember(removed + trimmed) end
return trimmed
"""
)

_REPAIR = (
    _LOOK
    + """
local delivered = '0-0'
for _, group in ipairs(groups) do
  if above(group.last, delivered) then delivered = group.last end
end
for i = 2, #ARGV do
  if above(ARGV[i], delivered) then gone = gone + redis.call('xdel', KEYS[1], ARGV[i]) end
end
if gone > 0 then remember(gone) end
local head = tonumber(redis.call('hget', KEYS[3], 'head') or '-1')
if ARGV[1] ~= '' and head > tonumber(ARGV[1]) then redis.call('hset', KEYS[3], 'head', ARGV[1]) end
"""
)


class RedisLog:
    """The log of one stream. See `labkit.ports.Log`.

    Args:
        client: where it is.
        keys: the key of each partition's stream, in order.
    """

    def __init__(self, client: redis.Redis, keys: Sequence[str]) -> None:
        self._client = client
        self._streams = keys
        self._state = client.register_script(_STATE)
        self._trim = client.register_script(_TRIM)
        self._repair = client.register_script(_REPAIR)

    def state(self, partition: int) -> LogState:
        """Return the readers of a partition, and how many entries vanished from it."""
        with naming_errors():
            vanished, raw = cast("Any", self._state(keys=self._keys(partition)))
        readers = [
            Reader(group.decode(), needs.decode(), waits == 1) for group, needs, waits in raw
        ]
        return LogState(readers, vanished)

    def trim(self, partition: int, *, groups: Collection[str], kept_s: float) -> int:
        """Delete what is old enough and behind every group; nothing when one is missing."""
        with naming_errors():
            return cast(
                "int", self._trim(keys=self._keys(partition), args=[int(kept_s * _MS), *groups])
            )

    def entries(self, partition: int, *, after: str, count: int) -> list[Entry]:
        """Return what is there after a position."""
        with naming_errors():
            found = cast(
                "Any", self._client.xrange(self._streams[partition], f"({after}", count=count)
            )
        return [Entry(position.decode(), fields.get(b"body")) for position, fields in found]

    def repair(self, partition: int, *, head: int | None, positions: Sequence[str]) -> None:
        """Lower the head, and delete what nobody was given yet of what will come again."""
        args = ["" if head is None else head, *positions]
        with naming_errors():
            self._repair(keys=self._keys(partition), args=args)

    def drop_reader(self, group: str) -> None:
        """Delete a group on every partition where it is."""
        for stream in self._streams:
            with naming_errors():
                if self._client.exists(stream):
                    self._client.xgroup_destroy(stream, group)

    def _keys(self, partition: int) -> list[str]:
        stream = self._streams[partition]
        return [stream, f"{stream}:log", f"{stream}:relay"]
