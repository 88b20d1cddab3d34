"""A batch handler that names what failed: the rest goes on, once and in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.consumer import Consumer
from labkit.errors import BatchItemFailuresError, BrokerUnavailableError
from labkit.held import Backoff
from labkit.messages import Message
from labkit.partial_batches import raise_failures
from labkit.reports import ConsumerReport
from labkit.service import Service
from tests import toy
from tests.flow import ATTEMPTS, Flow, InterruptedStreams
from tests.toy import Happened, happen


def keys_of_one_partition(count: int) -> list[str]:
    """Return keys whose messages come in one batch."""
    keys = (f"key-{n}" for n in itertools.count())
    return list(itertools.islice((k for k in keys if toy.SOURCE.partition_of(k) == 0), count))


A, B, C, D = keys_of_one_partition(4)
Respond = Callable[[Sequence[Message[Happened]]], Any]


def naming(*bad: int) -> Respond:
    """Respond as a handler that fails at these numbers."""

    def respond(messages: Sequence[Message[Happened]]) -> Any:
        failed = [m.message_id for m in messages if m.event.n in bad]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    return respond


class Batches:
    """The toy flow, handled in batches; each batch is noted as the numbers that it brought."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.respond: Respond = lambda _: None
        self.calls: list[list[int]] = []
        self.service = Service("target", toy.REGISTRY)
        self.service.on_batch(Happened, source=toy.SOURCE)(self.handle)

    def handle(self, session: Session, messages: Sequence[Message[Happened]]) -> Any:
        self.calls.append([each.event.n for each in messages])
        rows = [{"message_id": m.message_id, "key": m.event.key, "n": m.event.n} for m in messages]
        session.execute(insert(toy.effects), rows)
        return self.respond(messages)

    def consumer(self, **options: Any) -> Consumer:
        usual: Any = {"clock": self.flow.clock, "backoff": Backoff(attempts=ATTEMPTS)}
        return self.service.consumers(self.flow.target, self.flow.transport, **usual | options)[0]


@pytest.fixture
def batches(flow: Flow) -> Batches:
    return Batches(flow)


def test_what_is_named_has_no_effect_and_the_rest_is_one_transaction_more(
    batches: Batches, flow: Flow
) -> None:
    for n, key in enumerate((A, B, C, D), start=1):
        happen(flow.source, key, n)
    batches.respond = naming(2)

    report = flow.deliver(batches.consumer())

    assert report == ConsumerReport(handled=3, failed=1)
    assert (flow.effects(), flow.pending()) == ([1, 3, 4], 0)
    assert batches.calls == [[1, 2, 3, 4], [1, 3, 4]]
    assert flow.held() == [
        ("retry", 1, "BatchItemFailuresError: the batch handler named it in batchItemFailures")
    ]


def test_a_named_message_is_tried_again_alone_after_its_pause(batches: Batches, flow: Flow) -> None:
    happen(flow.source, A, 1)
    happen(flow.source, B, 2)
    batches.respond = naming(2)
    consumer = batches.consumer()
    flow.deliver(consumer)
    flow.clock.advance(60)
    batches.respond = naming()

    assert flow.deliver(consumer) == ConsumerReport(handled=1)
    assert (flow.effects(), flow.held()) == ([1, 2], [])


def test_a_message_that_is_always_named_becomes_a_dead_letter(batches: Batches, flow: Flow) -> None:
    happen(flow.source, A, 1)
    (poison,) = happen(flow.source, B, 2)
    batches.respond = naming(2)
    consumer = batches.consumer()
    for _ in range(ATTEMPTS + 1):
        flow.deliver(consumer)
        flow.clock.advance(60)

    assert [message_id for message_id, _ in flow.dead_letters()] == [poison]
    # AWS's arithmetic: the good one ran twice, and not as often as the bad one.
    assert sum(1 in call for call in batches.calls) == 2


def test_later_messages_of_a_named_key_wait_and_earlier_ones_go_on(
    batches: Batches, flow: Flow
) -> None:
    happen(flow.source, A, 1, 2, 3, 4)
    happen(flow.source, B, 5)
    batches.respond = naming(2, 4)
    consumer = batches.consumer()

    assert flow.deliver(consumer) == ConsumerReport(handled=2, failed=1, waiting=2)
    assert flow.effects() == [1, 5]
    flow.clock.advance(60)
    batches.respond = naming()
    flow.deliver(consumer)

    assert (flow.effects(A), flow.held()) == ([1, 2, 3, 4], [])


def test_under_the_skip_policy_nothing_waits_behind_what_is_named(
    batches: Batches, flow: Flow
) -> None:
    happen(flow.source, A, 1, 2, 3)
    batches.respond = naming(2)

    report = flow.deliver(batches.consumer(on_poison="skip"))

    assert (report, flow.effects()) == (ConsumerReport(handled=2, failed=1), [1, 3])
    assert batches.calls == [[1, 2, 3], [1, 3]]


