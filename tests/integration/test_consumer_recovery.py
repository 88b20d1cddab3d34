"""The consumer in disorder: whatever happens in whatever order, one effect each, in order."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from labkit.consumer import Consumer
from labkit.errors import BrokerUnavailableError
from tests import toy
from tests.flow import ATTEMPTS, Flow, InterruptedStreams
from tests.toy import happen

KEYS = ["a", "b", "c", "d", "e"]
BEHAVIOURS = ["record", "until 2", "until 3", "permanent no", "fail always", "die", "cut"]
WEIGHTS = [10, 3, 2, 2, 1, 2, 2]


class Death(BaseException):
    """Ends a worker like SystemExit or KeyboardInterrupt."""


def away() -> None:
    raise BrokerUnavailableError


class Disorder:
    """Steps in random order, the same for the same seed."""

    def __init__(self, flow: Flow, streams: InterruptedStreams, seed: int) -> None:
        self.random = random.Random(seed)
        flow.transport = self.streams = streams
        self.flow = flow
        flow.relay = toy.source.relay(flow.source, streams, clock=flow.clock)
        self.committed: dict[str, list[int]] = defaultdict(list)
        self.consumers = [flow.consumer(batch=self.random.choice([1, 3, 100])) for _ in range(2)]
        toy.hooks.update({"die": self.die, "cut": self.cut})

    def die(self, _session: Session) -> None:
        if self.random.random() < 0.7:
            raise Death

    def cut(self, session: Session) -> None:
        if self.random.random() < 0.7:
            session.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    def append(self) -> None:
        key, behaviour = self.random.choice(KEYS), self.random.choices(BEHAVIOURS, WEIGHTS)[0]
        n = len(self.committed[key]) + 1
        happen(self.flow.source, key, n, behaviour=behaviour)
        self.committed[key].append(n)

    def publish(self) -> None:
        self.flow.relay.leases.hurry()
        self.flow.relay.run_once()

    def work(self) -> None:
        place = self.random.randrange(2)
        try:
            self.consumers[place].run_once()
        except (Death, DBAPIError, BrokerUnavailableError):
            if self.random.random() < 0.5:  # the other half of them goes on, as in a notebook
                self.consumers[place] = self.flow.consumer(batch=self.random.choice([1, 3, 100]))

    def lose_an_ack(self) -> None:
        setattr(self.streams.made, self.random.choice(["before", "after"]), away)

    def crash(self) -> None:
        self.flow.expire_leases()
        with contextlib.suppress(KeyError):
            self.flow.read_and_crash(self.random.choice(KEYS), count=self.random.randint(1, 4))

    def advance(self) -> None:
        self.flow.clock.advance(self.random.choice([0.1, 1, 60]))

    def redrive(self) -> None:
        """Ask for a dead letter again; its handler is repaired, or not."""
        toy.repaired.clear()
        toy.repaired.update(self.random.sample(BEHAVIOURS, 2))
        if letters := self.flow.dead_letters():
            self.flow.redrive(self.random.choice(letters)[0])

    def repeat(self) -> None:
        """Publish something again that was published before, out of its order."""
        again = """update outbox_messages set published_at = null where published_at is not null
                   and seq % 3 = :rest"""
        with self.flow.source.begin() as connection:
            connection.execute(text(again), {"rest": self.random.randrange(3)})

    def happen(self, steps: int) -> None:
        often = [self.append, self.append, self.publish, self.work, self.work, self.advance]
        seldom = [self.flow.expire_leases, self.crash, self.redrive, self.repeat, self.lose_an_ack]
        for _ in range(steps):
            self.random.choice([*often * 2, *seldom, self.flow.lose_redis])()

    def settle(self) -> Consumer:
        """Let one consumer do all that can be done without a person."""
        self.flow.expire_leases()
        consumer = self.flow.consumer()
        for _ in range(3 * ATTEMPTS):
            self.publish()
            with contextlib.suppress(Death, DBAPIError, BrokerUnavailableError):
                self.flow.deliver(consumer)
            self.flow.clock.advance(60)
        toy.hooks.clear()
        for _ in range(3 * ATTEMPTS):
            self.flow.deliver(consumer)
            self.flow.clock.advance(60)
        return consumer

    def repair(self, consumer: Consumer) -> None:
        """Repair all handlers and redrive until there is no dead letter left."""
        toy.repaired.update(BEHAVIOURS)
        while letters := self.flow.dead_letters():
            for message_id, _ in letters:
                self.flow.redrive(message_id)
            self.flow.deliver(consumer)
            self.flow.clock.advance(60)
            self.flow.deliver(consumer)

    def effects(self) -> dict[str, list[int]]:
        return {key: self.flow.effects(key) for key in self.committed}

    def held(self) -> dict[str, list[Any]]:
        """Return number, state and reason of what is held, by key."""
        columns, found = toy.target.held.table.c, defaultdict(list)
        query = select(columns.key, columns.state, columns.reason).order_by(columns.position)
        with self.flow.target.connect() as connection:
            for row in connection.execute(query):
                found[row.key].append((row.state, row.reason))
        return found


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_every_message_has_one_effect_or_a_reason_in_the_order_of_its_key(
    flow: Flow, client: Any, seed: int
) -> None:
    disorder = Disorder(flow, InterruptedStreams(client, flow.transport.prefix), seed)
    disorder.happen(steps=80)
    consumer = disorder.settle()

    effects, held = disorder.effects(), disorder.held()
    for key, numbers in disorder.committed.items():
        assert effects[key] == numbers[: len(effects[key])], key
        assert len(effects[key]) + len(held[key]) == len(numbers), key
        assert all(state != "parked" for state, _ in held[key][1:]), held[key]
        assert all(state == "parked" and reason for state, reason in held[key][:1]), held[key]
    assert flow.pending() == 0

    disorder.repair(consumer)
    assert (disorder.effects(), disorder.held(), flow.pending()) == (disorder.committed, {}, 0)
