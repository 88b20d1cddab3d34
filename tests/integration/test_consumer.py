"""The consumer: once, in order, whatever fails."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from labkit.reports import ConsumerReport
from tests import toy
from tests.flow import ATTEMPTS, Flow
from tests.toy import Happened, Ignored, happen


def test_each_message_has_its_effect_once_and_is_acknowledged(flow: Flow) -> None:
    happen(flow.source, "a", 1, 2, 3)

    report = flow.deliver(flow.consumer())

    assert report == ConsumerReport(handled=3)
    assert (flow.effects("a"), flow.pending()) == ([1, 2, 3], 0)


def test_a_message_that_is_published_twice_has_one_effect(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    consumer = flow.consumer()
    flow.deliver(consumer)
    with flow.source.begin() as connection:
        connection.execute(text("update outbox_messages set published_at = null"))

    assert flow.deliver(consumer) == ConsumerReport(duplicates=1)
    assert flow.effects() == [1]


def test_the_same_message_twice_in_one_batch_has_one_effect(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    flow.relay.run_once()
    with flow.source.begin() as connection:
        connection.execute(text("update outbox_messages set published_at = null"))

    assert flow.deliver(flow.consumer()) == ConsumerReport(handled=1, duplicates=1)
    assert flow.effects() == [1]


def test_a_type_without_a_handler_is_skipped(flow: Flow) -> None:
    with Session(flow.source) as session, session.begin():
        toy.source.outbox.add(session, Ignored(), key="a")

    assert flow.deliver(flow.consumer()) == ConsumerReport(skipped=1)
    assert flow.pending() == 0


def test_a_handler_sees_ids_key_headers_and_attempt(flow: Flow) -> None:
    (message_id,) = happen(flow.source, "a", 1)

    flow.deliver(flow.consumer())

    (message,) = toy.seen
    assert (message.message_id, message.key, message.correlation_id) == (message_id, "a", "a")
    assert (message.attempt, message.redelivered, message.event.n) == (1, False, 1)


def test_a_failing_message_is_tried_again_after_its_pause(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    consumer = flow.consumer()

    assert flow.deliver(consumer).failed == 1
    assert flow.effects() == []
    flow.clock.advance(60)

    assert flow.deliver(consumer) == ConsumerReport(handled=1)
    assert (flow.effects(), flow.held()) == ([1], [])


def test_a_retry_tells_the_handler_its_number_and_that_it_comes_again(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 3")
    consumer = flow.consumer()
    for _ in range(ATTEMPTS):
        flow.deliver(consumer)
        flow.clock.advance(60)

    assert [(m.attempt, m.redelivered) for m in toy.seen] == [(1, False), (2, True), (3, True)]


def test_later_messages_of_a_failing_key_wait_and_other_keys_flow(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    happen(flow.source, "a", 2, 3)
    happen(flow.source, "b", 7, 8)
    consumer = flow.consumer()

    flow.deliver(consumer)
    assert (flow.effects("a"), flow.effects("b")) == ([], [7, 8])
    flow.clock.advance(60)
    flow.deliver(consumer)

    assert flow.effects("a") == [1, 2, 3]


def test_messages_that_come_while_their_key_waits_line_up_behind_it(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    consumer = flow.consumer()
    flow.deliver(consumer)
    happen(flow.source, "a", 2)
    flow.deliver(consumer)
    flow.clock.advance(60)

    flow.deliver(consumer)
    happen(flow.source, "a", 3)
    flow.deliver(consumer)

    assert (flow.effects("a"), flow.held()) == ([1, 2, 3], [])


def test_a_message_that_fails_every_attempt_is_parked_with_its_reason(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="fail always")
    consumer = flow.consumer()
    for _ in range(ATTEMPTS + 2):
        flow.deliver(consumer)
        flow.clock.advance(60)

    assert flow.held() == [("parked", ATTEMPTS, "RuntimeError: fail always")]


def test_a_permanent_failure_is_parked_at_once(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")

    assert flow.deliver(flow.consumer()).parked == 1
    assert flow.held() == [("parked", 1, "PermanentError: permanent no")]


def test_a_redriven_dead_letter_keeps_its_place(flow: Flow) -> None:
    (poison,) = happen(flow.source, "a", 1, behaviour="permanent no")
    happen(flow.source, "a", 2, 3)
    consumer = flow.consumer()
    flow.deliver(consumer)
    toy.repaired.add("permanent no")

    flow.redrive(poison)
    flow.deliver(consumer)

    assert (flow.effects("a"), flow.held()) == ([1, 2, 3], [])


def test_a_dead_letter_that_fails_again_is_parked_again(flow: Flow) -> None:
    (poison,) = happen(flow.source, "a", 1, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)

    flow.redrive(poison)
    flow.deliver(consumer)

    assert flow.held() == [("parked", 1, "PermanentError: permanent no")]


def test_the_skip_policy_lets_later_messages_overtake(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    happen(flow.source, "a", 2, 3)

    flow.deliver(flow.consumer(on_poison="skip"))

    assert (flow.effects("a"), len(flow.held())) == ([2, 3], 1)


def test_one_failing_member_does_not_cost_the_rest_of_its_batch(flow: Flow) -> None:
    happen(flow.source, "a", 1, 2)
    happen(flow.source, "b", 1, behaviour="permanent no")
    happen(flow.source, "c", 1, 2)

    report = flow.deliver(flow.consumer(batch=100))

    assert (report.handled, report.parked, sorted(flow.effects())) == (4, 1, [1, 1, 2, 2])


def test_a_known_id_with_other_content_becomes_a_dead_letter_that_blocks_nobody(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    consumer = flow.consumer()
    flow.deliver(consumer)
    with flow.source.begin() as connection:
        change = """update outbox_messages set published_at = null,
                    body = replace(body, '"n":1', '"n":99')"""
        connection.exec_driver_sql(change)
    happen(flow.source, "a", 2)

    flow.deliver(consumer)

    assert flow.effects("a") == [1, 2]
    assert flow.held()[0][2].startswith("PayloadMismatchError")


def test_a_deleted_entry_is_a_dead_letter_and_no_handler_sees_it(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    flow.relay.run_once()
    partition = toy.SOURCE.partition_of("a")
    crashed = flow.consumer(owner="crashed")
    crashed.leases.tick()
    lease = crashed.leases.owned[partition]
    entries = crashed._subscription.read_new(partition, epoch=lease.epoch, count=10)
    crashed.leases.release()
    key = flow.transport.stream_key(toy.SOURCE, partition)
    flow.transport.client.xdel(key, entries[0].position)

    assert flow.deliver(flow.consumer()).parked == 1
    assert (toy.seen, flow.pending()) == ([], 0)


def test_foreign_entries_are_dead_letters_even_at_the_same_position(flow: Flow) -> None:
    keys = [flow.transport.stream_key(toy.SOURCE, partition) for partition in (0, 1)]
    for key in keys:
        flow.transport.client.xadd(key, {"hello": "world"}, id="5-0")

    assert flow.deliver(flow.consumer()).parked == len(keys)
    assert [row[2].split(":")[0] for row in flow.held()] == ["InvalidMessageError"] * 2


def test_an_unknown_version_parks_its_key(flow: Flow) -> None:
    happen(flow.source, "a", 1, 2)
    with flow.source.begin() as connection:
        change = """update outbox_messages set body = replace(body, '"version":1', '"version":9')
                    where seq = (select min(seq) from outbox_messages)"""
        connection.exec_driver_sql(change)

    flow.deliver(flow.consumer())

    assert (flow.effects("a"), [row[0] for row in flow.held()]) == ([], ["parked", "waiting"])


def test_a_lost_connection_is_not_the_messages_fault(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="cut")

    def cut(session: Session) -> None:
        toy.hooks.clear()
        toy.repaired.add("cut")
        session.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    toy.hooks["cut"] = cut
    consumer = flow.consumer()
    with pytest.raises(Exception, match="terminating connection"):
        flow.deliver(consumer)

    assert flow.held() == []
    assert flow.deliver(consumer).handled == 1
    assert flow.effects() == [1]


def test_a_handler_that_swallows_a_database_error_has_no_effect_and_is_retried(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="swallow")

    def swallow(session: Session) -> None:
        with pytest.raises(Exception, match="division by zero"):
            session.execute(text("select 1/0"))

    toy.hooks["swallow"] = swallow
    flow.deliver(flow.consumer())

    assert flow.effects() == []
    assert "swallowed a database error" in flow.held()[0][2]


def test_a_handler_that_commits_is_stopped_before_it_happens(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="commit")
    toy.hooks["commit"] = lambda session: session.commit()

    flow.deliver(flow.consumer())

    assert flow.effects() == []
    assert flow.held()[0][2].startswith("HandlerTransactionError")


def test_a_consumer_that_lost_its_lease_before_it_began_does_nothing(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    flow.relay.run_once()
    late, prompt = flow.consumer(owner="late"), flow.consumer(owner="prompt")
    late.leases.tick()
    flow.expire_leases()

    prompt_report = prompt.run_once()
    late_report = late.run_once()

    assert (prompt_report.handled, late_report.handled) == (1, 0)
    assert (flow.effects(), set(prompt.leases.owned)) == ([1], set(range(toy.SOURCE.partitions)))


def test_a_consumer_that_froze_between_read_and_begin_does_nothing(flow: Flow) -> None:
    happen(flow.source, "a", 1, 2)
    flow.relay.run_once()
    late, prompt = flow.consumer(owner="late"), flow.consumer(owner="prompt")
    late.run_once()
    happen(flow.source, "a", 3)
    flow.relay.run_once()
    partition = toy.SOURCE.partition_of("a")
    lease = late.leases.owned[partition]
    entries = late._subscription.read_new(partition, epoch=lease.epoch, count=10)
    flow.expire_leases()
    flow.deliver(prompt)

    with pytest.raises(Exception, match="another owner"):
        late._batches.process(lease, entries)

    assert flow.effects("a") == [1, 2, 3]


def test_a_partition_that_is_lost_and_taken_anew_is_settled_anew(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    consumer, other = flow.consumer(owner="one"), flow.consumer(owner="two")
    flow.deliver(consumer)
    flow.expire_leases()
    flow.clock.advance(60)
    flow.deliver(other)
    happen(flow.source, "a", 2)
    flow.relay.run_once()
    flow.expire_leases()
    flow.clock.advance(60)

    consumer.run_once()

    assert (flow.effects("a"), consumer._lanes.blocked[flow.lease(consumer, "a")]) == (
        [1, 2],
        set(),
    )


def test_what_a_crashed_consumer_left_pending_is_handled_in_order(flow: Flow) -> None:
    happen(flow.source, "a", 1, 2, 3)
    flow.relay.run_once()
    partition = toy.SOURCE.partition_of("a")
    crashed = flow.consumer(owner="crashed", batch=2)
    crashed.leases.tick()
    lease = crashed.leases.owned[partition]
    crashed._subscription.read_new(partition, epoch=lease.epoch, count=2)
    crashed.leases.release()

    report = flow.deliver(flow.consumer())

    assert (flow.effects("a"), flow.pending(), report.handled) == ([1, 2, 3], 0, 3)


def test_two_consumers_share_the_partitions(flow: Flow) -> None:
    one, two = flow.consumer(owner="one"), flow.consumer(owner="two")
    for _ in range(2):
        one.run_once()
        two.run_once()
        flow.clock.advance(5)

    assert len(one.leases.owned) == len(two.leases.owned) == toy.SOURCE.partitions / 2


def test_a_handlers_events_leave_with_its_effect_or_not_at_all(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="answer and fail")
    happen(flow.source, "b", 1, behaviour="answer")

    def answer(session: Session) -> None:
        toy.target.outbox.add(session, Happened(key="answer", n=1), key="answer")

    def answer_and_fail(session: Session) -> None:
        answer(session)
        raise RuntimeError

    toy.hooks.update({"answer": answer, "answer and fail": answer_and_fail})
    flow.deliver(flow.consumer())

    with flow.target.connect() as connection:
        assert connection.execute(text("select count(*) from outbox_messages")).scalar() == 1
