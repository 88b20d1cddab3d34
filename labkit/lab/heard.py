"""Heard: what the resilience patterns did, as a table to look at and to draw.

    heard = Heard()
    signals = Signals(heard, clock=clock)
    …
    heard.frame()

Guarantee: every signal that was given is a row, in order, from whatever thread.
Not guaranteed: an end. It keeps all signals until it is cleared.
"""

from __future__ import annotations

import pandas as pd

from labkit.signals import Signal


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self._signals: list[Signal] = []

    def __call__(self, signal: Signal) -> None:
        """Remember a signal."""
        self._signals.append(signal)  # one step for the interpreter, so threads need no lock

    def frame(self) -> pd.DataFrame:
        """Return a row per signal: `at`, `pattern`, `name`, `what`, `detail`."""
        return pd.DataFrame(list(self._signals), columns=list(Signal._fields))

    def counts(self) -> pd.DataFrame:
        """Return how often each pattern did what: patterns are rows, deeds are columns."""
        frame = self.frame()
        return pd.crosstab(frame["pattern"], frame["what"])

    def clear(self) -> None:
        """Forget all of it."""
        self._signals.clear()
