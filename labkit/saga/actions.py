"""What a step does: a command to a participant, or work in the saga's own transaction.

Guarantee: a command that nobody could answer, or numbers that make no sense, are refused when it
is built. A command's request is sent and local work is done if, and only if, the transaction
commits that the saga's new state is in.
Not guaranteed: that a participant acts once; it deduplicates on the request (`labkit.wire`).

Crash windows: none of its own; see `labkit.saga.orchestrator`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import ConfigurationError
from labkit.messages import Event
from labkit.ports import Stream

WHOLE = ""  # the only part of a request that one message answers


class Outcome(StrEnum):
    """What a reply says: done, a business "no", or a failure that another attempt may mend."""

    SUCCESS = "success"
    REJECTION = "rejection"
    FAILURE = "failure"


Types = type[Event] | tuple[type[Event], ...]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A request to a participant, sent through the outbox, and the replies that it awaits.

    Args:
        make: the request, from the saga's data.
        success: the event that says it is done; without one the request is done once committed.
        rejection: the event that says no.
        failure: the event that says "not now".
        source: the stream that the answers come on.
        parts: what must be answered, from the saga's data, when each line is answered by itself.
        part_of: which part an event answers.
        timeout_s: how long to wait for the answers of one attempt, in seconds.
        attempts: how often to ask before it counts as failed, from 1.
        pause_s: the longest pause before the second attempt, in seconds; it doubles each time.
        cap_s: the longest pause of all, in seconds.
    """

    make: Callable[[Any], Event] = field(kw_only=False)
    success: Types = ()
    rejection: Types = ()
    failure: Types = ()
    source: Stream | None = None
    parts: Callable[[Any], Collection[str]] | None = None
    part_of: Callable[[Any], str] | None = None
    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0
    cap_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense, and parts that no reply could name."""
        limits.number("timeout_s", self.timeout_s, 0.001)
        limits.number("attempts", self.attempts, 1, 1_000_000)
        limits.number("pause_s", self.pause_s, 0.0)
        limits.number("cap_s", self.cap_s, 0.0)
        if (self.parts is None) != (self.part_of is None):
            raise ConfigurationError("parts and part_of go together: who answers, and to what")
        if not self.outcomes and (self.parts or self.rejection or self.failure):
            raise ConfigurationError("a command that awaits answers needs success=")
        if self.outcomes and self.source is None:
            raise ConfigurationError("a command that awaits answers needs source=, their stream")

    @cached_property
    def outcomes(self) -> dict[type[Event], Outcome]:
        """What each reply says; empty when none is awaited."""
        if not _types(self.success):
            return {}
        return {
            event: outcome
            for outcome, types in (
                (Outcome.FAILURE, self.failure),
                (Outcome.REJECTION, self.rejection),
                (Outcome.SUCCESS, self.success),
            )
            for event in _types(types)
        }

    def expected(self, data: Any) -> frozenset[str]:
        """Return the parts that must be answered."""
        return frozenset([WHOLE] if self.parts is None else self.parts(data))

    def part(self, event: Event) -> str:
        """Return which part an event answers."""
        return WHOLE if self.part_of is None else self.part_of(event)


def _types(types: Types) -> tuple[type[Event], ...]:
    return types if isinstance(types, tuple) else (types,)


@dataclass(frozen=True)
class Local:
    """Work in the saga's own database and transaction; when it raises, all is tried again.

    Why not let it say no: what somebody may refuse is a command to them, also within one service.

    Args:
        run: joins the transaction and never commits; must do nothing more when it comes again.
    """

    run: Callable[[Session, Any], None]


@dataclass(frozen=True)
class BatchLocal:
    """Local work for many sagas at once: one statement for a set, instead of one each.

    Sagas of a batch reach it together; a batch with one that fails is done again one by one, so it
    must do the same for a saga alone as for a saga among others.

    Args:
        run_all: as `Local.run`, with the data of sagas whose answers came together.
    """

    run_all: Callable[[Session, Sequence[Any]], None]


Action = Command | Local | BatchLocal
