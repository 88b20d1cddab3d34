"""The protected call: may it begin, does it run, what became of it.

The problem: pybreaker holds a lock while the protected call runs, and counts what is no failure.
Here nothing is held while it runs; only the first and the last moment touch the state.

Guarantee: the exception of the protected call is raised as it is, also by the call that opens the
breaker; only an exclusion or a listener that raises takes its place, and the failure counts all the
same. Outcomes are three: success, failure, and ignored; ignored are excluded exceptions (a business
no), what was refused without trying (`RejectedError`), and what is no `Exception`
(KeyboardInterrupt, SystemExit, a cancelled task).
Not guaranteed: anything about generators: what they do comes after the call, so they are refused.
"""

from __future__ import annotations

import inspect
import types
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, NoReturn, TypeVar, overload

from labkit.breaker.notices import Noticed
from labkit.breaker.rules import FAILURE, IGNORED, PASSING, SUCCESS, Answer, Counts, Store

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_LATER = frozenset({types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType})


class Permit(NamedTuple):
    """What a call was admitted with; its result goes to the same store.

    `add` counts a success that is told later; only cached mode does.
    """

    store: Store
    generation: int
    trial: str = ""
    add: Callable[[], object] = int


class ProtectedCalls(Noticed):
    """A breaker that calls; subclasses say who admits."""

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
            self._tell_before(permit, func, args, kwargs)
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
        millisecond; once per second for the client's `socket_timeout` while Redis hangs.
        """
        with self._around(func, args, kwargs):
            return await func(*args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Protect a block; see `call`."""
        with self._around(self.calling):
            yield

    @overload  # type: ignore[override]
    def __call__(self, func: F, /) -> F: ...

    @overload
    def __call__(self) -> Callable[[F], F]: ...

    def __call__(self, *call_args: Any) -> Any:
        """Protect a function, also a coroutine function: `@breaker` or `@breaker()`."""
        return self._protect(*call_args) if call_args else self._protect

    def call_async(self, func: Any, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refuse Tornado's coroutines."""
        raise TypeError("call_async is Tornado's: use acall, or decorate the coroutine function")

    @contextmanager
    def _around(
        self, func: Callable[..., Any], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        started_s = self._monotonic_s()
        permit = self._admit(started_s)
        if self._listeners:
            self._tell_before(permit, func, args, kwargs or {})
        try:
            yield
        except BaseException as error:
            self._failed(permit, error, started_s)
            raise
        self._succeeded(permit, started_s)

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

    def _permit_of(self, store: Store, answer: Answer) -> Permit:
        """Turn an answer into a permit, or into a refusal."""
        self._notice(store, answer)
        if answer.trial or answer.state in PASSING:
            return Permit(store, answer.generation, answer.trial)
        raise self._rejection(answer.state, answer.wait_s)

    def _settle(self, permit: Permit, counts: Counts) -> None:
        """Tell the store what became of a call; an ignored one only gives a trial's permit back."""
        if counts is not IGNORED or permit.trial:
            store = permit.store
            self._notice(store, store.record(counts, permit.generation, permit.trial))

    def _succeeded(self, permit: Permit, started_s: float) -> None:
        self._settle(permit, self._outcome(started_s, failed=False))
        for listener in self._listeners:
            listener.success(self)

    def _failed(self, permit: Permit, error: BaseException, started_s: float) -> None:
        counts = self._outcome(started_s, failed=True)
        try:
            if self.is_system_error(error):
                for listener in self._listeners:
                    listener.failure(self, error)
            else:
                counts = IGNORED
        finally:
            # Also when an exclusion or a listener raises: the call failed all the same.
            self._settle(permit, counts)

    def _outcome(self, started_s: float, *, failed: bool) -> Counts:
        if self.rules.slow_call_s is None:
            return FAILURE if failed else SUCCESS
        return self.rules.outcome(self._monotonic_s() - started_s, failed=failed)

    def _refuse(self, permit: Permit, later: Any) -> NoReturn:
        """Refuse what has not happened yet: protected like this, its failures would pass unseen."""
        self._settle(permit, IGNORED)
        if not isinstance(later, types.AsyncGeneratorType):
            later.close()
        raise TypeError(
            f"{self.name}: a {type(later).__name__} has not run yet, so nothing would be protected:"
            " use acall for a coroutine function; generators are not supported"
        )

    def _tell_before(self, permit: Permit, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        try:
            for listener in self._listeners:
                listener.before_call(self, func, *args, **kwargs)
        except BaseException:
            self._settle(permit, IGNORED)
            raise
