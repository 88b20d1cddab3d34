"""Retention: one number, from which follows how long everything else may be kept.

The problem: the inbox must remember a message for longer than anything can bring it back, be it
a slow reader, a retry, a redrive, or an outbox that publishes again what the broker lost. Set one
by one, these times contradict each other some day, and an effect happens twice.

    stored ─── published_s: outbox row ───┬─ delivery_s ─┬─ reserve ─┐
           └── its entry in the stream ───┴──────────────┘           │
    handled ────── window_s: the inbox remembers ────────────────────┘

Guarantee: times that contradict each other are refused when they are set; with the others,
nothing is published again or redriven that an inbox may have forgotten.
Not guaranteed: the effect of a message that is on its way for longer than `delivery_s`, such as
in a stream that a standing reader keeps from being trimmed (`labkit.readers` raises an alarm).

Source: NServiceBus' rule that an inbox must outlast every manual retry.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from labkit.errors import ConfigurationError
from labkit.held import Backoff

DAY_S = 86_400.0


@dataclass(frozen=True, init=False)
class Retention:
    """How long things are kept, checked against each other.

    Args:
        window_s: how long the inbox remembers, in seconds.
        published_s: how long a published outbox row is kept; half of the window by default.
        delivery_s: how long a message may be on its way to its last attempt, a reader's outage
            included; a quarter of the window by default. Its entry outlives its row by that.
        dead_letters_s: how old a dead letter may be redriven; the window by default.

    Raises:
        ConfigurationError: when the inbox could forget what may still come; says what to change.
    """

    window_s: float
    published_s: float
    delivery_s: float
    dead_letters_s: float

    def __init__(
        self,
        window_s: float = 14 * DAY_S,
        *,
        published_s: float | None = None,
        delivery_s: float | None = None,
        dead_letters_s: float | None = None,
    ) -> None:
        given = {
            "window_s": window_s,
            "published_s": window_s / 2 if published_s is None else published_s,
            "delivery_s": window_s / 4 if delivery_s is None else delivery_s,
            "dead_letters_s": window_s if dead_letters_s is None else dead_letters_s,
        }
        for name, value in given.items():
            # Why not an assignment: the class is frozen.
            object.__setattr__(self, name, value)
        self._check()

    @property
    def stream_s(self) -> float:
        """Return how long an entry stays in the stream, in seconds: longer than its row.

        So what has a row and no entry was lost, never trimmed.
        """
        return self.published_s + self.delivery_s

    @property
    def resend_s(self) -> float:
        """Return how old a row may be to be published again: the inbox knows it when it comes."""
        return self.window_s - self.delivery_s

    def check_backoff(self, backoff: Backoff) -> None:
        """Refuse retries that may take longer than a message may be on its way.

        Raises:
            ConfigurationError: naming what to change.
        """
        longest_s = backoff.attempts * backoff.cap_s
        if longest_s > self.delivery_s:
            raise ConfigurationError(
                f"{backoff.attempts} attempts with pauses of up to {backoff.cap_s:g} s may take "
                f"{longest_s:g} s, longer than delivery_s={self.delivery_s:g}: give Backoff fewer "
                "attempts or a lower cap_s, or Retention a longer window_s"
            )

    def _check(self) -> None:
        wrong = [f"{n}={v:g}" for n, v in asdict(self).items() if not 0 < v < math.inf]
        if wrong:
            raise ConfigurationError(f"retention times are seconds above 0, not {', '.join(wrong)}")
        if self.stream_s >= self.window_s:
            raise ConfigurationError(
                f"published_s + delivery_s = {self.stream_s:g} s must be less than window_s = "
                f"{self.window_s:g} s, or the inbox forgets what may still come: "
                "raise window_s or lower the others"
            )
        if self.delivery_s > self.published_s:
            raise ConfigurationError(
                f"delivery_s={self.delivery_s:g} is longer than published_s={self.published_s:g}: "
                "a row would be gone before its message is handled; raise published_s"
            )
        if self.dead_letters_s > self.window_s:
            raise ConfigurationError(
                f"dead_letters_s={self.dead_letters_s:g} is longer than window_s="
                f"{self.window_s:g}: raise window_s or lower dead_letters_s"
            )
