"""The relay after crashes, freezes and losses: nothing is lost, and keys keep their order."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from labkit.clock import FakeClock
from labkit.lab.servers import Stack
from labkit.relay import Relay
from labkit.reports import RelayReport
from labkit.transports.redis_streams import RedisStreams
from tests.publishing import STREAM, Happened, Interrupted, Publishing

QUARTER_S = 2.5


@pytest.fixture
def outbox(engine: Engine, transport: RedisStreams, clock: FakeClock) -> Publishing:
    return Publishing(engine, transport, clock)


def frozen(outbox: Publishing, **moments: Callable[[], object]) -> Relay:
    """Return an owner of all partitions that is frozen at a moment of its next publish."""
    publisher = outbox.interrupted()
    relay = outbox.relay(publisher=publisher)
    relay.run_once()
    for moment, happens in moments.items():
        setattr(publisher, moment, happens)
    return relay


def test_a_relay_frozen_before_its_publish_adds_nothing(outbox: Publishing) -> None:
    successor = outbox.relay()
    relay = frozen(outbox, before=lambda: outbox.take_over(successor))
    outbox.append("a", "a")

    report = relay.run_once()

    assert report == RelayReport(lost=1)
    assert outbox.published() == outbox.committed()


def test_a_relay_frozen_before_its_mark_marks_nothing(outbox: Publishing) -> None:
    successor = outbox.relay()
    relay = frozen(outbox, after=lambda: outbox.take_over(successor))
    outbox.append("a", "a")

    report = relay.run_once()

    assert report == RelayReport(lost=1)
    assert outbox.published()["a"] == outbox.committed()["a"] * 2


def test_a_relay_frozen_before_its_mark_leaves_the_mark_of_the_next(outbox: Publishing) -> None:
    successor = outbox.relay()
    relay = frozen(outbox, after=lambda: outbox.take_over(successor))
    outbox.append("a")

    relay.run_once()

    ((batch,),) = outbox.sql("select batch from outbox_messages")
    assert batch // 10**9 == successor.leases.owned[STREAM.partition_of("a")].epoch


def test_a_successor_that_has_not_reached_the_broker_loses_nothing(outbox: Publishing) -> None:
    relay = frozen(outbox)
    outbox.append("a", "a")
    outbox.sql("update lease set epoch = epoch + 1, owner = 'next', until = clock_timestamp()")

    assert relay.run_once() == RelayReport(lost=1)
    outbox.drain(outbox.relay())

    assert outbox.first_published() == outbox.committed()


def test_a_frozen_process_changes_nothing_when_it_wakes(
    outbox: Publishing, servers: Stack, database: str
) -> None:
    outbox.append("a", "a", "b")
    faults = "relay.after_publish:pause:@1"
    process = outbox.process(database, servers.redis_url, faults=faults, batch=10)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    outbox.take_over(outbox.relay())
    marked = outbox.sql("select seq, batch, published_at from outbox_messages order by seq")
    os.kill(process.pid, signal.SIGCONT)

    assert process.wait(20) == 0
    rows = outbox.sql("select seq, batch, published_at from outbox_messages order by seq")
    assert rows == marked
    assert outbox.first_published() == outbox.committed()


@pytest.mark.parametrize("passage", [1, 3])
@pytest.mark.parametrize("moment", ["after_claim", "after_publish", "after_mark"])
def test_a_relay_killed_at_any_moment_loses_no_row(
    outbox: Publishing, servers: Stack, database: str, moment: str, passage: int
) -> None:
    for _ in range(3):
        outbox.append("a", "b", "c")
    faults = f"relay.{moment}:kill:@{passage}"
    process = outbox.process(database, servers.redis_url, faults=faults)
    assert process.wait(20) == -signal.SIGKILL

    outbox.take_over(successor := outbox.relay())
    outbox.drain(successor)

    assert outbox.first_published() == outbox.committed()
    repeats = sum(map(len, outbox.published().values())) - 9
    assert repeats == (moment == "after_publish")


def test_a_successor_publishes_a_batch_again_that_was_not_marked(outbox: Publishing) -> None:
    relay = frozen(outbox, after=crash)
    outbox.append("a", "a")
    with pytest.raises(Killed):
        relay.run_once()

    outbox.append("a")
    outbox.take_over(successor := outbox.relay())
    outbox.drain(successor)

    committed = outbox.committed()["a"]
    assert outbox.published()["a"] == committed[:2] + committed


class Killed(BaseException):
    """The end of a process, in place: nothing catches it."""


def crash() -> None:
    raise Killed


def test_a_broker_that_lost_everything_is_filled_again_in_order(outbox: Publishing) -> None:
    relay = outbox.relay(batch=2)
    outbox.append(*["a", "b"] * 5)
    outbox.drain(relay)
    outbox.lose_everything()

    outbox.append("a", "b")
    outbox.drain(relay)

    assert outbox.published() == outbox.committed()


def test_a_tail_that_the_broker_lost_is_published_again_and_nothing_else(
    outbox: Publishing,
) -> None:
    relay = outbox.relay()
    outbox.append("a", "a")
    outbox.drain(relay)
    before = outbox.snapshot()
    outbox.append("a", "a")
    outbox.drain(relay)

    outbox.restore(before)
    outbox.append("a")
    report = outbox.drain(relay)

    assert outbox.published() == outbox.committed()
    assert (report.unmarked, report.published) == (2, 3)


def test_a_stream_that_somebody_deleted_is_filled_again(outbox: Publishing) -> None:
    relay = outbox.relay()
    outbox.append("a", "a")
    outbox.drain(relay)
    outbox.transport.client.delete(outbox.keys(STREAM.partition_of("a"))[0])

    outbox.append("a")
    outbox.drain(relay)

    assert outbox.published() == outbox.committed()


def test_an_idle_relay_notices_a_loss_within_a_quarter_of_its_lease(
    outbox: Publishing, clock: FakeClock
) -> None:
    relay = outbox.relay()
    outbox.append("a")
    outbox.drain(relay)
    outbox.lose_everything()
    assert relay.run_once() == RelayReport()

    clock.advance(QUARTER_S)
    outbox.drain(relay)

    assert outbox.published() == outbox.committed()


def test_a_successor_notices_what_the_broker_lost(outbox: Publishing) -> None:
    before = outbox.snapshot()
    outbox.append("a", "a")
    outbox.relay().run_once()
    outbox.restore(before)

    outbox.append("a")
    outbox.take_over(successor := outbox.relay())
    outbox.drain(successor)

    assert outbox.published() == outbox.committed()


def test_a_long_loss_is_unmarked_in_steps(
    outbox: Publishing, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.backlog.UNMARK_ROWS", 2)
    relay = outbox.relay(batch=2)
    outbox.append(*["a"] * 7)
    outbox.drain(relay)
    outbox.lose_everything()

    clock.advance(QUARTER_S)
    report = outbox.drain(relay)

    assert report.unmarked == 7
    assert outbox.published() == outbox.committed()


def test_an_owner_that_lost_its_lease_does_not_publish_past_a_loss(outbox: Publishing) -> None:
    """Else newer rows would raise the head above `acked`, and nobody would see the loss."""
    relay = frozen(outbox)
    before = outbox.snapshot()
    outbox.append("a", "a")
    outbox.drain(relay)
    outbox.restore(before)
    outbox.append("a")

    relay._logs.clear()
    outbox.sql("update lease set epoch = epoch + 1, until = clock_timestamp()")
    relay.run_once()
    outbox.drain(outbox.relay())

    assert outbox.published() == outbox.committed()


def test_a_relay_that_takes_a_partition_anew_looks_at_the_log_again(outbox: Publishing) -> None:
    """Else it would go on from the head that it left, past what the next owner's loss took."""
    first, second = outbox.relay(), outbox.relay()
    outbox.append("a")
    outbox.drain(first)
    before = outbox.snapshot()
    outbox.append("a", "a")
    outbox.take_over(second)
    outbox.restore(before)

    outbox.append("a")
    outbox.take_over(first)
    outbox.drain(first)

    assert outbox.published() == outbox.committed()


