"""A deadline travels with a message, and a handler may drop what comes past half of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.consumer import Consumer
from labkit.deadline import Late, deadline, remaining_s
from labkit.errors import ConfigurationError
from labkit.handlers import Handler
from labkit.held import Backoff
from labkit.messages import Message
from labkit.policy import Policy
from labkit.reports import ConsumerReport
from labkit.service import Service
from labkit.wire import DEADLINE, decode_envelope
from tests import toy
from tests.flow import ATTEMPTS, Flow
from tests.toy import Happened


def ask(flow: Flow, n: int, *, seconds: float | None = 10.0, key: str = "a") -> str:
    """Send a request that somebody waits for so many seconds for."""
    event, now = Happened(key=key, n=n), flow.clock.now()
    within = nullcontext() if seconds is None else deadline(seconds, clock=flow.clock)
    with Session(flow.source) as session, session.begin(), within:
        return toy.source.outbox.add(session, event, key=key, occurred_at=now)


def stored_headers(flow: Flow, **given: str) -> dict[str, Any]:
    """Return the headers that an event gets here."""
    bodies = text("select body from outbox_messages order by seq desc")
    with flow.source.begin() as connection:
        toy.source.outbox.add(connection, Happened(key="k", n=0), key="k", headers=given)
        body: str = connection.execute(bodies).scalars().first() or ""
    return dict(decode_envelope(body).headers or {})


class Asked:
    """The toy flow with one policy for what is late; what handlers saw is kept."""

    def __init__(self, flow: Flow, late: Late) -> None:
        self.flow = flow
        self.left_s: list[float | None] = []
        self.fails = False
        self.calls: Callable[[], object] = lambda: None
        self.service = Service("target", toy.REGISTRY)
        self.service.on(Happened, source=toy.SOURCE, late=late)(self.handle)

    def handle(self, session: Session, message: Message[Happened]) -> None:
        self.left_s.append(remaining_s())
        if self.fails:
            raise RuntimeError
        self.calls()
        event = message.event
        row = {"message_id": message.message_id, "key": event.key, "n": event.n}
        session.execute(insert(toy.effects), row)

    def consumer(self) -> Consumer:
        backoff = Backoff(attempts=ATTEMPTS)
        return self.service.consumers(
            self.flow.target, self.flow.transport, clock=self.flow.clock, backoff=backoff
        )[0]


def test_an_event_that_is_stored_inside_a_deadline_carries_it(flow: Flow) -> None:
    assert DEADLINE not in stored_headers(flow)
    with deadline(2.5, clock=flow.clock):
        headers = stored_headers(flow)
        own = stored_headers(flow, deadline="2026-03-01T00:00:00Z")

    assert headers[DEADLINE] == "2026-02-17T16:00:02.500Z"
    assert own[DEADLINE] == "2026-03-01T00:00:00Z"


def test_a_handler_works_within_the_deadline_of_its_message(flow: Flow) -> None:
    asked = Asked(flow, "handle")
    ask(flow, 1, seconds=10.0)
    ask(flow, 2, seconds=None)
    ask(flow, 3, seconds=20.0)
    flow.clock.advance(4)

    flow.deliver(asked.consumer())

    assert asked.left_s == [6.0, None, 16.0]


def test_by_default_what_is_late_is_handled_as_ever(flow: Flow) -> None:
    asked = Asked(flow, "handle")
    ask(flow, 1)
    flow.clock.advance(60)

    assert flow.deliver(asked.consumer()) == ConsumerReport(handled=1)
    # A deadline that has passed would have every policy inside refuse, for ever.
    assert asked.left_s == [None]


def test_what_is_handled_after_its_deadline_may_call_others(flow: Flow) -> None:
    stock = Policy("stock", deadline_s=2.0, clock=flow.clock)
    asked = Asked(flow, "handle")
    asked.calls = lambda: stock.call(lambda: None)
    ask(flow, 1)
    flow.clock.advance(60)

    assert flow.deliver(asked.consumer()) == ConsumerReport(handled=1)
    assert flow.effects() == [1]


@pytest.mark.parametrize(("after_s", "handled"), [(4.9, 1), (5.0, 0)])
def test_what_comes_past_half_of_its_deadline_is_counted_and_no_handler_sees_it(
    flow: Flow, after_s: float, handled: int
) -> None:
    asked = Asked(flow, "count")
    ask(flow, 1)
    flow.clock.advance(after_s)

    report = flow.deliver(asked.consumer())

    assert report == ConsumerReport(handled=handled, late=1 - handled)
    assert (len(asked.left_s), flow.pending(), flow.held()) == (handled, 0, [])


def test_the_key_of_what_was_counted_goes_on_and_it_stays_dropped(flow: Flow) -> None:
    asked = Asked(flow, "count")
    ask(flow, 1)
    flow.clock.advance(6)
    ask(flow, 2)
    consumer = asked.consumer()

    assert flow.deliver(consumer) == ConsumerReport(handled=1, late=1)
    flow.publish_again()

    assert flow.deliver(consumer) == ConsumerReport(duplicates=2)
    assert flow.effects() == [2]


def test_what_is_late_becomes_a_dead_letter_and_its_key_waits(flow: Flow) -> None:
    asked = Asked(flow, "dead_letter")
    late = ask(flow, 1)
    flow.clock.advance(5)
    ask(flow, 2)
    ask(flow, 3, key="b")

    assert flow.deliver(asked.consumer()) == ConsumerReport(handled=1, parked=1, waiting=1)
    assert flow.effects() == [3]
    ((message_id, reason),) = flow.dead_letters()
    assert message_id == late
    assert reason.startswith("LateMessageError: Half of the message's deadline had passed")


def test_a_late_dead_letter_that_is_redriven_is_handled_in_its_place(flow: Flow) -> None:
    asked = Asked(flow, "dead_letter")
    late = ask(flow, 1)
    flow.clock.advance(6)
    ask(flow, 2, seconds=None)
    consumer = asked.consumer()
    flow.deliver(consumer)

    flow.redrive(late)
    flow.deliver(consumer)

    assert (flow.effects(), flow.held()) == ([1, 2], [])


@pytest.mark.parametrize("late", ["dead_letter", "count"])
def test_what_an_operator_redrives_is_handled_however_late_even_if_its_first_attempt_fails(
    flow: Flow, late: Late
) -> None:
    asked = Asked(flow, late)
    asked.fails = True
    wanted = ask(flow, 1, seconds=1000)
    consumer = asked.consumer()
    for _ in range(ATTEMPTS):
        flow.deliver(consumer)
        flow.clock.advance(60)
    assert [each for each, _ in flow.dead_letters()] == [wanted]
    flow.clock.advance(600)

    flow.redrive(wanted)
    assert flow.deliver(consumer) == ConsumerReport(failed=1)
    flow.clock.advance(60)
    asked.fails = False

    assert flow.deliver(consumer) == ConsumerReport(handled=1)
    assert (flow.effects(), flow.held()) == ([1], [])


@pytest.mark.parametrize("late", ["dead_letter", "count"])
def test_what_was_handled_in_time_and_comes_again_late_is_a_duplicate(
    flow: Flow, late: Late
) -> None:
    asked = Asked(flow, late)
    ask(flow, 1)
    consumer = asked.consumer()
    flow.deliver(consumer)
    flow.publish_again()
    flow.clock.advance(60)

    assert flow.deliver(consumer) == ConsumerReport(duplicates=1)
    assert (flow.effects(), flow.held()) == ([1], [])


@pytest.mark.parametrize(
    ("late", "outcome"),
    [("dead_letter", ConsumerReport(parked=1)), ("count", ConsumerReport(late=1))],
)
def test_a_failed_message_is_not_tried_again_when_it_is_late(
    flow: Flow, late: Late, outcome: ConsumerReport
) -> None:
    asked = Asked(flow, late)
    asked.fails = True
    ask(flow, 1)
    consumer = asked.consumer()
    assert flow.deliver(consumer) == ConsumerReport(failed=1)
    flow.clock.advance(60)

    assert flow.deliver(consumer) == outcome
    assert len(asked.left_s) == 1


def test_no_deadline_holds_for_a_batch_whose_messages_have_one_each(flow: Flow) -> None:
    seen: list[tuple[int, float | None]] = []

    def handle_all(_: Session, messages: Sequence[Message[Happened]]) -> None:
        seen.append((len(messages), remaining_s()))

    service = Service("target", toy.REGISTRY)
    service.on_batch(Happened, source=toy.SOURCE, late="count")(handle_all)
    ask(flow, 1)
    flow.clock.advance(6)
    ask(flow, 2)
    ask(flow, 3, seconds=20)

    (consumer,) = service.consumers(flow.target, flow.transport, clock=flow.clock)
    assert flow.deliver(consumer) == ConsumerReport(handled=2, late=1)
    assert seen == [(2, None)]


def test_an_unknown_policy_for_what_is_late_is_refused() -> None:
    late: Any = "drop"

    with pytest.raises(ConfigurationError, match="late is one of handle, dead_letter, count"):
        Handler(lambda _session, _message: None, late=late)
