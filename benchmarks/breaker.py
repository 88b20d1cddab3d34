"""Lines `breaker_cached`, `breaker_strict` and `breaker_local`: what a good call costs.

The protected function does nothing, so the time is the breaker's. The ceiling is pybreaker with
the same kind of state: in memory, or in Redis, where it keeps far less (its lock, its races and its
one counter are in docs/adr/0012). Afterwards the calls are counted where ours keeps them.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pybreaker
import redis

from benchmarks.arena import expect
from benchmarks.lines import Line, Target, line_of, seconds_of, take_turns
from benchmarks.size import Size
from labkit.breaker import LocalBreaker, SharedBreaker, connect
from labkit.lab.servers import Stack

CACHED = Target("value", at_least=False, limit=1.0)
STRICT = Target("ratio", at_least=False, limit=1.6)
UNIT = "µs/call"
MANY = 20  # calls in memory for each one that goes to Redis
WINDOW_S = 3_600.0


def measure_cached(servers: Stack, size: Size) -> list[Line]:
    """Compare cached mode with pybreaker in memory; its Redis storage is the peer."""
    with connect(servers.redis_url, 1.0) as client:
        many, few = size.transactions * MANY, size.transactions
        ours, memory, stored = take_turns(
            "breaker_cached",
            size.runs,
            lambda: _shared(client, many, refresh_s=0.05),
            lambda: _in_memory(many),
            lambda: _in_redis(client, few),
        )
    line = line_of("breaker_cached", UNIT, ours, memory, CACHED)
    peers = {"pybreaker in Redis": round(statistics.median(stored), 3)}
    return [msgspec.structs.replace(line, peers=peers)]


def measure_strict(servers: Stack, size: Size) -> list[Line]:
    """Compare strict mode with pybreaker's Redis storage."""
    with connect(servers.redis_url, 1.0) as client:
        ours, stored = take_turns(
            "breaker_strict",
            size.runs,
            lambda: _shared(client, size.transactions, refresh_s=0),
            lambda: _in_redis(client, size.transactions),
        )
    return [line_of("breaker_strict", UNIT, ours, stored, STRICT)]


def measure_local(_: Stack, size: Size) -> list[Line]:
    """Compare the breaker of one process with pybreaker in memory."""
    many = size.transactions * MANY
    ours, memory = take_turns(
        "breaker_local", size.runs, lambda: _local(many), lambda: _in_memory(many)
    )
    return [line_of("breaker_local", UNIT, ours, memory)]


def _shared(client: redis.Redis, calls: int, *, refresh_s: float) -> float:
    breaker = SharedBreaker(_name(), client, refresh_s=refresh_s, window_s=WINDOW_S)
    took = _microseconds(breaker, calls)
    breaker.flush()
    expect(breaker.seen().calls, calls, "calls counted in Redis")
    _forget(client, f"{{cb:{breaker.name}}}*")
    return took


def _local(calls: int) -> float:
    breaker = LocalBreaker(_name(), window_s=WINDOW_S)
    took = _microseconds(breaker, calls)
    expect(breaker.seen().calls, calls, "calls counted in memory")
    return took


def _in_memory(calls: int) -> float:
    return _microseconds(pybreaker.CircuitBreaker(), calls)


def _in_redis(client: redis.Redis, calls: int) -> float:
    namespace = _name()
    storage = pybreaker.CircuitRedisStorage("closed", client, namespace)
    took = _microseconds(pybreaker.CircuitBreaker(state_storage=storage), calls)
    _forget(client, f"{namespace}:*")
    return took


def _microseconds(breaker: Any, calls: int) -> float:
    """Return how long one call takes, the loop around it included."""
    call: Callable[[Callable[[], None]], None] = breaker.call

    def work() -> None:
        for _ in range(calls):
            call(_nothing)

    return seconds_of(work) / calls * 1e6


def _nothing() -> None:
    """Be the dependency at its fastest."""


def _name() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


def _forget(client: redis.Redis, pattern: str) -> None:
    for key in client.scan_iter(match=pattern):
        client.delete(key)
