"""Processes that call through a shared breaker, and a dependency that is told how to be.

The dependency notes each call in a stream of the same Redis, so that one clock times calls and
transitions.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import redis

from labkit.breaker import SharedBreaker, connect
from tests.breaking import PATIENT_S, SickError, attempt

PAUSE_S = 0.003


class Dependency:
    """What is protected: well, sick, or hanging, as a key says."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._mood, self._calls = f"{{cb:{name}}}:mood", f"{{cb:{name}}}:calls"

    def become(self, mood: str) -> None:
        self._client.set(self._mood, mood)

    @property
    def mood(self) -> str:
        found: Any = self._client.get(self._mood)
        return str(found, "utf-8")

    def __call__(self) -> None:
        mood = self.mood
        self._client.xadd(self._calls, {"mood": mood})
        if mood == "hanging":
            signal.pause()
        if mood != "well":
            raise SickError

    def calls_ms(self) -> list[int]:
        """Return when each call began, in milliseconds of Redis' clock."""
        entries: Any = self._client.xrange(self._calls)
        return [int(entry_id.split(b"-")[0]) for entry_id, _ in entries]


def keep_calling(url: str, name: str, settings: dict[str, Any]) -> None:
    """Be a process that calls until everybody is told to go home."""
    client = connect(url, PATIENT_S)
    dependency, breaker = Dependency(client, name), SharedBreaker(name, client, **settings)
    while dependency.mood != "gone":
        attempt(breaker, dependency)
        time.sleep(PAUSE_S)


def call_well_and_wait(url: str, name: str, settings: dict[str, Any], times: int) -> None:
    """Be a process that has counted successes, told nobody, and does not end."""
    client = connect(url, PATIENT_S)
    attempt(SharedBreaker(name, client, **settings), lambda: None, times)
    client.set(f"{{cb:{name}}}:mood", "counted")
    signal.pause()
