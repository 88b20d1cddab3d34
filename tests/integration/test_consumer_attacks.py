"""The consumer under attack: bad content, bad handlers, and failures at the worst moment."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.errors import BrokerUnavailableError, ConfigurationError
from labkit.held import Backoff
from labkit.messages import Message, Registry
from labkit.ports import Stream
from labkit.reports import ConsumerReport
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.flow import ATTEMPTS, Flow, InterruptedStreams
from tests.toy import Happened, Ignored, happen

OTHER_CONTENT = """body = replace(body, '"n":2', '"n":99')"""


class Death(BaseException):
    """Ends a worker like SystemExit or KeyboardInterrupt."""


class Unprintable(Exception):  # noqa: N818 - it is about its text
    """An error that cannot say what happened."""

    def __str__(self) -> str:
        raise RuntimeError


def away() -> None:
    raise BrokerUnavailableError


def raising(error: BaseException) -> Any:
    def behave(_session: Session) -> None:
        raise error

    return behave


def test_two_sources_of_one_service_do_not_take_each_others_held_messages(
    flow: Flow, engine: Engine, transport: RedisStreams, clock: FakeClock
) -> None:
    second = Stream("second.events", toy.SOURCE.partitions)
    service, seen = Service("both", toy.REGISTRY), list[int]()

    @service.on(Happened, source=toy.SOURCE)
    def fail_once(_session: Session, message: Message[Happened]) -> None:
        seen.append(message.attempt)
        if message.attempt == 1:
            raise RuntimeError

    service.on(Ignored, source=second)(lambda _session, _message: None)
    service.create_tables(flow.target)
    first, other = service.consumers(flow.target, transport, clock=clock)
    happen(engine, "a", 1)
    flow.deliver(first)
    clock.advance(60)

    assert (other.run_once(), first.run_once().handled) == (ConsumerReport(), 1)
    assert seen == [1, 2]


def test_a_held_message_whose_handler_was_removed_becomes_a_dead_letter(
    flow: Flow, transport: RedisStreams, clock: FakeClock
) -> None:
    (message_id,) = happen(flow.source, "a", 1, behaviour="until 2")
    flow.deliver(flow.consumer())
    without = Service("target", toy.REGISTRY)
    without.on(Ignored, source=toy.SOURCE)(lambda _session, _message: None)
    clock.advance(60)

    without.consumers(flow.target, transport, clock=clock, owner="new")[0].leases.release()
    flow.expire_leases()
    without.consumers(flow.target, transport, clock=clock)[0].run_once()

    ((dead, reason),) = flow.dead_letters()
    assert (dead, "handles Happened" in reason) == (message_id, True)


def test_another_content_of_a_waiting_message_is_a_dead_letter_that_blocks_nobody(
    flow: Flow,
) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    (used_twice,) = happen(flow.source, "a", 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again(OTHER_CONTENT)
    flow.deliver(consumer)
    flow.clock.advance(60)
    happen(flow.source, "a", 3)

    flow.deliver(consumer)

    assert flow.effects("a") == [1, 2, 3]
    ((dead, reason),) = flow.dead_letters()
    assert (dead, reason.split(":")[0]) == (used_twice, "PayloadMismatchError")


def test_another_content_of_a_handled_message_is_noticed_after_a_crash_too(flow: Flow) -> None:
    happen(flow.source, "a", 2)
    flow.deliver(flow.consumer())
    flow.expire_leases()
    flow.publish_again(OTHER_CONTENT)
    flow.read_and_crash("a")
    happen(flow.source, "a", 3)

    flow.deliver(flow.consumer())

    assert flow.effects("a") == [2, 3]
    assert flow.dead_letters()[0][1].startswith("PayloadMismatchError")


def test_each_content_of_an_id_that_is_used_three_times_is_kept(flow: Flow) -> None:
    happen(flow.source, "a", 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again(OTHER_CONTENT)
    flow.deliver(consumer)
    flow.publish_again("""body = replace(body, '"n":99', '"n":98')""")

    flow.deliver(consumer)

    assert len(flow.dead_letters()) == 2


def test_a_handled_message_that_nobody_can_read_any_more_is_a_duplicate(
    flow: Flow, transport: RedisStreams, clock: FakeClock
) -> None:
    happen(flow.source, "a", 1)
    flow.deliver(flow.consumer())
    flow.expire_leases()
    newer = Service("target", Registry(Newer))
    newer.on(Newer, source=toy.SOURCE)(lambda _session, _message: None)
    consumer = newer.consumers(flow.target, transport, clock=clock)[0]
    flow.publish_again()

    report = flow.deliver(consumer)

    assert (report, flow.held()) == (ConsumerReport(duplicates=1), [])


class Newer(Happened, frozen=True):
    """The next version of `Happened`, whose old class was removed."""

    topic = "source.happened.v2"
    event_type = "Happened"
    version = 2


@pytest.mark.parametrize(
    "error", [ValueError("a\0b"), ValueError("\ud800"), Unprintable(), ValueError("x" * 10**6)]
)
def test_whatever_an_error_says_its_message_is_held(flow: Flow, error: Exception) -> None:
    happen(flow.source, "a", 1, behaviour="odd")
    toy.hooks["odd"] = raising(error)

    assert flow.deliver(flow.consumer()).failed == 1
    assert len(flow.held()[0][2]) < 3000


def test_a_message_whose_acknowledgement_fails_was_handled_and_is_not_held(
    flow: Flow, client: Any
) -> None:
    flow.transport = interrupted = InterruptedStreams(client, flow.transport.prefix)
    consumer = flow.consumer(backoff=Backoff(attempts=1))
    flow.deliver(consumer)
    happen(flow.source, "a", 1)
    interrupted.made.before = away

    with pytest.raises(BrokerUnavailableError):
        flow.deliver(consumer)

    assert (flow.effects(), flow.held(), flow.pending()) == ([1], [], 1)
    assert (flow.deliver(consumer), flow.pending()) == (ConsumerReport(duplicates=1), 0)


def test_a_failed_message_whose_acknowledgement_fails_is_held_once(flow: Flow, client: Any) -> None:
    flow.transport = interrupted = InterruptedStreams(client, flow.transport.prefix)
    consumer = flow.consumer()
    flow.deliver(consumer)
    happen(flow.source, "a", 1, behaviour="until 2")
    interrupted.made.before = away
    with pytest.raises(BrokerUnavailableError):
        flow.deliver(consumer)

    flow.deliver(consumer)
    assert [row[:2] for row in flow.held()] == [("retry", 1)]
    flow.clock.advance(60)

    assert (flow.deliver(consumer).handled, flow.effects()) == (1, [1])


class Fragile(Happened, frozen=True):
    """An event that refuses to be built."""

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError(self.n)


def test_an_event_that_cannot_be_built_is_a_dead_letter(
    flow: Flow, transport: RedisStreams, clock: FakeClock
) -> None:
    service = Service("target", Registry(Fragile))
    service.on(Fragile, source=toy.SOURCE)(lambda _session, _message: None)
    with Session(flow.source) as session, session.begin():
        toy.source.outbox.add(session, Fragile(key="a", n=1), key="a")
        change = """update outbox_messages set body = replace(body, '"n":1', '"n":-1')"""
        session.flush()
    with flow.source.begin() as connection:
        connection.exec_driver_sql(change)

    assert flow.deliver(service.consumers(flow.target, transport, clock=clock)[0]).parked == 1
    assert "KeyError" in flow.dead_letters()[0][1]


def test_a_handler_that_ends_its_worker_is_parked_after_as_many_ends(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="end")
    happen(flow.source, "b", 1)
    toy.hooks["end"] = raising(Death())
    consumer = flow.consumer(batch=1)
    for _ in range(1 + ATTEMPTS):
        with pytest.raises(Death):
            flow.deliver(consumer)
        flow.clock.advance(60)

    flow.deliver(consumer)

    assert [row[:2] for row in flow.held()] == [("parked", ATTEMPTS)]
    assert flow.held()[0][2].endswith("ended during every attempt")
    assert flow.effects() == [1]


def test_a_worker_that_ends_by_an_error_gives_its_partitions_back(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="end")
    flow.relay.run_once()
    toy.hooks["end"] = raising(Death())

    with pytest.raises(Death):
        flow.consumer().run(threading.Event())

    with flow.target.connect() as connection:
        assert connection.execute(text("select count(owner) from lease")).scalar() == 0


def test_a_handled_message_that_comes_again_does_not_wait_behind_a_dead_letter(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    happen(flow.source, "a", 2, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again()

    flow.deliver(consumer)

    assert [row[0] for row in flow.held()] == ["parked"]


def test_a_dead_letter_without_a_key_does_not_block_a_key_of_its_name(flow: Flow) -> None:
    names = (f"id-{number}" for number in range(999))
    same = toy.SOURCE.partition_of("a")
    used_twice = next(n for n in names if toy.SOURCE.partition_of(f"message {n}") == same)
    with Session(flow.source) as session, session.begin():
        toy.source.outbox.add(session, Happened(key="a", n=2), key="a", message_id=used_twice)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again(OTHER_CONTENT)
    flow.deliver(consumer)

    happen(flow.source, f"message {used_twice}", 1)

    assert flow.deliver(consumer).handled == 1


def test_a_held_row_that_somebody_deleted_meanwhile_ends_nobody(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    happen(flow.source, "a", 2, behaviour="until 2")
    consumer = flow.consumer(on_poison="skip")
    flow.deliver(consumer)
    flow.clock.advance(60)
    toy.hooks["until 2"] = lambda _session: _discard(flow, toy.seen[-1].message_id)

    assert flow.deliver(consumer).handled == 1
    assert flow.held() == []


def _discard(flow: Flow, but: str) -> None:
    with flow.target.begin() as connection:
        delete = text("delete from held where message_id <> :but")
        connection.execute(delete, {"but": but})


def test_a_waiting_message_that_never_ran_is_not_called_redelivered(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    happen(flow.source, "a", 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.clock.advance(60)
    flow.deliver(consumer)

    seen = [(m.event.n, m.attempt, m.redelivered) for m in toy.seen if m.event.n == 2]
    assert seen == [(2, 1, False)]


def test_a_pass_takes_a_batch_of_a_long_line_so_that_others_get_their_turn(flow: Flow) -> None:
    (poison,) = happen(flow.source, "a", 0, behaviour="permanent no")
    happen(flow.source, "a", *range(1, 8))
    consumer = flow.consumer(batch=3)
    flow.deliver(consumer)
    toy.repaired.add("permanent no")
    flow.redrive(poison)

    handled = [consumer.run_once().handled for _ in range(4)]

    assert (handled, flow.effects("a")) == ([3, 3, 2, 0], list(range(8)))


def test_a_misspelt_policy_is_refused(flow: Flow) -> None:
    with pytest.raises(ConfigurationError, match="park_key or skip"):
        flow.consumer(on_poison="park")


def test_a_pause_stops_growing_and_never_overflows() -> None:
    backoff = Backoff(attempts=10**6)

    assert all(backoff.delay_s(attempt) <= 30 for attempt in (1, 6, 1_025, 10**6))


def test_a_handler_cannot_change_the_isolation_of_its_transaction(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="isolate")
    autocommit = {"isolation_level": "AUTOCOMMIT"}

    def isolate(session: Session) -> None:
        session.connection(execution_options=autocommit)

    toy.hooks["isolate"] = isolate

    flow.deliver(flow.consumer())

    assert (flow.effects(), len(flow.held())) == ([], 1)


def test_a_message_has_one_attempt_at_least() -> None:
    with pytest.raises(ConfigurationError, match="attempt"):
        Backoff(attempts=0)
