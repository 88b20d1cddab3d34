"""The state of a breaker in Redis, shared by every process that uses its name.

Guarantee: each question and each result is one script, so that of all processes one makes a
transition, one gets the permit of a trial, and the transition is in the stream once.
Not guaranteed: what Redis loses (no AOF, a failover, FLUSHALL): then the breaker is closed, and
its stream says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, cast

import redis
from redis.exceptions import NoScriptError, RedisError

from labkit.breaker import scripts
from labkit.breaker.rules import CLOSED, Answer, Counts, Rules, Transition, jitter, new_trial
from labkit.errors import BrokerUnavailableError

_MS = 1000
_SHAS = {
    script: sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (scripts.ADMIT, scripts.RECORD, scripts.MOVE, scripts.LOOK)
}


class RedisStore:
    """A `Store` in Redis.

    Args:
        name: of the breaker; a part of every key.
        client: its time limits were checked.
        rules: when to open, and for how long.
        random: from 0 to 1, for the jitter.
    """

    def __init__(
        self, name: str, client: redis.Redis, rules: Rules, random: Callable[[], float]
    ) -> None:
        tag = f"{{cb:{name}}}"
        self.keys = (tag, f"{tag}:window", f"{tag}:trial", f"{tag}:events")
        self._client, self._rules, self._random = client, rules, random
        self._last = Answer(CLOSED, 0)
        longest_s = max(rules.window_s, rules.longest_open_s, rules.lease_s)
        self._ttl_ms = _ms(max(scripts.LEAST_TTL_S, 10 * longest_s))
        self._open_ms = (rules.open_s * _MS, rules.longest_open_s * _MS)
        self._lease_ms = _ms(rules.lease_s)
        self._trip = (
            _ms(rules.window_s),
            rules.min_calls,
            rules.failure_rate,
            rules.slow_rate,
            rules.success_threshold,
        )

    def admit(self) -> Answer:
        """See `Store`."""
        return self._run(scripts.ADMIT, self._lease_ms, new_trial())

    def record(self, counts: Counts, generation: int, trial: str = "") -> Answer:
        """See `Store`."""
        return self._run(scripts.RECORD, generation, trial, *counts, *self._trip)

    def move(self, to: str, why: str) -> Answer:
        """See `Store`."""
        return self._run(scripts.MOVE, to, why)

    def look(self) -> Answer:
        """Return the state, without asking for anything."""
        return self._run(scripts.LOOK)

    def seen(self) -> Counts:
        """Return what the window holds, as of the last call that was counted."""
        row = cast("dict[Any, Any]", self._client.hgetall(self.keys[1]))
        sums = dict.fromkeys("cfs", 0)
        for field, value in row.items():
            sums[_text(field)[0]] += int(value)
        return Counts(*sums.values())

    def successes(self) -> int:
        """Return how many trials went well in this half-open state."""
        return int(cast("bytes", self._client.hget(self.keys[0], "successes")) or 0)

    def events(self) -> list[Transition]:
        """Return the last transitions, oldest first."""
        entries = cast("list[Any]", self._client.xrange(self.keys[3]))
        return [_transition(_text(entry_id), fields) for entry_id, fields in entries]

    def _run(self, script: str, *arguments: str | float) -> Answer:
        keys_and_arguments = (
            *self.keys,
            self._last.state,
            self._last.generation,
            self._ttl_ms,
            *self._open_ms,
            jitter(self._random()),
            *arguments,
        )
        # Why not register_script: it costs 5 µs a call, a tenth of the whole round trip.
        try:
            found: Any = self._client.evalsha(_SHAS[script], len(self.keys), *keys_and_arguments)
        except NoScriptError:
            found = self._client.eval(script, len(self.keys), *keys_and_arguments)
        state, generation, trial, wait_ms = found
        self._last = Answer(_text(state), generation, _text(trial), wait_ms / _MS)
        return self._last


@contextmanager
def needing_redis(name: str) -> Iterator[None]:
    """Say what it means that Redis does not answer: for what cannot be done without it.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    try:
        yield
    except RedisError as error:
        raise BrokerUnavailableError(
            f"{name}: its state is in Redis, which did not answer: {error}"
        ) from error


def _ms(seconds: float) -> int:
    return max(1, round(seconds * _MS))


def _text(value: bytes | str) -> str:
    """Return text, whether or not the client decodes responses."""
    return value.decode() if isinstance(value, bytes) else value


def _transition(entry_id: str, fields: dict[Any, Any]) -> Transition:
    told = {_text(key): _text(value) for key, value in fields.items()}
    return Transition(
        at=datetime.fromtimestamp(int(entry_id.partition("-")[0]) / _MS, UTC),
        before=told["before"],
        after=told["after"],
        why=told["why"],
        generation=int(told["generation"]),
        wait_s=int(told["wait_ms"]) / _MS,
    )
