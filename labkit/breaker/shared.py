"""A breaker that many processes share through Redis.

Two modes. Strict (`refresh_s=0`): every call asks before and tells afterwards. Cached: a closed
breaker is asked once per `refresh_s`; successes are told in batches with that question, bad calls
at once. So a call costs less than a microsecond, and a process may go on for up to `refresh_s`
after another one opened the breaker.

While Redis is away each process protects its calls by itself, by the same rules, and looks again
once per `AWAY_S`.
"""

from __future__ import annotations

import logging
import random as random_module
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pybreaker
import redis
from redis.exceptions import RedisError

from labkit import limits
from labkit.breaker import connection
from labkit.breaker.calls import Permit, ProtectedCalls
from labkit.breaker.circuit import Circuit
from labkit.breaker.notices import Exclusion
from labkit.breaker.rules import (
    FORCED_OPEN,
    IGNORED,
    PASSING,
    SUCCESS,
    Answer,
    Counts,
    Rules,
    Store,
    Transition,
)
from labkit.breaker.store import RedisStore, needing_redis
from labkit.breaker.tally import Tally
from labkit.clock import Clock, SystemClock
from labkit.signals import Signals

log = logging.getLogger(__name__)
AWAY_S = 1.0
_NEVER = float("-inf")


class SharedBreaker(ProtectedCalls):
    """A breaker whose state is in Redis, under its name.

    Args:
        name: of what is protected, such as `payments`; all breakers of this name are one.
        client: from `labkit.breaker.connect`; it may be unreachable now.
        failure_rate: opens when so large a part of the window's calls failed, up to 1.
        slow_call_s: a call of so many seconds counts as slow; None: none does.
        slow_rate: opens when so large a part of the window's calls were slow.
        min_calls: of the window, before it may open.
        window_s: how far back calls count.
        open_s: how long it stays open the first time; doubled with each trial that fails.
        max_open_s: where that ends; None: ten times `open_s`. Jitter of a tenth comes on top.
        success_threshold: trials that must go well, one after the other, before it closes.
        trial_lease_s: after so long without a result the next trial begins; None: `open_s`.
        refresh_s: how old the knowledge of a closed breaker may be; 0: strict.
        exclude: exception classes, or predicates, of what is no failure of the dependency.
        listeners: pybreaker's; told in the thread of the call.
        signals: told of transitions, refused calls, and of Redis going and coming back.
        clock: measures calls and pauses; the times in Redis are Redis' own.
        random: from 0 to 1, for the jitter.

    Raises:
        ConfigurationError: when a setting cannot be, or the client could hang protected calls.
    """

    def __init__(
        self,
        name: str,
        client: redis.Redis,
        *,
        failure_rate: float = 0.5,
        slow_call_s: float | None = None,
        slow_rate: float = 1.0,
        min_calls: int = 20,
        window_s: float = 10.0,
        open_s: float = 5.0,
        max_open_s: float | None = None,
        success_threshold: int = 1,
        trial_lease_s: float | None = None,
        refresh_s: float = 0.05,
        exclude: Sequence[Exclusion] = (),
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
        signals: Signals | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        rules = Rules(
            failure_rate=failure_rate,
            slow_call_s=slow_call_s,
            slow_rate=slow_rate,
            min_calls=min_calls,
            window_s=window_s,
            open_s=open_s,
            max_open_s=max_open_s,
            success_threshold=success_threshold,
            trial_lease_s=trial_lease_s,
        )
        connection.check(client)
        limits.number("refresh_s", refresh_s, 0.0, 60.0)
        super().__init__(
            name, rules, exclude=exclude, listeners=listeners, signals=signals, clock=clock
        )
        self._store = RedisStore(name, client, rules, random)
        self._fallback = Circuit(rules, self._monotonic_s, (clock or SystemClock()).now, random)
        self._refresh_s = refresh_s
        # One thread asks for all; in strict mode everybody asks. Why not a Lock: a listener that is
        # told of the answer may call the breaker.
        self._asking = threading.RLock() if refresh_s else nullcontext()
        self._begin(0)
        self._measures = rules.slow_call_s is not None
        self._pass_until_s = self._refuse_until_s = self._away_until_s = _NEVER
        self._away = False

    def events(self) -> list[Transition]:
        """Return the last transitions that any process made, oldest first.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with needing_redis(self.name):
            return self._store.events()

    def seen(self) -> Counts:
        """Return the calls, failures and slow calls of the window, as far as they were told.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with needing_redis(self.name):
            return self._store.seen()

    @property
    def success_counter(self) -> int:
        """How many trials went well in this half-open state."""
        with needing_redis(self.name):
            return self._store.successes()

    def flush(self) -> None:
        """Tell Redis now which calls went well; for a process that ends, or goes idle."""
        if self._away:
            return
        try:
            self._flush()
        except RedisError as error:
            self._go_local(error)

    def _admit(self, now_s: float) -> Permit:
        if now_s < self._pass_until_s:
            return self._permit
        if permit := self._admit_unasked(now_s):
            return permit
        with self._asking:
            # Another thread may have asked while this one waited.
            now_s = self._monotonic_s()
            return self._admit_unasked(now_s) or self._ask(now_s)

    def _admit_unasked(self, now_s: float) -> Permit | None:
        """Decide by what is known; None when only Redis can tell."""
        if now_s < self._pass_until_s:
            return self._permit
        if now_s < self._refuse_until_s:
            raise self._rejection(self._known.state, self._open_until_s - now_s)
        return self._admit_alone() if now_s < self._away_until_s else None

    def _admit_alone(self) -> Permit:
        return self._permit_of(self._fallback, self._fallback.admit())

    def _ask(self, now_s: float) -> Permit:
        if self._away:
            # The others go on alone meanwhile, instead of waiting behind this look.
            self._away_until_s = now_s + AWAY_S
        try:
            answer = self._flush() or self._store.admit()
        except RedisError as error:
            self._go_local(error)
            return self._admit_alone()
        self._come_back()
        self._remember(answer)
        permit = self._permit_of(self._store, answer)
        in_common = not permit.trial and permit.generation == self._permit.generation
        return self._permit if in_common else permit

    def _flush(self) -> Answer | None:
        """Tell what was counted; the answer, if it lets calls pass, saves another question."""
        tally = self._tally
        calls = tally.take(self._monotonic_s())
        if not calls:
            return None
        answer = self._store.record(Counts(calls, 0, 0), tally.generation)
        return answer if answer.state in PASSING else None

    def _succeeded(self, permit: Permit, started_s: float) -> None:
        # The happy path of cached mode: nothing to measure, nobody to tell.
        if permit is self._permit and not (self._measures or self._listeners):
            permit.add()
        else:
            super()._succeeded(permit, started_s)

    def _settle(self, permit: Permit, counts: Counts) -> None:
        if permit.store is self._fallback:
            super()._settle(permit, counts)
        elif counts is SUCCESS and self._refresh_s and not permit.trial:
            permit.add()
        elif counts is not IGNORED or permit.trial:
            self._tell_store(permit, counts)

    def _tell_store(self, permit: Permit, counts: Counts) -> None:
        """Tell a result now, with the successes before it, so that the rate is right."""
        if self._away:
            return  # Why not try: the call would wait for Redis once more.
        tally = self._tally
        if permit.generation == tally.generation:
            calls = tally.take(self._monotonic_s())
            counts = counts._replace(calls=counts.calls + calls)
        try:
            answer = self._store.record(counts, permit.generation, permit.trial)
        except RedisError as error:
            self._go_local(error)
        else:
            self._remember(answer)

    def _remember(self, answer: Answer) -> None:
        """Notice a state; in cached mode let the next calls pass, or refuse them, unasked."""
        self._notice(self._store, answer)
        if not self._refresh_s or answer.trial or answer.generation < self._known.generation:
            return
        now_s = self._monotonic_s()
        if answer.generation != self._permit.generation:
            self._begin(answer.generation)
        self._pass_until_s = self._refuse_until_s = _NEVER
        if answer.state in PASSING:
            self._pass_until_s = now_s + self._refresh_s
        elif answer.state == FORCED_OPEN or answer.wait_s:
            # Somebody may close it by hand, so an open one is asked again as soon as a closed one.
            self._open_until_s = now_s + answer.wait_s
            self._refuse_until_s = now_s + min(self._refresh_s, answer.wait_s or self._refresh_s)

    def _begin(self, generation: int) -> None:
        """Give calls of a generation a permit in common, and a tally of their own."""
        self._tally = Tally(generation, self.rules.window_s, self._monotonic_s())
        self._permit = Permit(self._store, generation, add=self._tally.add)

    def _notice(self, store: Store, answer: Answer) -> None:
        # What was said by the one that is not in force any more is no news.
        if (store is self._fallback) == self._away:
            super()._notice(store, answer)

    def _look(self) -> Answer:
        if self._monotonic_s() < self._away_until_s:
            return self._fallback.answer
        try:
            answer = self._store.look()
        except RedisError as error:
            self._go_local(error)
            return self._fallback.answer
        self._come_back()
        self._notice(self._store, answer)
        return answer

    def _move(self, to: str, why: str) -> None:
        with needing_redis(self.name):
            answer = self._store.move(to, why)
        self._come_back()
        self._remember(answer)

    def _go_local(self, error: RedisError) -> None:
        """Protect calls by ourselves, from the state that was known last."""
        with self._lock:
            first = not self._away
            if first:
                left_s = max(0.0, self._open_until_s - self._monotonic_s())
                self._fallback.adopt(self._known._replace(wait_s=left_s))
            self._away = True
            self._pass_until_s = self._refuse_until_s = _NEVER
            self._away_until_s = self._monotonic_s() + AWAY_S
        if first:
            log.warning("%s: Redis is away, protecting alone: %s", self.name, error)
            self._tell("degraded", type(error).__name__)

    def _come_back(self) -> None:
        if not self._away:
            return
        with self._lock:
            first, self._away = self._away, False
            self._away_until_s = _NEVER
            # Redis counts generations by itself: its next answer is news.
            self._known = Answer(self._known.state, 0)
        if first:
            log.warning("%s: Redis answers again, protecting together", self.name)
            self._tell("recovered", "")
