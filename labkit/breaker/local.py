"""A breaker in memory, for one process: the same rules, the same calls, no Redis."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Sequence

import pybreaker

from labkit.breaker.calls import Permit, ProtectedCalls
from labkit.breaker.circuit import Circuit
from labkit.breaker.notices import Exclusion
from labkit.breaker.rules import PASSING, Answer, Counts, Rules, Transition
from labkit.clock import Clock, SystemClock
from labkit.signals import Signals


class LocalBreaker(ProtectedCalls):
    """A breaker of one process; see `labkit.breaker.SharedBreaker` for the arguments.

    Raises:
        ConfigurationError: when a setting cannot be.
    """

    def __init__(
        self,
        name: str,
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
        super().__init__(
            name, rules, exclude=exclude, listeners=listeners, signals=signals, clock=clock
        )
        self._circuit = Circuit(rules, self._monotonic_s, (clock or SystemClock()).now, random)
        self._permit = Permit(self._circuit, 0)

    def events(self) -> list[Transition]:
        """Return the last transitions, oldest first."""
        return self._circuit.events()

    def seen(self) -> Counts:
        """Return the calls, failures and slow calls of the window."""
        return self._circuit.seen()

    @property
    def success_counter(self) -> int:
        """How many trials went well in this half-open state."""
        return self._circuit.successes

    def _admit(self, now_s: float) -> Permit:  # noqa: ARG002 - the circuit looks under its lock
        answer = self._circuit.admit()
        # Calls of one generation share a permit, as long as it names no trial.
        if answer.generation != self._permit.generation or answer.state not in PASSING:
            permit = self._permit_of(self._circuit, answer)
            if permit.trial:
                return permit
            self._permit = permit
        return self._permit

    def _look(self) -> Answer:
        return self._circuit.answer

    def _move(self, to: str, why: str) -> None:
        self._notice(self._circuit, self._circuit.move(to, why))
