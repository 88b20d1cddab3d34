"""Faults: failures on order, so that what should withstand them can be seen to.

The innermost layer of a policy: to everything outside, an injected failure is a failure of the
dependency. (`labkit.crash` ends a process at a named point; this is about calls.)

Guarantee: the same seed injects the same faults into the same sequence of calls.
Not guaranteed: that sequence, when several threads share the layer.

Crash windows: none; nothing is stored.

Source: Basiri et al., "Chaos Engineering", IEEE Software, 2016; Polly's chaos strategies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from labkit import limits
from labkit.errors import TransientError
from labkit.signals import Signals

T = TypeVar("T")


def injected() -> Exception:
    """Return the error that is raised unless another one is given."""
    return TransientError("a fault was injected")


class Faults:
    """Disturbs calls: makes them slow, or fail, or answer something else.

    Args:
        name: of what is disturbed, for signals.
        latency_rate: the share of calls that are slowed down, from 0 to 1.
        latency_s: by how many seconds.
        error_rate: the share of calls that fail, before anything is called.
        error: makes the error.
        outcome_rate: the share of calls that are not made, and answer `outcome`.
        outcome: makes the answer.
        seed: makes the faults repeatable.
        sleep: how to be slow; seconds.
        signals: hears `latency`, `error` and `outcome`.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        latency_rate: float = 0.0,
        latency_s: float = 0.0,
        error_rate: float = 0.0,
        error: Callable[[], Exception] = injected,
        outcome_rate: float = 0.0,
        outcome: Callable[[], Any] = lambda: None,
        seed: int = 7,
        sleep: Callable[[float], object] = time.sleep,
        signals: Signals | None = None,
    ) -> None:
        limits.name("the faults' name", name)
        for what, rate in {
            "latency_rate": latency_rate,
            "error_rate": error_rate,
            "outcome_rate": outcome_rate,
        }.items():
            limits.number(what, rate, 0.0, 1.0)
        limits.number("latency_s", latency_s, 0.0)
        self.name = name
        self.signals = signals
        self.latency_rate, self.latency_s = latency_rate, latency_s
        self.error_rate, self.outcome_rate = error_rate, outcome_rate
        self._error, self._outcome = error, outcome
        self._random = random.Random(seed).random
        self._sleep = sleep

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function, unless its turn is a fault.

        Raises:
            Exception: the error that was ordered, or the function's.
        """
        # One number for each kind, whatever happens: a rate that is changed moves no other fault.
        slow, fails, differs = (self._random() for _ in range(3))
        if slow < self.latency_rate:
            self._tell("latency", f"{self.latency_s:.3f} s")
            self._sleep(self.latency_s)
        if fails < self.error_rate:
            error = self._error()
            self._tell("error", type(error).__name__)
            raise error
        if differs < self.outcome_rate:
            self._tell("outcome")
            answer: T = self._outcome()
            return answer
        return function(*args, **options)

    def _tell(self, what: str, detail: str = "") -> None:
        if self.signals is not None:
            self.signals.tell("faults", self.name, what, detail)
