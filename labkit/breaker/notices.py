"""What a breaker is to whoever looks: pybreaker's names, listeners and errors, and our signals.

A transition is made once, in the store. Each process notices it when it next asks, and tells its
own listeners and signals then, as pybreaker does; noticing changes nothing in the store.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import pybreaker

from labkit import limits
from labkit.breaker.rules import (
    CLOSED,
    DISABLED,
    FORCED_OPEN,
    HALF_OPEN,
    IGNORED,
    OPEN,
    Answer,
    Counts,
    Rules,
    Store,
    Transition,
)
from labkit.clock import Clock
from labkit.errors import BreakerOpenError, RejectedError
from labkit.signals import Signals

Exclusion = type[BaseException] | Callable[[Any], bool]
_STATES: dict[str, Callable[..., pybreaker.CircuitBreakerState]] = {
    CLOSED: pybreaker.CircuitClosedState,
    OPEN: pybreaker.CircuitOpenState,
    HALF_OPEN: lambda breaker: pybreaker.CircuitHalfOpenState(breaker, None),
}


class CircuitOpenError(BreakerOpenError, pybreaker.CircuitBreakerError):
    """The breaker is open; code written for pybreaker catches it too."""


class Noticed(pybreaker.CircuitBreaker):
    """A breaker as it is seen from outside; where its state is, subclasses say.

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
        # Why not SystemClock: its method would double the price of a look, twice per call.
        self._monotonic_s = time.monotonic if clock is None else clock.monotonic_s
        self.signals = signals  # a policy gives its own to a breaker that has none
        self._known, self._open_until_s = Answer(CLOSED, 0), 0.0
        # pybreaker asks for the state while it is built; Redis may be away then.
        self._built = False
        super().__init__(
            exclude=exclude,
            listeners=listeners,
            name=name,
            throw_new_error_on_trip=False,
        )
        self._built = True

    @abstractmethod
    def _look(self) -> Answer:
        """Return the state as it is now."""

    @abstractmethod
    def _move(self, to: str, why: str) -> None:
        """Change the state by hand."""

    @abstractmethod
    def seen(self) -> Counts:
        """Return the calls, failures and slow calls of the window."""

    @abstractmethod
    def events(self) -> list[Transition]:
        """Return the last transitions, oldest first."""

    @property
    def current_state(self) -> str:
        """`closed`, `open`, `half-open`, `forced_open` or `disabled`, as it is now."""
        return self._look().state if self._built else CLOSED

    @property  # type: ignore[misc]
    def state(self) -> pybreaker.CircuitBreakerState:  # type: ignore[override]
        """The state as pybreaker's object; only its name means something."""
        return self._state_named(self.current_state)

    @property
    def fail_counter(self) -> int:
        """How many calls of the window failed."""
        return self.seen().failures

    @property  # type: ignore[misc]
    def fail_max(self) -> int:
        """As many calls must be seen before it may open; a count of failures alone never does."""
        return self.rules.min_calls

    @property  # type: ignore[misc]
    def reset_timeout(self) -> float:
        """The first open time, in seconds."""
        return self.rules.open_s

    @property  # type: ignore[misc]
    def success_threshold(self) -> int:
        """How many trials must go well before it closes."""
        return self.rules.success_threshold

    @property  # type: ignore[misc]
    def name(self) -> str:
        """Its name; the keys hold it, so it does not change."""
        return self._name or ""

    def open(self) -> bool:
        """Open it for its open time; afterwards a trial decides. Returns False, for pybreaker."""
        self._move(OPEN, "by hand")
        return False

    def half_open(self) -> None:
        """Let the next call be a trial."""
        self._move(HALF_OPEN, "by hand")

    def close(self) -> None:
        """Close it, with an empty window; also ends `force_open` and `disable`."""
        self._move(CLOSED, "by hand")

    def force_open(self, why: str) -> None:
        """Refuse every call until somebody calls `close`, also after restarts."""
        self._move(FORCED_OPEN, why)

    def disable(self, why: str = "by hand") -> None:
        """Let every call pass and count nothing until somebody calls `close`."""
        self._move(DISABLED, why)

    def is_system_error(self, exception: BaseException) -> bool:
        """Tell whether an exception counts as a failure of the dependency."""
        if not isinstance(exception, Exception) or isinstance(exception, RejectedError):
            return False
        return not any(_excludes(each, exception) for each in self._excluded_exceptions)

    def _notice(self, store: Store, answer: Answer) -> None:
        """Tell listeners and signals when the state is another than this process knew."""
        known = self._known
        if answer is known or answer.generation <= known.generation:
            return
        with self._lock:
            known = self._known
            if answer.generation <= known.generation:
                return
            self._known, self._open_until_s = answer, self._monotonic_s() + answer.wait_s
        if answer.state != known.state:
            self._tell(answer.state, f"after {known.state}")
            try:
                self._tell_change(known.state, answer.state)
            except BaseException:
                give_back(store, answer.generation, answer.trial)
                raise

    def _tell_change(self, before: str, after: str) -> None:
        old, new = self._state_named(before), self._state_named(after)
        for listener in self._listeners:
            listener.state_change(self, old, new)

    def _state_named(self, state: str) -> pybreaker.CircuitBreakerState:
        make = _STATES.get(state)
        return make(self) if make else pybreaker.CircuitBreakerState(self, state)

    def _rejection(self, state: str, wait_s: float) -> CircuitOpenError:
        """Return the error of a refused call."""
        # Nobody knows when a breaker that was forced open will close: come back as to an open one.
        wait_s = wait_s if state in {OPEN, HALF_OPEN} else self.rules.open_s
        self._tell("rejected", state)
        return CircuitOpenError(self.name, wait_s)

    def _tell(self, what: str, detail: str) -> None:
        if self.signals is not None:
            self.signals.tell("breaker", self.name, what, detail)


def give_back(store: Store, generation: int, trial: str) -> None:
    """End a trial that never ran, because a listener raised before it: the next one may begin."""
    if trial:
        store.record(IGNORED, generation, trial)


def _excludes(exclusion: Any, exception: Exception) -> bool:
    # Why not `type(exclusion) is type`, as pybreaker has it: a class with a metaclass is a type
    # too, and called as a predicate it would exclude everything.
    if isinstance(exclusion, type):
        return isinstance(exception, exclusion)
    return bool(exclusion(exception))