def test_two_owners_never_give_the_same_number_to_different_rows(
    outbox: Publishing, clock: FakeClock
) -> None:
    """Else a broker that is taken back to the first one's state would look complete."""
    successor = outbox.relay()
    relay = frozen(outbox)
    outbox.append("a")
    before = outbox.snapshot()

    def be_overtaken() -> None:
        outbox.append("a")
        outbox.take_over(successor)
        outbox.restore(before)

    assert isinstance(relay._publisher, Interrupted)
    relay._publisher.before = be_overtaken
    relay.run_once()
    clock.advance(QUARTER_S)
    outbox.drain(successor)

    assert outbox.first_published() == outbox.committed()


def test_a_database_restored_from_a_backup_publishes_its_rows_again(outbox: Publishing) -> None:
    relay = outbox.relay()
    outbox.append("a", "a")
    outbox.drain(relay)
    outbox.sql("update outbox_messages set published_at = null, batch = null")
    outbox.sql("update lease set acked = 0, epoch = 0, owner = null, until = null")

    outbox.append("a")
    outbox.drain(outbox.relay())

    assert outbox.first_published() == outbox.committed()


def test_a_connection_cut_between_publish_and_mark_loses_nothing(outbox: Publishing) -> None:
    relay = frozen(outbox, after=outbox.cut_connections)
    outbox.append("a", "a")

    with pytest.raises(OperationalError):
        relay.run_once()
    outbox.drain(relay)

    assert outbox.first_published() == outbox.committed()


