"""Time as an argument, so that tests and charts need no waiting.

Leases do not use this clock: they live on PostgreSQL's, the only one that all owners share.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from labkit import limits
from labkit.errors import ConfigurationError


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """Return the current time, with time zone UTC."""

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards, for measuring intervals."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, with time zone UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


class FakeClock:
    """A clock that moves when told to; its first time must carry a zone."""

    def __init__(self, start: datetime = datetime(2026, 2, 17, 16, 0, tzinfo=UTC)) -> None:
        if getattr(start, "tzinfo", None) is None:
            raise ConfigurationError(f"{start!s:.40} has no time zone: which hour is it?")
        self._start = start.astimezone(UTC)
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the time it was set to."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        """Return the seconds it has been advanced by."""
        return self._elapsed_s

    def advance(self, seconds: float = 0.0, *, hours: float = 0.0) -> None:
        """Move forward by the sum of both; never back."""
        step_s = seconds + hours * 3600
        limits.number("a clock's step in seconds", step_s, 0.0)
        self._elapsed_s += step_s
