"""Breakers for tests: of each kind, with a time that moves when told to.

Redis' own clock cannot be moved; what it stored can be made older, which is the same to a script.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labkit.breaker import LocalBreaker, SharedBreaker, connect
from labkit.breaker.rules import BUCKETS
from labkit.clock import FakeClock

KINDS = ("local", "strict", "cached")
PATIENT_S = 1.0  # a test's machine is busier than a breaker's client allows for
Breaker = LocalBreaker | SharedBreaker


class SickError(Exception):
    """The dependency failed."""


def fail() -> NoReturn:
    raise SickError("no answer")


def work() -> str:
    return "done"


def attempt(breaker: Any, func: Any = fail, times: int = 1) -> list[str]:
    """Call so often; return what was raised, or returned, each time."""
    heard = []
    for _ in range(times):
        try:
            heard.append(str(breaker.call(func)))
        except Exception as error:  # noqa: BLE001 - the test says what it expects
            heard.append(type(error).__name__)
    return heard


def open_up(breaker: Any) -> None:
    """Let as many calls fail as it takes."""
    attempt(breaker, times=breaker.rules.min_calls)
    assert breaker.current_state == "open"


class Rig:
    """Makes breakers of one kind and moves their time."""

    def __init__(self, kind: str, redis_url: str) -> None:
        self.kind, self.clock = kind, FakeClock()
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.client = connect(redis_url, PATIENT_S)
        self.settings: dict[str, Any] = {"min_calls": 4, "clock": self.clock, "random": lambda: 0.5}
        self._window_s = 10.0

    def make(self, **settings: Any) -> Any:
        """Return another breaker of the same name."""
        name = settings.pop("name", self.name)
        self._window_s = settings.get("window_s", 10.0)
        if self.kind == "local":
            return LocalBreaker(name, **(self.settings | settings))
        settings.setdefault("refresh_s", 0.05 if self.kind == "cached" else 0)
        return SharedBreaker(name, self.client, **(self.settings | settings))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.kind != "local":
            age(self.client, self.name, seconds, self._window_s)

    def forget(self) -> None:
        for key in self.client.scan_iter(match=f"{{cb:{self.name}*"):
            self.client.delete(key)
        self.client.close()


@contextlib.contextmanager
def rig_of(kind: str, redis_url: str) -> Iterator[Rig]:
    made = Rig(kind, redis_url)
    yield made
    made.forget()


def age(client: redis.Redis, name: str, seconds: float, window_s: float = 10.0) -> None:
    """Make everything that Redis stores about a breaker older."""
    key, ms = f"{{cb:{name}}}", round(seconds * 1000)
    client.hincrby(key, "open_until", -ms)
    row: Any = client.hgetall(f"{key}:window")
    client.delete(f"{key}:window")
    for field, value in row.items():
        bucket = int(field[1:]) - round(seconds / (window_s / BUCKETS))
        client.hset(f"{key}:window", f"{field[:1].decode()}{bucket}", value)
    trials: Any = client.zrange(f"{key}:trial", 0, -1)
    for trial in trials:
        client.zincrby(f"{key}:trial", -ms, trial)


def decoding(redis_url: str) -> redis.Redis:
    """Return a client that decodes responses."""
    return redis.Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=PATIENT_S,
        socket_connect_timeout=PATIENT_S,
        retry=Retry(NoBackoff(), 0),
    )
