"""What each of eight processes does in one outage: calls through its own breaker and a shared one.

Apart from `labkit.lab.outage`, which starts them, so that they begin without what only draws. The
dependency is a counter in Redis: every call that reaches it is noted there with its wave, and fails
for as long as the outage lasts. Waiting is real: a breaker stays open for `OPEN_S` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Barrier
from typing import Any, NamedTuple

import pybreaker
import redis

from labkit.breaker import SharedBreaker, connect

OPEN_S = 0.5
WAVES, NOES, FAIL_MAX = 3, 5, 5
OWN, SHARED = "uno por proceso", "compartido"
_PATIENT_S = 1.0
_MOST_CALLS = 100


class DownError(Exception):
    """The dependency does not answer."""


class DeclinedError(Exception):
    """The dependency answers, and the answer is no."""


class Setting(NamedTuple):
    """Where the breakers' state and the dependency's counter are, and the name of both."""

    redis_url: str
    name: str


def breaker_of(setting: Setting, client: redis.Redis, what: str, **settings: Any) -> SharedBreaker:
    """Return the process's view of a shared breaker, strict, so that nothing is known late."""
    return SharedBreaker(
        f"{setting.name}-{what}", client, min_calls=FAIL_MAX, open_s=OPEN_S, max_open_s=OPEN_S,
        refresh_s=0, random=lambda: 0.5, **settings,
    )  # fmt: skip


def live_through_it(setting: Setting, number: int, meeting: Barrier) -> None:
    """Be one of the processes.

    Args:
        setting: where.
        number: of the process, from 0.
        meeting: where all wait for each other before each wave.
    """
    client = connect(setting.redis_url, _PATIENT_S)
    own = pybreaker.CircuitBreaker(fail_max=FAIL_MAX, reset_timeout=OPEN_S)
    shared = breaker_of(setting, client, "payments", exclude=(DeclinedError,))
    _hear_a_no(setting, client)
    meeting.wait()
    for wave in range(WAVES + 2):
        for kind, breaker in ((OWN, own), (SHARED, shared)):
            # Nothing is known before the first wave: everybody calls until a breaker opens.
            for _ in range(1 if wave else _MOST_CALLS):
                if not _call(breaker, _dependency(client, setting, (kind, wave, number))):
                    break
        meeting.wait()
        if wave <= WAVES:
            time.sleep(OPEN_S * 1.1)
            meeting.wait()


def _dependency(
    client: redis.Redis, setting: Setting, call: tuple[str, int, int]
) -> Callable[[], None]:
    def answer() -> None:
        kind, wave, number = call
        client.rpush(f"{setting.name}:calls", f"{kind}|{wave}|{number}|{time.time()}")
        if wave <= WAVES:
            raise DownError

    return answer


def _call(breaker: Any, dependency: Callable[[], None]) -> bool:
    """Call, and say whether the breaker let it pass."""
    try:
        breaker.call(dependency)
    except DownError:
        return True
    except pybreaker.CircuitBreakerError:
        return False
    return True


def _hear_a_no(setting: Setting, client: redis.Redis) -> None:
    counted = breaker_of(setting, client, "counted")
    excluded = breaker_of(setting, client, "excluded", exclude=(DeclinedError,))
    for breaker in (counted, excluded):
        for _ in range(NOES):
            try:
                breaker.call(_say_no)
            except DeclinedError:
                continue
            except pybreaker.CircuitBreakerError:
                break


def _say_no() -> None:
    raise DeclinedError
