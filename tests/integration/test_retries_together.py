"""What an earlier owner left runs together once, with every start committed; then each alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import SystemClock
from labkit.consumer import Consumer
from labkit.held import Backoff
from tests import toy
from tests.conftest import NewDatabase
from tests.flow import ATTEMPTS, Flow
from tests.toy import happen

PARTITION = toy.SOURCE.partition_of("a")
# So many keys of one partition, with "a" in the middle.
KEYS = [
    *itertools.islice(
        (key for key in map(str, itertools.count()) if toy.SOURCE.partition_of(key) == PARTITION), 8
    )
]
KEYS.insert(4, "a")


class Death(BaseException):
    """Ends a worker like SystemExit or KeyboardInterrupt."""


def left_behind(flow: Flow, behaviour: str = "record", **options: Any) -> Consumer:
    """Return a consumer of what was read and not handled: a message of each key."""
    for key in KEYS:
        happen(flow.source, key, 1, behaviour=behaviour if key == "a" else "record")
    flow.relay.run_once()
    assert len(flow.read_and_crash("a")) == len(KEYS)
    toy.seen.clear()
    return flow.consumer(**options)


@contextmanager
def statements(engine: Engine) -> Iterator[Counter[str]]:
    """Count what runs meanwhile, by its first three words; and the commits."""
    found: Counter[str] = Counter()

    def note(*arguments: Any) -> None:
        found[" ".join(arguments[2].lower().split()[:3])] += 1

    def commit(_: object) -> None:
        found["commit"] += 1

    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", commit)
    yield found
    event.remove(engine, "before_cursor_execute", note)
    event.remove(engine, "commit", commit)


def test_what_was_left_behind_is_started_at_once_and_handled_at_once(flow: Flow) -> None:
    consumer = left_behind(flow)
    consumer.leases.tick()
    with statements(flow.target) as found:
        assert consumer.run_once().handled == len(KEYS)
    assert found["update held set"] == found["delete from held"] == 1
    # Leases, held, started, handled.
    assert found["commit"] <= 4
    assert flow.held() == []


def test_every_start_is_committed_before_any_of_them_runs(flow: Flow) -> None:
    found: list[list[tuple[str, int, str]]] = []
    toy.hooks["look"] = lambda _session: found.append(flow.held())
    left_behind(flow, "look").run_once()
    assert [[row[1] for row in rows] for rows in found] == [[1] * len(KEYS)]
    assert {(message.attempt, message.redelivered) for message in toy.seen} == {(1, True)}


def test_one_that_fails_takes_nobody_with_it_and_loses_one_attempt(flow: Flow) -> None:
    report = left_behind(flow, "fail always").run_once()
    assert (report.handled, report.failed) == (len(KEYS) - 1, 1)
    assert flow.held() == [("retry", 1, "RuntimeError: fail always")]
    assert Counter(message.event.key for message in toy.seen)["a"] == 2
    assert {message.attempt for message in toy.seen} == {1}


@pytest.mark.parametrize("attempts", [1, 2, ATTEMPTS])
def test_one_that_ends_its_process_is_parked_alone_after_as_many_deaths(
    flow: Flow, attempts: int
) -> None:
    def die(_session: Session) -> None:
        raise Death

    toy.hooks["die"] = die
    consumer, deaths = left_behind(flow, "die", backoff=Backoff(attempts=attempts)), 0
    while not flow.dead_letters():
        try:
            flow.clock.advance(60)
            consumer.run_once()
        except Death:
            deaths += 1
            flow.expire_leases()
            consumer = flow.consumer(backoff=Backoff(attempts=attempts))
    assert deaths == attempts
    ((_, reason),) = flow.dead_letters()
    assert "ended during every attempt" in reason
    flow.deliver(consumer)
    assert len(flow.effects()) == len(KEYS) - 1


def test_who_was_started_beside_a_death_runs_alone_from_then_on(flow: Flow) -> None:
    transactions: list[str] = []

    def die(_session: Session) -> None:
        raise Death

    toy.hooks["die"] = die
    with pytest.raises(Death):
        left_behind(flow, "die").run_once()
    toy.hooks["die"] = lambda session: transactions.append(
        session.execute(text("select count(*)::text from effects")).scalar_one()
    )
    flow.expire_leases()
    flow.clock.advance(60)
    toy.seen.clear()
    with statements(flow.target) as found:
        assert flow.consumer().run_once().handled == len(KEYS)
    assert found["update held set"] == found["delete from held"] == len(KEYS)
    assert {message.attempt for message in toy.seen} == {2}
    assert transactions == [str(KEYS.index("a") + 1)]


def test_the_messages_of_a_key_follow_each_other_whoever_runs_beside_them(flow: Flow) -> None:
    for n in (1, 2, 3):
        for key in KEYS:
            happen(flow.source, key, n)
    flow.relay.run_once()
    flow.read_and_crash("a")
    consumer = flow.consumer()
    with statements(flow.target) as found:
        flow.deliver(consumer)
    assert found["update held set"] == 3
    assert all(flow.effects(key) == [1, 2, 3] for key in KEYS)


def test_a_redriven_dead_letter_runs_alone(flow: Flow) -> None:
    consumer = flow.consumer()
    ids = [
        each for key in KEYS for each in happen(flow.source, key, 1, behaviour="permanent unless")
    ]
    flow.deliver(consumer)
    toy.repaired.add("permanent unless")
    for each in ids:
        flow.redrive(each)
    with statements(flow.target) as found:
        assert flow.deliver(consumer).handled == len(KEYS)
    assert found["update held set"] == len(KEYS)


def test_together_they_may_take_too_long_for_one_transaction_and_are_handled_all_the_same(
    flow: Flow, new_database: NewDatabase
) -> None:
    flow.target = db.connect(new_database(), lease_s=1)
    toy.target.create_tables(flow.target)
    toy.hooks["slow"] = lambda session: session.execute(text("select pg_sleep(0.3)")).close()
    for key in KEYS[:3]:
        happen(flow.source, key, 1, behaviour="slow")
    flow.relay.run_once()
    flow.read_and_crash(KEYS[0], lease_s=1)
    report = flow.deliver(flow.consumer(clock=SystemClock(), lease_s=1))
    assert (report.handled, flow.held()) == (3, [])
    flow.target.dispose()
