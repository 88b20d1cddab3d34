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
    """What a relay did: rows published, batches, rows refused, rows unmarked, leases lost."""

    published: int = 0
    batches: int = 0
    refused: int = 0
    unmarked: int = 0
    lost: int = 0


@dataclass(frozen=True)
class ConsumerReport(Report):
    """What a consumer did with its messages; `waiting` ones stand behind a held one."""

    handled: int = 0
    duplicates: int = 0
    skipped: int = 0
    waiting: int = 0
    failed: int = 0
    parked: int = 0
    lost: int = 0