class Disorder:
    """A random but repeatable history of appends, relays, crashes and losses."""

    # Their advisory locks are in different slots, so that open transactions never wait here.
    keys = tuple("abcdef")

    def __init__(self, outbox: Publishing, seed: int) -> None:
        self.outbox = outbox
        self.random = random.Random(seed)
        self.open: list[tuple[Connection, dict[str, list[str]]]] = []
        self.committed: dict[str, list[str]] = {}
        self.relays = [self.started(), self.started()]
        self.lost_after = outbox.snapshot()

    def started(self) -> tuple[Relay, Interrupted]:
        publisher = self.outbox.interrupted()
        return self.outbox.relay(publisher=publisher, batch=self.random.choice([1, 3])), publisher

    def append(self) -> None:
        taken = {key for _, rows in self.open for key in rows}
        free = [key for key in self.keys if key not in taken]
        chosen = self.random.sample(free, min(len(free), self.random.randint(1, 2)))
        connection = self.outbox.engine.connect()
        rows: dict[str, list[str]] = {}
        for key in chosen:
            event = Happened(n=1)
            ids = [self.outbox.outbox.add(connection, event, key=key) for _ in range(2)]
            rows[key] = ids
        self.open.append((connection, rows))

    def end(self) -> None:
        if not self.open:
            return
        connection, rows = self.open.pop(self.random.randrange(len(self.open)))
        if self.random.random() < 0.7:
            connection.commit()
            for key, ids in rows.items():
                self.committed.setdefault(key, []).extend(ids)
        connection.close()

    def work(self) -> None:
        relay, _ = self.random.choice(self.relays)
        self.outbox.renew(relay)

    def crash(self) -> None:
        """Kill one relay around a publish; another process starts in its place."""
        place = self.random.randrange(2)
        relay, publisher = self.relays[place]
        setattr(publisher, self.random.choice(["before", "after"]), crash)
        with contextlib.suppress(Killed):
            self.outbox.renew(relay)
        self.relays[place] = self.started()

    def freeze(self) -> None:
        """Freeze one relay around a publish, while the other takes over."""
        (frozen, publisher), (other, _) = self.random.sample(self.relays, 2)
        moment = self.random.choice(["before", "after"])
        setattr(publisher, moment, lambda: self.outbox.take_over(other))
        self.outbox.renew(frozen)
        publisher.before = publisher.after = None

    def expire(self) -> None:
        self.outbox.expire_leases()

    def remember(self) -> None:
        self.lost_after = self.outbox.snapshot()

    def lose_tail(self) -> None:
        self.outbox.restore(self.lost_after)

    def lose_all(self) -> None:
        self.outbox.lose_everything()
        self.lost_after = self.outbox.snapshot()

    def happen(self, steps: int) -> None:
        often = [self.append, self.append, self.end, self.end, self.work, self.work, self.work]
        seldom = [self.crash, self.freeze, self.expire, self.remember, self.lose_tail]
        for _ in range(steps):
            self.random.choice([*often * 2, *seldom, self.lose_all])()

    def settle(self) -> None:
        while self.open:
            self.end()
        relay, _ = self.started()
        self.outbox.take_over(relay)
        self.outbox.drain(relay)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_every_commit_is_published_in_the_order_of_its_key(
    outbox: Publishing, seed: int
) -> None:
    disorder = Disorder(outbox, seed)

    disorder.happen(steps=70)
    disorder.settle()

    assert outbox.unpublished() == 0
    assert outbox.first_published() == disorder.committed
