"""The rules of a breaker: when it opens, for how long, and the words that both stores share.

Pure: no time, no Redis, no lock. `labkit.breaker.circuit` applies them in memory and
`labkit.breaker.scripts` in Redis; a property test holds both to the same answers.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import pybreaker

from labkit import limits
from labkit.errors import ConfigurationError

CLOSED, OPEN, HALF_OPEN = (
    pybreaker.STATE_CLOSED,
    pybreaker.STATE_OPEN,
    pybreaker.STATE_HALF_OPEN,
)
FORCED_OPEN, DISABLED = "forced_open", "disabled"
STATES = (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED)
PASSING = frozenset({CLOSED, DISABLED})
BUCKETS = 10
JITTER = 0.1  # open times differ by up to so much either way, so that breakers do not wake together
KEPT_EVENTS = 1000


class Counts(NamedTuple):
    """What became of calls; a failure may be slow too. Ignored calls are in none of them."""

    calls: int
    failures: int
    slow: int

    @property
    def bad(self) -> bool:
        """Tell whether any of them speaks against the dependency."""
        return self.failures > 0 or self.slow > 0


SUCCESS, SLOW = Counts(1, 0, 0), Counts(1, 0, 1)
FAILURE, SLOW_FAILURE = Counts(1, 1, 0), Counts(1, 1, 1)
IGNORED = Counts(0, 0, 0)


class Answer(NamedTuple):
    """What a store says about its breaker.

    `generation` rises with every transition: a result counts only in the generation in which its
    call began. `trial` names the permit of the half-open state, for whoever got it. `wait_s` is how
    long the breaker stays open, or for how long somebody else's trial may still run.
    """

    state: str
    generation: int
    trial: str = ""
    wait_s: float = 0.0


class Transition(NamedTuple):
    """One change of state, as `.events()` tells it; `wait_s` is how long it will stay open."""

    at: datetime
    before: str
    after: str
    why: str
    generation: int
    wait_s: float


class Store(Protocol):
    """Where a breaker's state lives."""

    def admit(self) -> Answer:
        """Ask whether a call may begin."""

    def record(self, counts: Counts, generation: int, trial: str = "") -> Answer:
        """Tell what became of calls that began in a generation, or of a trial."""

    def move(self, to: str, why: str) -> Answer:
        """Change the state by hand."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings of a breaker; see `labkit.breaker.SharedBreaker` for what they mean.

    Raises:
        ConfigurationError: when one of them cannot be.
    """

    failure_rate: float = 0.5
    slow_call_s: float | None = None
    slow_rate: float = 1.0
    min_calls: int = 20
    window_s: float = 10.0
    open_s: float = 5.0
    max_open_s: float | None = None
    success_threshold: int = 1
    trial_lease_s: float | None = None

    def __post_init__(self) -> None:
        limits.number("failure_rate", self.failure_rate, 0.001, 1.0)
        limits.number("slow_rate", self.slow_rate, 0.001, 1.0)
        limits.number("min_calls", self.min_calls, 1, 1_000_000)
        limits.number("success_threshold", self.success_threshold, 1, 1_000)
        limits.number("window_s", self.window_s, 0.01, 86_400.0)
        limits.number("open_s", self.open_s, 0.001, 86_400.0)
        for name in ("slow_call_s", "max_open_s", "trial_lease_s"):
            if getattr(self, name) is not None:
                limits.number(name, getattr(self, name), 0.001, 86_400.0)
        if self.longest_open_s < self.open_s:
            raise ConfigurationError(
                f"max_open_s ({self.max_open_s}) is below open_s ({self.open_s}): "
                "the open time grows from open_s up to max_open_s"
            )

    @property
    def longest_open_s(self) -> float:
        """How far the open time grows: ten times `open_s` unless told otherwise."""
        return 10 * self.open_s if self.max_open_s is None else self.max_open_s

    @property
    def lease_s(self) -> float:
        """How long a trial may run before the next one: `open_s` unless told otherwise."""
        return self.open_s if self.trial_lease_s is None else self.trial_lease_s

    def outcome(self, took_s: float, *, failed: bool) -> Counts:
        """Judge one call."""
        slow = self.slow_call_s is not None and took_s >= self.slow_call_s
        if failed:
            return SLOW_FAILURE if slow else FAILURE
        return SLOW if slow else SUCCESS

    def reason_to_open(self, seen: Counts) -> str:
        """Return why a closed breaker opens, or nothing when it stays closed."""
        if seen.calls < self.min_calls:
            return ""
        if seen.failures and seen.failures / seen.calls >= self.failure_rate:
            return f"{seen.failures} of {seen.calls} calls failed"
        if seen.slow and seen.slow / seen.calls >= self.slow_rate:
            return f"{seen.slow} of {seen.calls} calls were slow"
        return ""

    def open_for_s(self, opened: int, chance: float) -> float:
        """Return how long it stays open: longer each time that a trial fails.

        Args:
            opened: how often it opened since it was closed.
            chance: from 0 to 1, for the jitter.
        """
        # 2 ** 30 times a millisecond is beyond any cap; larger powers would overflow.
        grown_s = min(self.open_s * 2.0 ** min(opened, 30), self.longest_open_s)
        return grown_s * jitter(chance)


def jitter(chance: float) -> float:
    """Return the factor of the open time, from 1 - JITTER to 1 + JITTER."""
    return 1 + JITTER * (2 * chance - 1)


_trials = itertools.count()


def new_trial() -> str:
    """Return what names one trial among all processes; a forked child has another pid."""
    return f"{os.getpid()}.{next(_trials)}"
