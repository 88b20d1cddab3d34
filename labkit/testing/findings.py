"""What an audit found: counter-examples as sentences, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lost", "phantom", "doubled", "reordered"]
KINDS: tuple[Kind, ...] = ("lost", "phantom", "doubled", "reordered")


@dataclass(frozen=True)
class Finding:
    """One counter-example.

    Args:
        kind: lost, phantom, doubled or reordered.
        message_id: what it is about.
        where: the stream, inbox or effects in which it shows.
        told: the rest of the sentence: positions, times, the other event.
    """

    kind: Kind
    message_id: str
    where: str
    told: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.kind}: {self.message_id} {self.told} ({self.where})"


@dataclass(frozen=True)
class Findings:
    """The result of an audit; true to say `if findings.holds`.

    Args:
        all: every counter-example, in the order of the journey: stream, inbox, effects.
        judged: how many committed events had to be accounted for.
        excused: how many did not, since retention may have removed their traces.
        repeated: entries of the streams that repeat an earlier one, which is no fault.
        region: what was judged, in words.
    """

    all: Sequence[Finding]
    judged: int
    excused: int
    repeated: int
    region: str

    @property
    def holds(self) -> bool:
        """Say whether there is no counter-example."""
        return not self.all

    @property
    def first(self) -> Finding | None:
        """Return the first counter-example."""
        return self.all[0] if self.all else None

    @property
    def kinds(self) -> set[Kind]:
        """Return the kinds that were found."""
        return {finding.kind for finding in self.all}

    def count(self, kind: Kind) -> int:
        """Return how many messages have a finding of this kind, wherever it shows."""
        return len({finding.message_id for finding in self.all if finding.kind == kind})

    def assert_holds(self) -> None:
        """Pass, or name the first counter-example.

        Raises:
            AssertionError: when there is one.
        """
        if self.all:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        """Return the verdict in one line."""
        if self.first is None:
            return f"holds for {self.region}"
        return f"{self.first}; {len(self.all)} findings for {self.region}"
