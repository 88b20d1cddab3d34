"""Retry: tries again what may work the next time, without making a bad moment worse.

The loop is tenacity's (its `Retrying` with stop, wait and retry strategies). Around it stands what
a distributed system needs besides: only what is declared idempotent is tried again; all callers
share a budget; nobody sleeps past the deadline; what was refused, or can never work, is not tried.

    retry = Retry("stock", budget=RetryBudget(ratio=0.1))
    retry.call(client.reserve, "RES-1", idempotent=True)

Guarantee: at most `attempts` attempts; a pause is never longer than `cap_s` unless the other side
asked for it, and never longer than what is left of the deadline; the caller gets the last error
itself. One object serves any number of threads and tasks: an attempt's state belongs to its call.
Not guaranteed: that a first attempt which raised had no effect. That is why it must be idempotent.

Crash windows: none; nothing is stored.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import Any, NoReturn, TypeVar

from pybreaker import CircuitBreakerError
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, retry_if_result

from labkit import idempotency, limits
from labkit.budget import RetryBudget
from labkit.clock import Clock
from labkit.deadline import remaining_s
from labkit.errors import ConfigurationError, PermanentError, RejectedError, TransientError
from labkit.jitter import DECORRELATED, EQUAL, FULL, NONE, Jitter, delay_s
from labkit.signals import Signals

__all__ = ["DECORRELATED", "EQUAL", "FULL", "NONE", "Retry", "RetryBudget", "delay_s", "idempotent"]
T = TypeVar("T")
Worth = tuple[type[Exception], ...] | Callable[[Exception], bool]
# Refused, or wrong for ever: whatever `on` says, another attempt would be load for nothing.
NEVER = (RejectedError, CircuitBreakerError, PermanentError, ConfigurationError)
idempotent = idempotency.idempotent
USUAL = (TransientError, OSError)  # TimeoutError and ConnectionError are OSErrors


def told_s(error: BaseException) -> float | None:
    """Return how long the other side wants to be left alone: the error's `retry_after_s`."""
    told = getattr(error, "retry_after_s", None)
    return told if isinstance(told, int | float) else None


