"""What a pass of a worker did: numbers by outcome that add up."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Report:
    """Counters; false when all are zero."""

    def __add__(self, other: Self) -> Self:
        """Add two reports of one kind, field by field."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return type(self)(**sums)

    def __bool__(self) -> bool:
        """Say whether anything was done."""
        return any(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class RelayReport(Report):
    """What a relay did: rows published, batches, rows refused, rows unmarked, leases lost.

    `too_old` rows were lost at the broker and stay lost: see `labkit.retention`.
    """

    published: int = 0
    batches: int = 0
    refused: int = 0
    unmarked: int = 0
    too_old: int = 0
    lost: int = 0


@dataclass(frozen=True)
class ConsumerReport(Report):
    """What a consumer did with its messages; `waiting` ones stand behind a held one.

    `late` ones were dropped, since their handler drops what nobody waits for.
    """

    handled: int = 0
    duplicates: int = 0
    skipped: int = 0
    waiting: int = 0
    failed: int = 0
    parked: int = 0
    late: int = 0
    lost: int = 0


@dataclass(frozen=True)
class DeadlineReport(Report):
    """What the deadlines of sagas did: sagas whose time was over, and those that failed at it."""

    due: int = 0
    failed: int = 0


@dataclass(frozen=True)
class CleanerReport(Report):
    """What a cleaner deleted: outbox rows, inbox rows, members, entries; and the alarms it found.

    An alarm is no work: it stands until somebody does something about it.
    """

    outbox_rows: int = 0
    inbox_rows: int = 0
    members: int = 0
    entries: int = 0
    alarms: int = 0

    def __bool__(self) -> bool:
        """Say whether anything was deleted."""
        return self.outbox_rows + self.inbox_rows + self.members + self.entries > 0


@dataclass(frozen=True)
class ReconcileReport(Report):
    """What was missing at the broker, what the relay will publish again, what is too old for it."""

    missing: int = 0
    again: int = 0
    too_old: int = 0
