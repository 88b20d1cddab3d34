"""Test kit for process managers: given, when, then, in no time and without a server.

    rehearsal = given(manager, Trip(...), "TRIP-1").expect(RoomAsked)
    rehearsal.advance(hours=1).expect_ended("NO_ROOM")

Guarantee: it asks the rules that production asks (`labkit.process_manager.rules`); time moves when
told to.
Not guaranteed: the inbox. What is received twice here is asked about twice.
"""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from msgspec import Struct

from labkit.clock import FakeClock
from labkit.messages import Event
from labkit.ports import Stream
from labkit.process_manager.rules import Process, Received
from labkit.process_manager.runner import ProcessManager
from labkit.saga.state import Due, Note, Started

DataT = TypeVar("DataT", bound=Struct)


class Rehearsal(Generic[DataT]):
    """A process that is played by hand; see `given`."""

    def __init__(self, manager: ProcessManager[DataT], data: DataT, process_id: str) -> None:
        self.manager = manager
        self.clock = FakeClock()
        self.process = Process(id=process_id, version=manager.version, data=data)
        self.notes: list[Note] = []
        self.sent: list[Event] = []
        self._unseen: list[Event] = []
        self._take(Started())

    def expect(self, *wanted: type[Event]) -> Self:
        """Check all that was sent since the last look, in order."""
        seen = [type(event) for event in self._unseen]
        if seen != list(wanted):
            raise AssertionError(f"expected {_names(wanted)}, saw {_names(seen)}")
        self._unseen.clear()
        return self

    def receive(self, *events: Event, source: Stream | None = None) -> Self:
        """Let events come.

        Args:
            events: in order.
            source: the stream they come from; needed when several bring events of this class.
        """
        for event in events:
            self._take(Received(event, source or self._only_source(type(event))))
        return self

    def advance(self, seconds: float = 0.0, *, hours: float = 0.0) -> Self:
        """Let time pass; what is due on the way is woken when it is due, in order."""
        left_s = seconds + hours * 3600
        while (wait_s := self.until_due_s) is not None and wait_s <= left_s:
            self.clock.advance(wait_s)
            left_s -= wait_s
            self._take(Due())
        self.clock.advance(left_s)
        return self

    def expect_state(self, state: str) -> Self:
        """Check where it stands, while it is under way."""
        if self.process.result is not None or self.process.state != state:
            raise AssertionError(f"expected {state}, found {self._standing()}")
        return self

    def expect_ended(self, result: str) -> Self:
        """Check that it ended, and with what."""
        if self.process.result != result:
            raise AssertionError(f"expected to end {result}, found {self._standing()}")
        return self

    def expect_ignored(self) -> Self:
        """Check that the last thing that happened changed nothing."""
        if self.notes[-1].what != "ignored":
            raise AssertionError(f"expected it to be ignored, found {self.notes[-1]}")
        return self

    @property
    def until_due_s(self) -> float | None:
        """Return how long until its next deadline, in seconds; None when it has none."""
        if self.process.due_at is None:
            return None
        return max(0.0, (self.process.due_at - self.clock.now()).total_seconds())

    def _standing(self) -> str:
        process = self.process
        return f"{process.state} ({process.status}, waits for {sorted(process.deadlines)})"

    def _only_source(self, event: type[Event]) -> Stream:
        sources = [source for known, source in self.manager.rules.events if known is event]
        if len(sources) != 1:
            names = [source.name for source in sources]
            raise AssertionError(f"{event.__name__} comes from {names}: say which with source=")
        return sources[0]

    def _take(self, stimulus: object) -> Self:
        decision = self.manager.rules.decide(self.process, stimulus, self.clock.now())
        self.process = decision.process
        self.notes += decision.notes
        sent = [each.event for each in decision.sent]
        self.sent += sent
        self._unseen += sent
        return self


def given(
    manager: ProcessManager[DataT], data: DataT, process_id: str = "RES-1"
) -> Rehearsal[DataT]:
    """Begin a process.

    Args:
        manager: whose.
        data: what it remembers at first.
        process_id: its id.
    """
    return Rehearsal(manager, data, process_id)


def _names(seen: Any) -> list[str]:
    return [each.event_type for each in seen]