class Retry:
    """Tries again; one object per dependency, shared by whoever calls it.

    Args:
        name: whose it is, for signals and errors.
        attempts: at most, the first included.
        base_s: the longest pause after the first attempt.
        cap_s: the longest pause; whoever asks for a longer one gets no further attempt, since
            coming earlier would be rude and waiting for it is more than was agreed to.
        jitter: FULL, EQUAL, DECORRELATED or NONE; see `delay_s`.
        budget: shared by all that call the same dependency; none: every call has its attempts.
        on: the types that are worth another attempt, or a function that says so of an error. A
            refusal, a permanent error or a wrong set-up never is.
        on_result: says of a result that it is worth another attempt; the last one is returned.
        retry_after: says how long an error asks to wait, in seconds; the pause is added to it.
        clock: for how long the attempts took, in signals.
        sleep: how to wait; seconds.
        sleep_async: the same for `acall`.
        random: numbers from 0 up to, not including, 1.
        signals: hears `retry`, `recovered` and `gave up`.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        name: str,
        attempts: int = 3,
        base_s: float = 0.1,
        cap_s: float = 10.0,
        *,
        jitter: Jitter = FULL,
        budget: RetryBudget | None = None,
        on: Worth = USUAL,
        on_result: Callable[[Any], bool] | None = None,
        retry_after: Callable[[BaseException], float | None] = told_s,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
        signals: Signals | None = None,
    ) -> None:
        limits.name("the retry's name", name)
        limits.number("attempts", attempts, 1, 1_000_000)
        limits.number("base_s", base_s, 0.0)
        limits.number("cap_s", cap_s, 0.0)
        self.name, self.attempts = name, attempts
        self.base_s, self.cap_s = base_s, cap_s
        self.jitter = Jitter(jitter)
        self.budget, self.retry_after = budget, retry_after
        self.monotonic_s = time.monotonic if clock is None else clock.monotonic_s
        self.random, self.signals = random, signals
        self._on, self._on_result = on, on_result
        self._sleep, self._sleep_async = sleep, sleep_async

    def call(
        self, function: Callable[..., T], /, *args: Any, idempotent: bool = False, **options: Any
    ) -> T:
        """Call a function, and again when that may help.

        Args:
            function: what to call; `args` and `options` are its arguments.
            idempotent: declares for this call that doing it twice does no harm.

        Returns:
            The first result that needs no other attempt, or the last one.

        Raises:
            ConfigurationError: when nobody declared it idempotent, or it is a coroutine function.
            Exception: the last error, as the function raised it.
        """
        if not idempotent:
            idempotency.refuse_unless_idempotent(self.name, function)
        began_s = self.monotonic_s() if self.signals else 0.0  # only signals say how long
        # Why not tenacity from the start: its bookkeeping costs 8 µs, and most calls succeed.
        try:
            result = function(*args, **options)
        except Exception as error:
            if not self.is_worth(error):
                raise
            known = partial(_raise, error)
            return self._again(known, partial(function, *args, **options), began_s)
        if result.__class__ is CoroutineType:
            refuse_coroutine(result)
        if self._is_good(result):
            return result
        return self._again(lambda: result, partial(function, *args, **options), began_s)

    async def acall(
        self,
        function: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        idempotent: bool = False,
        **options: Any,
    ) -> T:
        """Await a function, and again when that may help; see `call`."""
        if not idempotent:
            idempotency.refuse_unless_idempotent(self.name, function)
        began_s = self.monotonic_s() if self.signals else 0.0  # only signals say how long
        try:
            result = await function(*args, **options)
        except Exception as error:
            if not self.is_worth(error):
                raise
            known = partial(_raise, error)
            return await self._again_async(known, partial(function, *args, **options), began_s)
        if self._is_good(result):
            return result
        again = partial(function, *args, **options)
        return await self._again_async(lambda: result, again, began_s)

    def _again(self, known: Callable[[], T], function: Callable[[], T], began_s: float) -> T:
        run, first = _Run(self, began_s), [known]

        def attempt() -> T:
            return first.pop()() if first else function()

        return run.ended(Retrying(sleep=self._sleep, **run.strategies())(attempt))

    async def _again_async(
        self, known: Callable[[], T], function: Callable[[], Awaitable[T]], began_s: float
    ) -> T:
        run, first = _Run(self, began_s), [known]

        async def attempt() -> T:
            return first.pop()() if first else await function()

        return run.ended(await AsyncRetrying(sleep=self._sleep_async, **run.strategies())(attempt))

    def is_worth(self, error: BaseException) -> bool:
        """Say whether an error is worth another attempt."""
        if not isinstance(error, Exception) or isinstance(error, NEVER):
            return False
        on = self._on
        return isinstance(error, on) if isinstance(on, tuple) else on(error)

    def asks_again(self, result: Any) -> bool:
        """Say whether a result is worth another attempt."""
        return self._on_result is not None and self._on_result(result)

    def _is_good(self, result: Any) -> bool:
        if self._on_result is not None and self._on_result(result):
            return False
        if self.budget is not None:
            self.budget.deposit()
        return True


class _Run:
    """What one call knows from its first failure on; tenacity asks it what to do next."""

    def __init__(self, retry: Retry, began_s: float) -> None:
        self._retry, self._began_s = retry, began_s
        self._previous_s: float | None = None
        self._told_s = 0.0
        self._why: str | None = None

    def strategies(self) -> dict[str, Any]:
        """Return tenacity's strategies for this call."""
        retry = self._retry
        return {
            "retry": retry_if_exception(retry.is_worth) | retry_if_result(retry.asks_again),
            "wait": self._wait_s,
            "stop": self._stops,
            "before_sleep": self._tell_retry,
            "retry_error_callback": self._give_up,
        }

    def ended(self, result: T) -> T:
        """Note that it ended well, unless it was given up."""
        if self._why is None:
            if self._retry.budget is not None:
                self._retry.budget.deposit()
            self._tell("recovered", f"after {self._took_s():.3f} s")
        return result

    def _wait_s(self, state: RetryCallState) -> float:
        retry, error = self._retry, _error_of(state)
        told_s = retry.retry_after(error) if error else None
        self._told_s = told_s if told_s is not None and told_s > 0 else 0.0
        self._previous_s = delay_s(
            state.attempt_number,
            base_s=retry.base_s,
            cap_s=retry.cap_s,
            jitter=retry.jitter,
            random=retry.random,
            previous_s=self._previous_s,
        )
        return self._told_s + self._previous_s

    def _stops(self, state: RetryCallState) -> bool:
        self._why = self._reason_to_stop(state)
        return self._why is not None

    def _reason_to_stop(self, state: RetryCallState) -> str | None:
        retry, left_s = self._retry, remaining_s()
        if state.attempt_number >= retry.attempts:
            return "attempts"
        if self._told_s > retry.cap_s:
            return "retry-after"
        if left_s is not None and state.upcoming_sleep >= left_s:
            return "deadline"
        # The last question, since what is taken from a budget is used.
        if retry.budget is not None and not retry.budget.take():
            return "budget"
        return None

    def _tell_retry(self, state: RetryCallState) -> None:
        ordinal, pause_s = state.attempt_number + 1, state.upcoming_sleep
        self._tell("retry", f"attempt {ordinal} in {pause_s:.3f} s, {_said(state)}")

    def _give_up(self, state: RetryCallState) -> Any:
        number = state.attempt_number
        self._tell(
            "gave up", f"{self._why}: {number} attempts, {self._took_s():.3f} s, {_said(state)}"
        )
        return state.outcome.result() if state.outcome else None

    def _took_s(self) -> float:
        return self._retry.monotonic_s() - self._began_s

    def _tell(self, what: str, detail: str) -> None:
        if self._retry.signals is not None:
            self._retry.signals.tell("retry", self._retry.name, what, detail)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _said(state: RetryCallState) -> str:
    error = _error_of(state)
    return type(error).__name__ if error else "result"


def _raise(error: Exception) -> NoReturn:
    raise error


def refuse_coroutine(result: Any) -> NoReturn:
    """Refuse a call that would do nothing until it is awaited, outside of all protection."""
    result.close()
    raise ConfigurationError("a coroutine function returns before it runs: await acall() instead")
