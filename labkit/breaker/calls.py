"""What both breakers have in common: the protected call, and all that pybreaker promises about it.

The problem: pybreaker holds a lock while the protected call runs, and counts what is no failure.
Here a call is three moments, and only the first and the last touch the state: may it begin, does
it run (nothing is held), what became of it.

Guarantee: the exception of the protected call is raised as it is, also by the call that opens the
breaker. Outcomes are three: success, failure, and ignored; ignored are excluded exceptions (a
business no), what was refused without trying (`RejectedError`), and what is no `Exception`
(KeyboardInterrupt, SystemExit, a cancelled task).
Not guaranteed: anything about generators: what they yield comes after the call, so they are refused.
"""

from __future__ import annotations

import inspect
import itertools
import os
import time
import types
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, NoReturn, TypeVar

import pybreaker

from labkit import limits
from labkit.breaker.rules import (
    CLOSED,
    HALF_OPEN,
    IGNORED,
    OPEN,
    PASSING,
    Answer,
    Counts,
    Rules,
    Store,
)
from labkit.clock import Clock
from labkit.errors import BreakerOpenError, RejectedError
from labkit.signals import Signals

T = TypeVar("T")
Exclusion = type[BaseException] | Callable[[Any], bool]
_PATTERN = "breaker"
_LATER = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_STATES: dict[str, Callable[[pybreaker.CircuitBreaker], pybreaker.CircuitBreakerState]] = {
    CLOSED: pybreaker.CircuitClosedState,
    OPEN: pybreaker.CircuitOpenState,
    HALF_OPEN: lambda breaker: pybreaker.CircuitHalfOpenState(breaker, None),
}


class CircuitOpenError(BreakerOpenError, pybreaker.CircuitBreakerError):
    """The breaker is open; code written for pybreaker catches it too."""


class Permit(NamedTuple):
    """What a call was admitted with; its result goes to the same store."""

    store: Store
    generation: int
    token: str = ""


class ProtectedCalls(pybreaker.CircuitBreaker):
    """A breaker without a state: subclasses say where that is kept.

    Args:
        name: of what is protected; mandatory, since it is a part of the keys.
        rules: when to open, and for how long.
        exclude: exception classes, or predicates, of what is no failure of the dependency.
        listeners: pybreaker's; told in the thread of the call.
        signals: told of transitions and of refused calls.
        clock: measures calls and pauses.
    """

    def __init__(
        self,
        name: str,
        rules: Rules,
        *,
        exclude: Sequence[Exclusion],
        listeners: Sequence[pybreaker.CircuitBreakerListener],
        signals: Signals | None,
        clock: Clock | None,
    ) -> None:
        limits.name("a breaker's name", name)
        self.rules = rules
        # Not a method of SystemClock: it is read twice per call.
        self._monotonic_s = time.monotonic if clock is None else clock.monotonic_s
        self._signals = signals
        self._known = Answer(CLOSED, 0)
        self._tokens = itertools.count()
        super().__init__(
            reset_timeout=rules.open_s,
            success_threshold=rules.success_threshold,
            exclude=exclude,  # type: ignore[arg-type]
            listeners=listeners,
            name=name,
            throw_new_error_on_trip=False,
        )

    @abstractmethod
    def _admit(self, now_s: float) -> Permit:
        """Return a permit, or raise CircuitOpenError."""

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function, unless the breaker is open.

        Args:
            func: what is protected; its arguments follow.

        Returns:
            What it returns.

        Raises:
            CircuitOpenError: the breaker is open, and nothing was called.
            TypeError: `func` is a coroutine function (use `acall`) or a generator function.
        """
        started_s = self._monotonic_s()
        permit = self._admit(started_s)
        if self._listeners:
            self._tell_before(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._failed(permit, error, started_s)
            raise
        if type(result) in _LATER:
            self._refuse(permit, result)
        self._succeeded(permit, started_s)
        return result

    async def acall(self, func: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Await a coroutine function, unless the breaker is open; see `call`.

        Asking Redis does not await: in cached mode once per `refresh_s`, for a fraction of a
        millisecond, at worst for the client's `socket_timeout`.
        """
        started_s = self._monotonic_s()
        permit = self._admit(started_s)
        if self._listeners:
            self._tell_before(func, args, kwargs)
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            self._failed(permit, error, started_s)
            raise
        self._succeeded(permit, started_s)
        return result

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Protect a block; see `call`."""
        started_s = self._monotonic_s()
        permit = self._admit(started_s)
        if self._listeners:
            self._tell_before(self.calling, (), {})
        try:
            yield
        except BaseException as error:
            self._failed(permit, error, started_s)
            raise
        self._succeeded(permit, started_s)

    def __call__(self, *call_args: Any, **call_kwargs: Any) -> Callable[..., Any]:
        """Protect a function, also a coroutine function: `@breaker` or `@breaker()`."""
        if call_kwargs:
            raise TypeError(f"a breaker takes a function, not {', '.join(call_kwargs)}")
        return self._protect(*call_args) if call_args else self._protect

    def call_async(self, func: Any, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[no-untyped-def, unused-ignore]
        """Refuse Tornado's coroutines."""
        raise TypeError("call_async is Tornado's: use acall, or decorate the coroutine function")

    def is_system_error(self, exception: BaseException) -> bool:  # type: ignore[override]
        """Tell whether an exception counts as a failure of the dependency."""
        if not isinstance(exception, Exception) or isinstance(exception, RejectedError):
            return False
        return not any(_excludes(each, exception) for each in self._excluded_exceptions)

    def _protect(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(func):

            @wraps(func)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await self.acall(func, *args, **kwargs)

            return awaited

        @wraps(func)
        def called(*args: Any, **kwargs: Any) -> Any:
            return self.call(func, *args, **kwargs)

        return called

    def _token(self) -> str:
        """Return what names one permit among all processes; a forked child has another pid."""
        return f"{os.getpid()}.{id(self)}.{next(self._tokens)}"

    def _permit_of(self, store: Store, answer: Answer, token: str) -> Permit:
        """Turn an answer into a permit, or into a refusal."""
        self._notice(answer)
        if answer.trial:
            return Permit(store, answer.generation, token)
        if answer.state in PASSING:
            return Permit(store, answer.generation)
        raise self._rejection(answer.state, answer.wait_s)

    def _rejection(self, state: str, wait_s: float) -> CircuitOpenError:
        # Who forced it open will say when; until then callers come back as to an open one.
        wait_s = wait_s if state in {OPEN, HALF_OPEN} else self.rules.open_s
        self._tell("rejected", state)
        return CircuitOpenError(self._name or "", wait_s)

    def _settle(self, permit: Permit, counts: Counts) -> None:
        """Tell the store what became of a call; ignored ones only give a trial's permit back."""
        if counts is not IGNORED or permit.token:
            self._notice(permit.store.record(counts, permit.generation, permit.token))

    def _succeeded(self, permit: Permit, started_s: float) -> None:
        took_s = self._monotonic_s() - started_s
        self._settle(permit, self.rules.outcome(took_s, failed=False))
        for listener in self._listeners:
            listener.success(self)

    def _failed(self, permit: Permit, error: BaseException, started_s: float) -> None:
        if not self.is_system_error(error):
            self._settle(permit, IGNORED)
            return
        took_s = self._monotonic_s() - started_s
        for listener in self._listeners:
            listener.failure(self, error)
        self._settle(permit, self.rules.outcome(took_s, failed=True))
