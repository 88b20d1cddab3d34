"""The rules of a process manager, pure: from a process and what happened to what comes next.

Guarantee: same process, same event, same time, same decision. What the user's function returns is
checked before anything of it is stored.
Not guaranteed: that the user's function does no I/O; it is not given anything to do it with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from labkit import limits
from labkit.errors import ConfigurationError, SagaError
from labkit.messages import Event
from labkit.ports import Stream
from labkit.saga.state import COMPLETED, RUNNING, Due, Note, Started, Status
from labkit.saga.store import refuse_unreadable

ARROW = " → "
DataT = TypeVar("DataT")


# Stored under the words of a saga's state, so that one list shows both.
class Process(Struct, Generic[DataT], frozen=True, kw_only=True, rename={"state": "step"}):
    """A process at one moment.

    Args:
        id: its id, which is also the key and correlation id of its messages.
        version: of the manager that it began with.
        data: what it remembers.
        state: where it stands; at the end, its result.
        status: RUNNING or COMPLETED.
        deadlines: name to time, of those that are still to come.
    """

    id: str
    version: int
    data: DataT
    state: str = ""
    status: Status = RUNNING
    deadlines: dict[str, datetime] = {}

    @property
    def step(self) -> str:
        """Return where it stands, as `labkit.saga.store` calls it."""
        return self.state

    @property
    def reason(self) -> None:
        """Return why it is stuck: never, it knows no such state."""

    @property
    def due_at(self) -> datetime | None:
        """Return its first deadline, None when it has none."""
        return min(self.deadlines.values(), default=None)

    @property
    def result(self) -> str | None:
        """Return what it ended with, None while it is under way."""
        return self.state if self.status is COMPLETED else None


class Next(Struct, frozen=True, kw_only=True):
    """What comes next; what is left out stays as it is.

    Args:
        state: where the process stands now.
        data: what it remembers now, as JSON can hold it.
        send: events that leave with the commit.
        deadlines: name to seconds from now; one that runs under this name begins anew.
        forget: names of deadlines that are not waited for any more.
        end: its result, which ends the process and all its deadlines.
    """

    state: str | None = None
    data: Any = None
    send: Sequence[Event] = ()
    deadlines: Mapping[str, float] = {}
    forget: Collection[str] = ()
    end: str | None = None


class Received(NamedTuple):
    """An event came, from a stream."""

    event: Event
    source: Stream


class Sent(NamedTuple):
    """An event to be sent, and the request that it makes."""

    request: str
    event: Event


class Decision(NamedTuple):
    """What follows: the process, what it sends, what is written down."""

    process: Process[Any]
    sent: tuple[Sent, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A function of the user's; `when`: the states in which it is asked, any but an end if None."""

    decide: Callable[..., Next | None]
    when: frozenset[str] | None = None

    def fits(self, process: Process[Any]) -> bool:
        """Say whether it is asked now."""
        return process.result is None if self.when is None else process.state in self.when


