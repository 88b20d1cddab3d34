"""A process is really killed in each crash window, and the flow ends right all the same."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit.dead_letters import Wanted
from labkit.held import Backoff
from labkit.shop import fulfillment, inventory
from labkit.testing.audit import audit, progress
from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.crash.conftest import Crew, until

ORDERS, NEIGHBOURS = 25, 20
OPENING = {"BOOK-DDD": 20, "BOOK-HEX": 100}
FULFILLMENT = "labkit.shop.fulfillment:service"
INVENTORY = "labkit.shop.inventory:service"
RELAY = (FULFILLMENT, "relay")
CONSUMER = (INVENTORY, "consumer")


@pytest.fixture
def engines(crew: Crew) -> tuple[Engine, Engine]:
    """Return both databases, with stock, and orders placed but not yet sent."""
    orders, stock = crew.engine("fulfillment"), crew.engine("inventory")
    fulfillment.service.create_tables(orders)
    inventory.service.create_tables(stock)
    inventory.stock_up(stock, OPENING)
    for number in range(1, ORDERS + 1):
        with Session(orders) as session, session.begin():
            lines = [("BOOK-DDD", 1)] + ([("BOOK-HEX", 2)] if number % 2 else [])
            fulfillment.place_order(session, f"ORD-{number}", lines)
    return orders, stock


def _finish(crew: Crew, engines: tuple[Engine, Engine], transport: RedisStreams) -> None:
    """Let healthy workers finish, and check every invariant."""
    crew.start(FULFILLMENT)
    crew.start(INVENTORY)
    _check(crew, engines, transport)


def _check(crew: Crew, engines: tuple[Engine, Engine], transport: RedisStreams) -> None:
    until(lambda: progress(*engines) == (ORDERS, 0), "all orders are settled")
    crew.end()
    broken = {name: why for name, why in audit(*engines, transport, OPENING).items() if why}
    for engine in engines:
        engine.dispose()
    assert broken == {}


@pytest.mark.parametrize(
    ("worker", "point"),
    [
        (RELAY, "lease.after_raise"),
        (RELAY, "relay.after_claim"),
        (RELAY, "relay.after_publish"),
        (RELAY, "relay.after_mark"),
        (CONSUMER, "consumer.before_commit"),
        (CONSUMER, "consumer.after_commit"),
    ],
)
def test_a_worker_killed_in_a_crash_window_loses_and_doubles_nothing(
    crew: Crew,
    engines: tuple[Engine, Engine],
    transport: RedisStreams,
    worker: tuple[str, str],
    point: str,
) -> None:
    if worker is CONSUMER:
        crew.start(*RELAY)

    # A later passage, with something done before: tests/testing/test_crash_runner.py.
    victim = crew.start(*worker, faults=f"{point}:kill:@1")
    until(lambda: victim.exitcode is not None, f"{point} is reached")

    assert victim.exitcode == -signal.SIGKILL
    _finish(crew, engines, transport)


def test_a_worker_killed_while_it_retries_loses_and_doubles_nothing(
    crew: Crew, engines: tuple[Engine, Engine], transport: RedisStreams
) -> None:
    crew.start(*RELAY)
    first = crew.start(*CONSUMER, faults="consumer.before_commit:kill:@1")
    until(lambda: first.exitcode is not None, "a batch is left behind")

    second = crew.start(*CONSUMER, faults="consumer.after_start:kill:@1")
    until(lambda: second.exitcode is not None, "what was left is started, and killed")

    assert second.exitcode == -signal.SIGKILL
    _finish(crew, engines, transport)


@pytest.mark.parametrize(
    ("worker", "point"),
    [
        (CONSUMER, "consumer.before_commit"),
        (RELAY, "relay.after_publish"),
        (RELAY, "relay.after_claim"),
    ],
)
def test_a_worker_frozen_beyond_its_lease_and_woken_changes_nothing(
    crew: Crew,
    engines: tuple[Engine, Engine],
    transport: RedisStreams,
    worker: tuple[str, str],
    point: str,
) -> None:
    if worker is CONSUMER:
        crew.start(*RELAY)
    sleeper = crew.start(*worker, faults=f"{point}:pause:@2")
    crew.start(FULFILLMENT)
    crew.start(INVENTORY)
    until(lambda: progress(*engines) == (ORDERS, 0), "the others have done its work")

    crew.send(sleeper, signal.SIGCONT)

    _check(crew, engines, transport)


def test_a_handler_that_kills_its_process_is_parked_after_as_many_deaths(
    crew: Crew, transport: RedisStreams
) -> None:
    source, target = crew.engine("source"), crew.engine("target")
    toy.source.create_tables(source)
    toy.target.create_tables(target)
    toy.happen(source, "a", 1, behaviour="exit")
    toy.happen(source, "a", 2)
    toy.happen(source, "b", 1)
    # They are read, and started again, together with the deadly one.
    for n in range(NEIGHBOURS):
        toy.happen(source, str(n), 1)
    crew.start("tests.toy:source", "relay")

    worker, deaths = crew.start("tests.toy:target", "consumer"), 0

    def parked() -> bool:
        nonlocal worker, deaths
        if worker.exitcode is not None:
            worker, deaths = crew.start("tests.toy:target", "consumer"), deaths + 1
        with target.connect() as connection:
            query = text("select count(*) from held where state = 'parked'")
            return connection.execute(query).scalar() == 1

    until(parked, "the deadly message is parked")
    # The first one is not counted: nobody knows yet that it was one.
    assert deaths == 1 + Backoff().attempts
    until(lambda: len(toy.effects_of(target)) == NEIGHBOURS + 1, "all others are handled")
    assert toy.effects_of(target, "b") == [1]
    for engine in (source, target):
        engine.dispose()


def test_a_worker_killed_between_a_redrive_and_its_run_leaves_it_to_the_next_in_order(
    crew: Crew, transport: RedisStreams
) -> None:
    source, target = crew.engine("source"), crew.engine("target")
    toy.source.create_tables(source)
    toy.target.create_tables(target)
    toy.happen(source, "a", 1, behaviour="permanent unless repaired")
    toy.happen(source, "a", 2, 3)
    crew.start("tests.toy:source", "relay")
    victim = crew.start("tests.toy:target", "consumer", faults="consumer.after_start:kill:@1")
    until(lambda: _behind_dead_letter(target) == 2, "two messages wait behind a dead letter")
    with target.begin() as connection:
        # What it failed for is repaired: its bytes say now what the handler can do.
        repair = """update held set body = convert_to(
            replace(convert_from(body, 'UTF8'), 'permanent unless repaired', 'record'), 'UTF8')"""
        connection.execute(text(repair))
        toy.target.dead_letters.redrive_all(connection, Wanted())

    until(lambda: victim.exitcode is not None, "the redriven message's start is killed")
    crew.start("tests.toy:target", "consumer")
    until(lambda: len(toy.effects_of(target)) == 3, "the next worker has handled all")

    assert victim.exitcode == -signal.SIGKILL
    assert toy.effects_of(target, "a") == [1, 2, 3]
    for engine in (source, target):
        engine.dispose()


def _behind_dead_letter(target: Engine) -> int:
    with target.connect() as connection:
        return sum(letter.behind for letter in toy.target.dead_letters.find(connection))
