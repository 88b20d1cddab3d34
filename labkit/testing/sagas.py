"""Test kit for sagas: given, when, then, in no time and without a server.

    rehearsal = given(CHECKOUT, order)
    rehearsal.expect(ReserveStockRequested)
    rehearsal.reply(StockReservationRejected(reservation_id="RES-1", sku="A", reason="no"))
    rehearsal.expect_compensated()

Guarantee: it runs the rules that production runs (`labkit.saga.decide`); time moves when told to.
Not guaranteed: local work. It is listed, not run: `expect` takes the name of its step.
"""

from __future__ import annotations

from typing import Any, Self

from labkit.clock import FakeClock
from labkit.messages import Event
from labkit.saga.actions import Command
from labkit.saga.decide import decide
from labkit.saga.definition import Request, Saga
from labkit.saga.replies import read_reply
from labkit.saga.state import (
    COMPENSATED,
    COMPLETED,
    STUCK,
    Cancel,
    Compensate,
    Due,
    Note,
    Retry,
    Skip,
    Started,
    State,
    Status,
    Stimulus,
)


class Rehearsal:
    """A saga that is played by hand; see `given`."""

    def __init__(self, saga: Saga, data: Any, saga_id: str) -> None:
        self.saga = saga
        self.clock = FakeClock()
        self.state = State(id=saga_id, version=saga.version, data=data)
        self.notes: list[Note] = []
        self.sent: list[Event] = []
        self._unseen: list[Event | str] = []
        self._take(Started())

    def expect(self, *wanted: type[Event] | str) -> Self:
        """Check all that was asked for or run since the last look, in order.

        Args:
            wanted: the class of a command, or `step/direction` of local work.
        """
        seen = [each if isinstance(each, str) else type(each) for each in self._unseen]
        if seen != list(wanted):
            raise AssertionError(f"expected {_names(wanted)}, saw {_names(seen)}")
        self._unseen.clear()
        return self

    def reply(self, *events: Event, to: str | None = None) -> Self:
        """Let participants answer.

        Args:
            events: their answers, in order.
            to: the request that they name, as `step/direction`; by type alone unless given.
        """
        for event in events:
            self._take(read_reply(self.saga, self.state, event, to))
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

    def cancel(self, why: str = "the customer wants it") -> Self:
        """Cancel it, as the business does."""
        return self._take(Cancel(why))

    def retry(self, why: str = "mended") -> Self:
        """Try the step again, as an operator does."""
        return self._take(Retry(why))

    def skip(self, why: str = "done by hand") -> Self:
        """Skip the step, as an operator does."""
        return self._take(Skip(why))

    def compensate(self, why: str = "given up") -> Self:
        """Make good what was done, as an operator does."""
        return self._take(Compensate(why))

    def expect_completed(self) -> Self:
        """Check that it ended well."""
        return self._expect_status(COMPLETED)

    def expect_compensated(self) -> Self:
        """Check that it ended with all made good."""
        return self._expect_status(COMPENSATED)

    def expect_stuck(self, why: str = "") -> Self:
        """Check that it waits for a person, for a reason that holds these words."""
        if why not in (self.state.reason or ""):
            raise AssertionError(f"expected a reason with {why!r}, found {self.state.reason!r}")
        return self._expect_status(STUCK)

    def _expect_status(self, status: Status) -> Self:
        if self.state.status is not status:
            raise AssertionError(
                f"expected {status}, found {self.state.status} at {self.state.step or 'the end'} "
                f"({self.state.reason or 'no reason'})"
            )
        return self

    def _take(self, stimulus: Stimulus) -> Self:
        decision = decide(self.saga, self.state, stimulus, self.clock.now())
        self.state = decision.state
        self.notes += decision.notes
        seen = [self._seen(do.request) for do in decision.actions]
        self._unseen += seen
        self.sent += [each for each in seen if isinstance(each, Event)]
        return self

    def _seen(self, request: Request) -> Event | str:
        action = self.saga.action(request)
        return action.make(self.state.data) if isinstance(action, Command) else str(request)

    @property
    def until_due_s(self) -> float | None:
        """Return how long it still waits, in seconds; None when it waits for nothing."""
        if self.state.due_at is None:
            return None
        return max(0.0, (self.state.due_at - self.clock.now()).total_seconds())


def given(saga: Saga, data: Any, saga_id: str = "RES-1") -> Rehearsal:
    """Begin a saga.

    Args:
        saga: its definition.
        data: what its steps are made from.
        saga_id: its id.
    """
    return Rehearsal(saga, data, saga_id)


def _names(seen: Any) -> list[str]:
    return [each if isinstance(each, str) else each.event_type for each in seen]
