"""Signals: what the resilience patterns did, as one stream of facts that anybody may listen to.

The problem: a retry that worked, a call that was refused and an answer that was replaced leave no
trace for whoever looks at results only. So every pattern tells the same bus, in one vocabulary.

Guarantee: listeners hear signals in the order in which they were given; one that raises neither
stops the others nor changes the protected call, and is named in the log.
Not guaranteed: that anybody listens, or that signals survive the process.

Crash windows: none; nothing is stored.

Source: Nygard, *Release It!*, 2nd ed., ch. 8 ("Transparency").
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from labkit.clock import Clock, SystemClock

_log = logging.getLogger(__name__)


class Signal(NamedTuple):
    """One thing that a pattern did; `pattern` is `retry`, `breaker`, …, `name` whose it is."""

    at: datetime
    pattern: str
    name: str
    what: str
    detail: str = ""


Listener = Callable[[Signal], None]


class Signals:
    """The bus; patterns that are given the same one are heard together.

    Args:
        listeners: called with each signal, in the thread that gives it.
        clock: says when.
    """

    def __init__(self, *listeners: Listener, clock: Clock | None = None) -> None:
        self._listeners = list(listeners)
        self._clock = clock or SystemClock()

    def listen(self, listener: Listener) -> None:
        """Add a listener, which hears what comes from now on."""
        self._listeners.append(listener)

    def tell(self, pattern: str, name: str, what: str, detail: str = "") -> None:
        """Tell all listeners what happened."""
        if not self._listeners:
            return
        signal = Signal(self._clock.now(), pattern, name, what, detail)
        for listener in self._listeners:
            try:
                listener(signal)
            except Exception:  # noqa: BLE001 - a listener may raise anything
                _log.exception("a listener failed at %s", signal)