@pytest.mark.parametrize(
    "response", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}]
)
def test_an_empty_response_says_that_all_went_well(
    batches: Batches, flow: Flow, response: Any
) -> None:
    happen(flow.source, A, 1, 2)
    batches.respond = lambda _: response

    assert flow.deliver(batches.consumer()) == ConsumerReport(handled=2)
    assert batches.calls == [[1, 2]]


@pytest.mark.parametrize(
    "response",
    [
        {"batchItemFailures": [{"itemIdentifier": "nobody"}]},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemidentifier": "M-1"}]},
        {"batchItemFailures": ["M-1"]},
        {"batchItemFailures": 7},
        {"batchItemFailures": 0},
        {"batchItemFailures": ""},
        {"batchItemFailures": {}},
        {"batchItemFailures": [{"itemIdentifier": []}]},
        {"batchitemfailures": []},
        ["M-1"],
        "M-1",
        0,
    ],
)
def test_a_response_that_nobody_can_read_fails_the_whole_batch(
    batches: Batches, flow: Flow, response: Any
) -> None:
    happen(flow.source, A, 1)
    happen(flow.source, B, 2)
    batches.respond = lambda _: response

    assert flow.deliver(batches.consumer()) == ConsumerReport(failed=2)
    assert flow.effects() == []


def test_a_handler_that_names_one_more_each_time_ends_one_by_one(
    batches: Batches, flow: Flow
) -> None:
    keys = keys_of_one_partition(6)
    for n, key in enumerate(keys):
        happen(flow.source, key, n)
    batches.respond = lambda messages: naming(messages[0].event.n)(messages)

    assert flow.deliver(batches.consumer()) == ConsumerReport(failed=6)
    # The batch, the rest of it, and then each alone.
    assert [len(call) for call in batches.calls] == [6, 5, 1, 1, 1, 1, 1]


def test_a_rest_that_fails_is_done_one_by_one(batches: Batches, flow: Flow) -> None:
    for n, key in enumerate((A, B, C), start=1):
        happen(flow.source, key, n)

    def respond(messages: Sequence[Message[Happened]]) -> Any:
        numbers = [m.event.n for m in messages]
        if 3 in numbers and 2 not in numbers:
            raise RuntimeError
        return naming(2)(messages)

    batches.respond = respond

    assert flow.deliver(batches.consumer()) == ConsumerReport(handled=1, failed=2)
    assert flow.effects() == [1]


def test_what_was_not_held_when_the_broker_went_away_is_held_by_whoever_comes_next(
    batches: Batches, flow: Flow
) -> None:
    happen(flow.source, A, 1, 2, 3)
    happen(flow.source, B, 4)
    batches.respond = naming(2)
    flow.transport = InterruptedStreams(flow.transport.client, flow.transport.prefix)
    consumer = batches.consumer()

    def go_away() -> None:
        raise BrokerUnavailableError

    flow.transport.made.after = go_away
    with pytest.raises(BrokerUnavailableError):
        flow.deliver(consumer)
    # The rest is committed and acknowledged; what failed and what is behind it is pending.
    assert (flow.effects(), flow.pending()) == ([1, 4], 2)
    batches.respond = naming()
    flow.deliver(consumer)
    flow.clock.advance(60)
    flow.deliver(consumer)

    assert (flow.effects(A), flow.pending(), flow.held()) == ([1, 2, 3], 0, [])


@pytest.mark.slow
@given(
    order=st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
    bad=st.sets(st.integers(0, 7)),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_named_each_message_has_one_effect_in_the_order_of_its_key(
    flow: Flow, order: list[str], bad: set[int]
) -> None:
    with flow.target.begin() as connection:
        connection.exec_driver_sql("truncate effects")
    keys = dict(zip("abc", (A, B, C), strict=True))
    for n, letter in enumerate(order):
        happen(flow.source, keys[letter], n)
    batches = Batches(flow)
    batches.respond = naming(*bad)
    consumer = batches.consumer()
    flow.deliver(consumer)
    batches.respond = naming()
    flow.clock.advance(60)
    flow.deliver(consumer)
    consumer.leases.release()

    for letter, key in keys.items():
        expected = [n for n, each in enumerate(order) if each == letter]
        assert flow.effects(key) == expected
    assert (flow.held(), flow.pending()) == ([], 0)


def test_a_message_may_be_named_twice() -> None:
    happened: Any = Message(
        message_id="M-1",
        correlation_id="C-1",
        event=Happened(key="a", n=1),
        occurred_at=FakeClock().now(),
        key="a",
        headers={},
    )
    item = {"itemIdentifier": "M-1"}

    with pytest.raises(BatchItemFailuresError) as caught:
        raise_failures({"batchItemFailures": (item, item)}, [happened])
    assert caught.value.message_ids == {"M-1"}