@dataclass
class Rules:
    """All functions of one process manager.

    Args:
        data: the class of what its processes remember.
        start: says how a process begins.
        events: by class and stream.
        deadlines: by name.
    """

    data: type[Struct]
    start: Rule | None = None
    events: dict[tuple[type[Event], Stream], Rule] = field(default_factory=dict)
    deadlines: dict[str, Rule] = field(default_factory=dict)

    def decide(self, process: Process[Any], stimulus: object, now: datetime) -> Decision:
        """Return what follows when something happens to a process.

        Args:
            process: the process before.
            stimulus: what happened: `Started`, `Received` or `Due`.
            now: the time, with zone.

        Raises:
            ConfigurationError: when the user's function returns what cannot be.
            SagaError: when somebody wants of it what a saga does, such as `Retry`.
        """
        match stimulus:
            case Started():
                return self._begin(process, now)
            case Received(event, source):
                rule = self.events[type(event), source]
                return self._ask(rule, process, now, "received", type(event).event_type, event)
            case Due():
                return self._wake(process, now)
        raise SagaError(f"{process.id} decides for itself: send it an event instead")

    def _begin(self, process: Process[Any], now: datetime) -> Decision:
        if self.start is None:
            raise ConfigurationError("nothing says how a process begins: use on_start")
        decision = self._ask(self.start, process, now, "started", "")
        if not decision.process.state:
            raise _unsound(process, "on_start names the first state")
        return decision

    def _wake(self, process: Process[Any], now: datetime) -> Decision:
        """Fire every deadline that is over, the earliest first, unless one forgets another."""
        decision = Decision(process)
        while (due_at := decision.process.due_at) is not None and due_at <= now:
            before = decision.process
            name = min(before.deadlines, key=lambda each: (before.deadlines[each], each))
            left = replace(before, deadlines=_without(before.deadlines, [name]))
            fired = self._ask(self.deadlines[name], left, now, "timed out", name)
            decision = Decision(
                fired.process, decision.sent + fired.sent, decision.notes + fired.notes
            )
        return decision

    def _ask(
        self, rule: Rule, process: Process[Any], now: datetime, what: str, said: str, *event: Event
    ) -> Decision:
        following = rule.decide(process, *event) if rule.fits(process) else None
        if following is None:
            return Decision(process, notes=(Note("ignored", process.state, said),))
        self._refuse_unsound(process, following)
        after = _after(process, following, now)
        moved = ARROW + after.state if after.state != process.state else ""
        sent = tuple(_sent(after.state, following.send))
        notes = [Note(what, process.state, (said + moved).strip())]
        notes += [Note("sent", request) for request, _ in sent]
        if following.end is not None:
            notes.append(Note("completed", after.state))
        return Decision(after, sent, tuple(notes))

    def _refuse_unsound(self, process: Process[Any], following: Next) -> None:
        if not isinstance(following, Next):
            raise _unsound(process, f"return Next or None, not {following!r:.40}")
        if following.state is not None and following.end is not None:
            raise _unsound(process, "give state= or end=, not both")
        for state in {following.state, following.end} - {None}:
            limits.name("a state", state)
        moves = following.state is not None or following.end is not None or following.deadlines
        if process.result is not None and moves:
            raise _unsound(process, "it has ended: it can still send, and not go on")
        if following.data is not None:
            _refuse_unreadable(process, following.data, self.data)
        for name, seconds in following.deadlines.items():
            limits.number(f"deadline {name}", seconds, 0.001)
            if name not in self.deadlines:
                raise _unsound(process, f"nothing says what deadline {name} does: use on_deadline")


def _refuse_unreadable(process: Process[Any], data: Any, wanted: type[Struct]) -> None:
    try:
        refuse_unreadable(data, wanted)
    except ConfigurationError as error:
        raise _unsound(process, str(error)) from error


def _unsound(process: Process[Any], why: str) -> ConfigurationError:
    return ConfigurationError(f"process {process.id} in state {process.state or '-'}: {why}")


def _after(process: Process[Any], following: Next, now: datetime) -> Process[Any]:
    has_ended = following.end is not None or process.result is not None
    new = {name: now + timedelta(seconds=each) for name, each in following.deadlines.items()}
    return replace(
        process,
        data=process.data if following.data is None else following.data,
        state=following.end or following.state or process.state,
        status=COMPLETED if has_ended else RUNNING,
        deadlines={} if has_ended else _without(process.deadlines, following.forget) | new,
    )


def _without(deadlines: Mapping[str, datetime], names: Collection[str]) -> dict[str, datetime]:
    return {name: at for name, at in deadlines.items() if name not in names}


def _sent(state: str, events: Sequence[Event]) -> list[Sent]:
    """Name each request by state and type, so that asking again from there is the same one."""
    seen: Counter[str] = Counter()
    sent = []
    for event in events:
        seen[event.event_type] += 1
        number = f".{seen[event.event_type]}" if seen[event.event_type] > 1 else ""
        sent.append(Sent(f"{state}:{event.event_type}{number}/do", event))
    return sent
