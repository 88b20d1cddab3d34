"""Leases: one owner per partition, and the old one is shut out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, text

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import BrokerUnavailableError, ConfigurationError, LeaseLostError
from labkit.lab.servers import Stack
from labkit.lease import Lease, Leases, lease_tables
from labkit.ports import Stream
from labkit.transports import redis_streams
from labkit.transports.redis_streams import RedisPublisher, RedisStreams
from tests.publishing import Publishing

STREAM = Stream("leased.events", 8)
ALL = set(range(8))
QUARTER_S = 2.5
Make = Callable[..., Leases]


@pytest.fixture
def fence(transport: RedisStreams) -> RedisPublisher:
    return transport.publisher(STREAM)


@pytest.fixture
def make(engine: Engine, fence: RedisPublisher, clock: FakeClock) -> Make:
    """Return a maker of members, all of them on one table."""
    metadata = MetaData()
    lease_tables(metadata)
    db.create_all(engine, metadata)

    def member(**options: Any) -> Leases:
        wanted: dict[str, Any] = {
            "kind": "relay",
            "name": STREAM.name,
            "partitions": 8,
            "clock": clock,
        }
        wanted |= options
        return Leases(wanted.pop("engine", engine), wanted.pop("fence", fence), **wanted)

    return member


def sql(engine: Engine, statement: str) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def expire(engine: Engine) -> None:
    for table in ("lease", "member"):
        sql(engine, f"update {table} set until = clock_timestamp() - interval '1 s'")


def rounds(clock: FakeClock, number: int, *members: Leases) -> None:
    for _ in range(number):
        for member in members:
            member.tick()
        clock.advance(QUARTER_S)


def test_a_lonely_member_takes_everything(make: Make) -> None:
    member = make()

    member.tick()

    assert set(member.owned) == ALL
    assert {lease.epoch for lease in member.owned.values()} == {1}


def test_a_newcomer_gets_its_share_within_two_ticks(make: Make, clock: FakeClock) -> None:
    first, second = make(), make()
    rounds(clock, 1, first)

    rounds(clock, 2, second, first)
    second.tick()

    assert (len(first.owned), len(second.owned)) == (4, 4)
    assert first.owned.keys() | second.owned.keys() == ALL


def test_three_members_share_eight_partitions(make: Make, clock: FakeClock) -> None:
    members = [make(), make(), make()]

    rounds(clock, 4, *members)

    assert sorted(len(member.owned) for member in members) == [2, 3, 3]
    assert set().union(*(member.owned for member in members)) == ALL


def test_a_balanced_membership_rests(make: Make, clock: FakeClock) -> None:
    members = [make(), make(), make()]
    rounds(clock, 4, *members)
    before = [dict(member.owned) for member in members]

    rounds(clock, 3, *members)

    assert [member.owned for member in members] == before


def test_a_dead_members_partitions_are_not_taken_before_its_lease_ends(make: Make) -> None:
    make().tick()
    successor = make()

    successor.tick()

    assert successor.owned == {}


def test_a_dead_members_partitions_are_taken_after_its_lease(make: Make, engine: Engine) -> None:
    make().tick()
    expire(engine)
    successor = make()

    successor.tick()

    assert set(successor.owned) == ALL
    assert {lease.epoch for lease in successor.owned.values()} == {2}


def test_a_member_restarted_under_its_name_resumes_at_once_with_a_higher_epoch(make: Make) -> None:
    dead, again = make(owner="worker-1"), make(owner="worker-1")
    dead.tick()

    again.tick()

    assert set(again.owned) == set(range(8))
    assert all(again.owned[p].epoch > dead.owned[p].epoch for p in range(8))


def test_a_dead_member_is_forgotten(make: Make, engine: Engine) -> None:
    make().tick()
    sql(engine, "update member set until = clock_timestamp() - interval '1 hour'")
    successor = make()

    successor.tick()

    assert sql(engine, "select owner from member") == [(successor.owner,)]


def test_a_tick_within_a_quarter_of_the_lease_asks_nobody(
    make: Make, engine: Engine, clock: FakeClock
) -> None:
    member = make()
    member.tick()
    expire(engine)
    ended = sql(engine, "select until from lease")

    clock.advance(QUARTER_S - 0.1)
    member.tick()

    assert sql(engine, "select until from lease") == ended


def test_hurry_lets_the_next_tick_work(make: Make, engine: Engine) -> None:
    member = make()
    member.tick()
    expire(engine)

    member.hurry()
    member.tick()

    assert sql(engine, "select 1 from lease where until < clock_timestamp()") == []


def test_an_epoch_is_above_the_brokers(make: Make, fence: RedisPublisher) -> None:
    """A backup of PostgreSQL was restored: its epoch is behind."""
    fence.raise_epoch(3, 7)
    member = make()

    member.tick()

    assert (member.owned[3].epoch, fence.epoch(3)) == (8, 8)


def test_an_epoch_is_above_the_databases(make: Make, engine: Engine, fence: RedisPublisher) -> None:
    """A backup of Redis was restored: its epoch is behind."""
    make().tick()
    sql(engine, "update lease set epoch = 9")
    expire(engine)
    member = make()

    member.tick()

    assert (member.owned[3].epoch, fence.epoch(3)) == (10, 10)


def test_an_owner_forgets_its_lease_when_the_database_went_back(
    make: Make, engine: Engine, clock: FakeClock
) -> None:
    member = make()
    member.tick()
    sql(engine, "update lease set epoch = 0, owner = null, until = null")

    rounds(clock, 2, member)

    assert {lease.epoch for lease in member.owned.values()} == {2}


def test_of_two_racers_for_a_partition_one_wins(
    make: Make, engine: Engine, transport: RedisStreams
) -> None:
    gate = threading.Barrier(2)

    class Gated(RedisPublisher):
        def epoch(self, partition: int) -> int:
            known = super().epoch(partition)
            gate.wait(10)
            return known

    racers = [make(fence=Gated(transport, STREAM)) for _ in range(2)]
    for racer in racers:
        racer._register()
    threads = [threading.Thread(target=racer._take_one, args=(5,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sorted(len(racer.owned) for racer in racers) == [0, 1]


def test_a_partition_whose_epoch_was_raised_meanwhile_is_left_alone(
    make: Make, transport: RedisStreams
) -> None:
    class Overtaken(RedisPublisher):
        def epoch(self, partition: int) -> int:
            known = super().epoch(partition)
            self.raise_epoch(partition, known + 5)
            return known

    member = make(fence=Overtaken(transport, STREAM))

    member.tick()

    assert member.owned == {}


def test_the_tables_are_defined_once_per_metadata() -> None:
    metadata = MetaData()

    assert lease_tables(metadata) == lease_tables(metadata)


def test_racers_share_what_is_free_at_once(make: Make, clock: FakeClock) -> None:
    members = [make() for _ in range(4)]
    for member in members:
        member.tick()
        member.release()

    threads = [threading.Thread(target=rounds, args=(clock, 4, member)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    rounds(clock, 2, *members)

    assert sorted(len(member.owned) for member in members) == [2, 2, 2, 2]
    assert set().union(*(member.owned for member in members)) == ALL


def test_a_lease_that_another_took_is_not_renewed(
    make: Make, engine: Engine, clock: FakeClock
) -> None:
    first, second = make(), make()
    first.tick()
    expire(engine)
    second.tick()

    clock.advance(QUARTER_S)
    first.tick()

    assert first.owned == {}
    assert sql(engine, "select distinct owner from lease") == [(second.owner,)]


def test_an_expired_lease_that_nobody_took_keeps_its_epoch(make: Make, engine: Engine) -> None:
    member = make()
    member.tick()
    owned = dict(member.owned)
    expire(engine)

    member.hurry()
    member.tick()

    assert member.owned == owned
    assert sql(engine, "select 1 from lease where until < clock_timestamp()") == []


def test_what_is_released_is_free_at_once(make: Make) -> None:
    first, second = make(), make()
    first.tick()

    first.release()
    second.tick()

    assert (first.owned, set(second.owned)) == ({}, ALL)


def test_a_released_member_may_come_back(make: Make) -> None:
    member = make()
    member.tick()

    member.release()
    member.tick()

    assert {lease.epoch for lease in member.owned.values()} == {2}


def test_a_release_that_the_database_does_not_hear_is_no_error(make: Make) -> None:
    member = make()
    member.tick()
    member._engine = db.connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    member.release()

    assert member.owned == {}


def test_a_lost_partition_is_free_at_once(make: Make, engine: Engine) -> None:
    member = make()
    member.tick()

    member.lose(3)

    assert 3 not in member.owned
    assert sql(engine, "select partition from lease where until is null") == [(3,)]


def test_losing_a_partition_does_not_take_it_from_its_new_owner(make: Make, engine: Engine) -> None:
    first, second = make(), make()
    first.tick()
    expire(engine)
    second.tick()

    first.lose(3)

    owners = sql(engine, "select owner from lease where partition = 3")
    assert owners == [(second.owner,)]


def check(engine: Engine, member: Leases, lease: Lease) -> None:
    with engine.begin() as connection:
        member.check(connection, lease)


def test_a_fresh_lease_leaves_time_for_a_transaction(make: Make, engine: Engine) -> None:
    member = make()
    member.tick()

    check(engine, member, member.owned[0])


def test_a_lease_that_ends_before_the_transaction_may_is_refused(
    make: Make, engine: Engine
) -> None:
    member = make()
    member.tick()
    sql(engine, "update lease set until = clock_timestamp() + interval '4 s'")

    with pytest.raises(LeaseLostError):
        check(engine, member, member.owned[0])


def test_a_lease_of_another_epoch_is_refused(make: Make, engine: Engine) -> None:
    member = make()
    member.tick()
    sql(engine, "update lease set epoch = epoch + 1")

    with pytest.raises(LeaseLostError):
        check(engine, member, member.owned[0])


def test_another_number_of_partitions_is_refused(make: Make) -> None:
    make().tick()

    with pytest.raises(ConfigurationError, match="8 partitions on record, not 16"):
        make(partitions=16).tick()


def test_a_refused_number_of_partitions_leaves_no_trace(make: Make, clock: FakeClock) -> None:
    make().tick()
    with pytest.raises(ConfigurationError):
        make(partitions=16).tick()

    make().tick()


def test_an_engine_without_time_limits_is_refused(make: Make, database: str) -> None:
    engine = create_engine(database)

    with pytest.raises(ConfigurationError, match=r"labkit\.db\.connect"):
        make(engine=engine).tick()

    engine.dispose()


def test_a_broker_that_is_away_leaves_the_partitions_free(make: Make, engine: Engine) -> None:
    away = RedisStreams(redis_streams.connect("redis://127.0.0.1:1/0")).publisher(STREAM)

    with pytest.raises(BrokerUnavailableError):
        make(fence=away).tick()

    assert sql(engine, "select 1 from lease where until is not null") == []


def test_an_owner_killed_between_both_epochs_is_succeeded_after_its_lease(
    engine: Engine, transport: RedisStreams, clock: FakeClock, servers: Stack, database: str
) -> None:
    outbox = Publishing(engine, transport, clock)
    outbox.append("a")
    process = outbox.process(database, servers.redis_url, faults="lease.after_raise:kill")
    assert process.wait(20) == -signal.SIGKILL
    assert outbox.sql("select sum(epoch) from lease") == [(1,)]

    relay = outbox.relay()
    outbox.take_over(relay)
    outbox.drain(relay)

    assert sorted({lease.epoch for lease in relay.leases.owned.values()}) == [1, 2]
    assert outbox.published() == outbox.committed()
