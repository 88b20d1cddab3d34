"""Partitions that an operator pauses and resumes, while workers run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from labkit import partitions
from labkit.consumer import Consumer
from labkit.errors import ConfigurationError
from labkit.partitions import Partition
from tests import toy
from tests.flow import Flow
from tests.toy import happen
from tests.waiting import until_it_waits

QUARTER_S = 2.5
NAME = f"target < {toy.SOURCE.name}"
KEYS = [f"k{n}" for n in range(20)]
# Two keys of different partitions, so that one can be paused alone.
A = KEYS[0]
B = next(k for k in KEYS if toy.SOURCE.partition_of(k) != toy.SOURCE.partition_of(A))
OF_A = toy.SOURCE.partition_of(A)


def pause(engine: Engine, kind: str = "consumer", *numbers: int, **options: Any) -> list[Partition]:
    with engine.begin() as connection:
        return partitions.pause(connection, kind, None, numbers or None, **options)


def resume(engine: Engine, kind: str = "consumer", *numbers: int) -> list[Partition]:
    with engine.begin() as connection:
        return partitions.resume(connection, kind, None, numbers or None)


def listed(engine: Engine, **options: Any) -> list[Partition]:
    with engine.connect() as connection:
        return partitions.list_partitions(connection, **options)


def test_the_list_shows_owners_epochs_and_what_the_relay_marked(flow: Flow) -> None:
    happen(flow.source, A, 1)
    flow.relay.run_once()

    (row,) = [each for each in listed(flow.source) if each.partition == OF_A]
    assert (row.kind, row.name, row.epoch) == ("relay", toy.SOURCE.name, 1)
    assert (row.owner, row.is_active, row.paused_at) == (flow.relay.leases.owner, True, None)
    assert row.acked > 0


def test_the_list_can_be_limited_to_a_kind_and_a_name(flow: Flow) -> None:
    flow.consumer().run_once()

    assert len(listed(flow.target, kind="consumer", name=NAME)) == toy.SOURCE.partitions
    assert listed(flow.target, kind="relay") == []
    assert listed(flow.target, name="other") == []


def test_a_paused_partition_is_given_up_at_the_next_tick_and_the_others_flow(flow: Flow) -> None:
    consumer = flow.consumer()
    flow.deliver(consumer)
    pause(flow.target, "consumer", OF_A, why="looking")
    flow.clock.advance(QUARTER_S)
    happen(flow.source, A, 1, 2)
    happen(flow.source, B, 1, 2)

    flow.deliver(consumer)

    assert (flow.effects(A), flow.effects(B)) == ([], [1, 2])
    (row,) = [each for each in listed(flow.target) if each.paused_at]
    assert (row.partition, row.owner, row.is_active, row.paused_why) == (
        OF_A,
        None,
        False,
        "looking",
    )


def test_a_resumed_partition_goes_on_where_it_stopped(flow: Flow) -> None:
    happen(flow.source, A, 1)
    consumer = flow.consumer()
    flow.deliver(consumer)
    pause(flow.target)
    flow.clock.advance(QUARTER_S)
    happen(flow.source, A, 2, 3)
    flow.deliver(consumer)

    resumed = resume(flow.target, "consumer", OF_A)
    flow.clock.advance(QUARTER_S)
    flow.deliver(consumer)

    assert [each.partition for each in resumed] == [OF_A]
    assert flow.effects(A) == [1, 2, 3]
    assert list(consumer.leases.owned) == [OF_A]


def test_nobody_takes_a_paused_partition_even_after_its_owner_died(flow: Flow) -> None:
    flow.deliver(flow.consumer(owner="dead"))
    pause(flow.target, "consumer", OF_A)
    flow.expire_leases()
    happen(flow.source, A, 1)
    successor = flow.consumer(owner="successor")

    flow.deliver(successor)

    assert (OF_A in successor.leases.owned, flow.effects(A)) == (False, [])
    assert len(successor.leases.owned) == toy.SOURCE.partitions - 1


def test_what_a_dead_owner_left_pending_is_handled_in_order_after_the_pause(flow: Flow) -> None:
    happen(flow.source, A, 1, 2)
    flow.relay.run_once()
    flow.read_and_crash(A)
    pause(flow.target)
    happen(flow.source, A, 3)
    consumer = flow.consumer()
    flow.deliver(consumer)
    assert flow.effects(A) == []

    resume(flow.target)
    flow.clock.advance(QUARTER_S)
    flow.deliver(consumer)

    assert (flow.effects(A), flow.pending()) == ([1, 2, 3], 0)


def test_a_message_that_is_being_handled_when_the_pause_comes_is_finished(flow: Flow) -> None:
    happen(flow.source, A, 1, behaviour="pause")
    happen(flow.source, A, 2)

    def pause_meanwhile(_session: object) -> None:
        pause(flow.target)
        flow.clock.advance(QUARTER_S)

    toy.hooks["pause"] = pause_meanwhile
    consumer = flow.consumer()

    flow.deliver(consumer)

    assert (flow.effects(A), flow.pending(), flow.held()) == ([1, 2], 0, [])
    assert consumer.leases.owned == {}


def test_a_batch_that_is_cut_short_by_a_pause_is_finished_after_it_once_and_in_order(
    flow: Flow,
) -> None:
    happen(flow.source, A, 1)
    happen(flow.source, A, 2, behaviour="pause and fail")
    happen(flow.source, A, 3)

    def pause_and_fail(_session: object) -> None:
        toy.hooks["pause and fail"] = lambda _session: None
        pause(flow.target)
        flow.clock.advance(QUARTER_S)
        raise RuntimeError

    toy.hooks["pause and fail"] = pause_and_fail
    consumer = flow.consumer()
    flow.deliver(consumer)
    paused_at = flow.effects(A)

    resume(flow.target)
    flow.clock.advance(QUARTER_S)
    flow.deliver(consumer)

    assert paused_at == [1, 2, 3][: len(paused_at)]
    assert len(paused_at) < 3
    assert (flow.effects(A), flow.held(), flow.pending()) == ([1, 2, 3], [], 0)


def test_a_paused_relay_publishes_nothing_until_it_is_resumed(flow: Flow) -> None:
    flow.relay.run_once()
    pause(flow.source, "relay")
    flow.relay.leases.hurry()
    happen(flow.source, A, 1, 2)

    assert flow.relay.run_once().published == 0
    resume(flow.source, "relay")
    flow.relay.leases.hurry()
    flow.deliver(flow.consumer())

    assert flow.effects(A) == [1, 2]


def test_a_batch_that_a_relay_publishes_while_it_is_paused_is_marked(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(flow.source, A, 1)
    flow.relay.run_once()
    publisher: Any = flow.relay._publisher
    publish = publisher.publish

    def publish_as_the_pause_comes(*arguments: Any, **options: Any) -> None:
        publish(*arguments, **options)
        pause(flow.source, "relay")

    monkeypatch.setattr(publisher, "publish", publish_as_the_pause_comes)
    happen(flow.source, A, 2)

    assert flow.relay.run_once().published == 1
    assert flow.deliver(flow.consumer()).duplicates == 0


def test_workers_share_what_is_not_paused(flow: Flow) -> None:
    one, two = flow.consumer(owner="one"), flow.consumer(owner="two")
    one.run_once()
    pause(flow.target, "consumer", 0, 1)

    _rounds(flow, one, two)

    assert sorted([*one.leases.owned, *two.leases.owned]) == [2, 3]
    assert len(one.leases.owned) == len(two.leases.owned) == 1


def _rounds(flow: Flow, *consumers: Consumer) -> None:
    for _ in range(3):
        flow.clock.advance(QUARTER_S)
        for consumer in consumers:
            consumer.run_once()


def test_a_pause_counts_once_committed_and_a_second_one_changes_only_its_reason(
    flow: Flow,
) -> None:
    flow.consumer().run_once()
    with flow.target.connect() as connection:
        partitions.pause(connection, "consumer")
    assert [each for each in listed(flow.target) if each.paused_at] == []

    first, second = pause(flow.target, why="one")[0], pause(flow.target, why="two")[0]

    assert (second.paused_at, second.paused_why) == (first.paused_at, "two")


def test_resuming_what_is_not_paused_resumes_nothing(flow: Flow) -> None:
    flow.consumer().run_once()

    assert resume(flow.target) == []


@pytest.mark.parametrize(
    ("kind", "numbers", "complaint"),
    [
        ("boss", [], f"boss here; there are: consumer {NAME}"),
        ("consumer", [2, 99], "consumer partition 99 here"),
    ],
)
def test_what_no_worker_has_registered_is_named_and_nothing_is_paused(
    flow: Flow, kind: str, numbers: list[int], complaint: str
) -> None:
    flow.consumer().run_once()

    with flow.target.begin() as connection, pytest.raises(ConfigurationError, match=complaint):
        partitions.pause(connection, kind, None, numbers or None)

    assert [each for each in listed(flow.target) if each.paused_at] == []


def test_a_pause_waits_for_workers_that_renew_and_does_not_deadlock_with_them(flow: Flow) -> None:
    """Without waiting, the list would show it at rest, and an owner a moment later."""
    flow.consumer().run_once()
    renew = text("update lease set until = until where partition = :p")
    with ThreadPoolExecutor() as pool, flow.target.begin() as renewing:
        renewing.execute(renew, {"p": 3})
        paused = pool.submit(pause, flow.target)
        until_it_waits(flow.target, paused)
        renewing.execute(renew, {"p": 0})
        renewing.commit()

        assert len(paused.result()) == toy.SOURCE.partitions


def test_a_partition_that_is_paused_after_it_was_found_free_is_not_taken(flow: Flow) -> None:
    consumer = flow.consumer()
    consumer.run_once()
    consumer.leases.release()
    pause(flow.target, "consumer", OF_A)

    assert consumer.leases._take_one(OF_A) is False
