"""Mistakes with sagas that no other test is about, on real servers; see docs/pitfalls.md."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.dead_letters import Wanted
from labkit.lab.entries import Entries
from labkit.lab.servers import Stack
from labkit.lab.sites import Site
from labkit.lab.trace import trace
from labkit.messages import Event
from labkit.ports import Stream
from labkit.saga import (
    COMPENSATABLE,
    COMPENSATED,
    COMPLETED,
    PIVOT,
    RETRIABLE,
    RUNNING,
    Local,
    Saga,
    Sagas,
    Step,
)
from labkit.saga.replies import read_reply
from labkit.service import Service
from labkit.shop import checkout, fulfillment, inventory, payments
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import REQUEST_ID
from tests import saga_flow
from tests.integration.conftest import WORKER, Shop
from tests.saga_flow import Play, definition, make_firm, ordering, sagas
from tests.toy_saga import (
    Declined,
    OutOfStock,
    Paid,
    Released,
    Reserved,
    Shipped,
    Toy,
    nothing,
    pay,
    release,
    reserve,
    ship,
)
from tests.waiting import eventually, until_it_waits

GRANTED: tuple[Event, ...] = (Reserved(), Paid(), Shipped())


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    saga_flow.broken.clear()
    peers.dispose()


def replace_workers(play: Play, service: Service = ordering, kept: Sagas = sagas) -> None:
    """Let new workers take the place of all that were there, as after a deploy or a restart."""
    release_leases(play)
    play.deadlines = kept.deadlines(play.engine, play.transport)
    play.workers = [
        service.relay(play.engine, play.transport),
        *service.consumers(play.engine, play.transport, clock=play.clock),
        play.deadlines,
    ]


def release_leases(play: Play) -> None:
    """End the leases of workers that are no more, as time would."""
    with play.engine.begin() as connection:
        connection.execute(text("update lease set until = clock_timestamp() - interval '1 second'"))
        connection.execute(text("delete from member"))


def history(play: Play, saga_id: str) -> list[str]:
    table = sagas.store.history
    query = select(table).where(table.c.id == saga_id).order_by(table.c.seq)
    with play.engine.connect() as connection:
        return [f"{row.what} {row.step}".strip() for row in connection.execute(query)]


def with_insurance() -> Saga:
    """Return version 2, which has a further step in the middle."""
    return Saga(
        "toy",
        Step("stock", COMPENSATABLE, reserve(), undo=release()),
        Step("insurance", COMPENSATABLE, Local(nothing), undo=Local(nothing)),
        Step("order", COMPENSATABLE, Local(make_firm), undo=Local(nothing)),
        Step("payment", PIVOT, pay()),
        Step("shipping", RETRIABLE, ship()),
        data=Toy,
        version=2,
    )


def test_a_saga_ends_with_its_own_steps_when_the_definition_has_gained_one(play: Play) -> None:
    play.start("S-1")
    after = Service("ordering", saga_flow.REGISTRY, stream=Stream("ordering.events", partitions=2))
    both = Sagas(after, definition(1), with_insurance())
    replace_workers(play, after, both)
    with Session(play.engine) as session, session.begin():
        both.start(session, "S-2", Toy("S-2"))
    play.work()
    for answer in GRANTED:
        play.answer("S-1", answer)
        play.answer("S-2", answer)
    assert [line for line in history(play, "S-1") if line.startswith("ran")] == ["ran order/do"]
    assert [line for line in history(play, "S-2") if line.startswith("ran")] == [
        "ran insurance/do",
        "ran order/do",
    ]
    assert [history(play, each)[-1] for each in ("S-1", "S-2")] == ["completed", "completed"]


def test_new_workers_take_up_a_hundred_sagas_wherever_they_were(play: Play) -> None:
    ids = [f"S-{n:02}" for n in range(100)]
    play.start(*ids)
    for n, saga_id in enumerate(ids):
        for answer in ([], [Reserved()], [Reserved(), Paid()], [Reserved(), Declined()])[n % 4]:
            play.say(saga_id, answer)
    play.deliver()
    for n, saga_id in enumerate(ids):
        for answer in (GRANTED, [Paid(), Shipped()], [Shipped()], [Released()])[n % 4]:
            play.say(saga_id, answer)
    replace_workers(play)
    play.deliver()
    ended = [play.state(saga_id).status for saga_id in ids]
    assert (ended.count(COMPLETED), ended.count(COMPENSATED)) == (75, 25)


def test_a_command_cannot_leave_before_its_saga_can_be_seen(play: Play) -> None:
    relay = ordering.relay(play.engine, play.transport)
    with Session(play.engine) as session:
        sagas.start(session, "S-1", Toy("S-1"))
        session.flush()
        assert relay.run_once().published == 0
        session.commit()
    assert relay.run_once().published == 1
    assert play.state("S-1").asked == ("stock/do",)


def test_of_two_starts_at_once_the_second_waits_and_begins_nothing(play: Play) -> None:
    def start_again() -> bool:
        with Session(play.engine) as session, session.begin():
            return sagas.start(session, "S-1", Toy("other"))

    with ThreadPoolExecutor(1) as other, Session(play.engine) as first:
        assert sagas.start(first, "S-1", Toy("S-1"))
        first.flush()
        second = other.submit(start_again)
        until_it_waits(play.engine, second)
        first.commit()
        assert not second.result()
    assert play.sent("S-1") == ["reserve"]
    assert play.state("S-1").data == Toy("S-1")


def test_of_two_answers_at_once_the_second_waits_and_sees_the_first(play: Play) -> None:
    play.start("S-1", lines=("A", "B"))
    play.say("S-1", Reserved(line="B"))
    while play.answers.run_once():
        pass
    with ThreadPoolExecutor(1) as other, Session(play.engine) as first:
        turn = sagas.turn(first)
        turn.lock(["S-1"])
        state: Any = turn.state("S-1")
        turn.take(state, read_reply(sagas.newest, state, Reserved(line="A"), None))
        turn.finish()
        second = other.submit(play.work)
        until_it_waits(play.engine, second)
        first.commit()
        second.result()
    assert play.state("S-1").step == "payment"
    assert history(play, "S-1").count("asked payment/do") == 1


def test_an_answer_and_its_deadline_at_once_ask_for_the_next_step_once(play: Play) -> None:
    play.start("S-1")
    play.say("S-1", Reserved())
    while play.answers.run_once():
        pass
    play.clock.advance(30)
    with ThreadPoolExecutor(len(play.workers)) as together:
        list(together.map(lambda worker: worker.run_once(), play.workers))
    play.work()
    assert play.state("S-1").step == "payment"
    assert history(play, "S-1").count("asked payment/do") == 1


def test_a_hundred_answers_to_one_saga_complete_its_step_once(play: Play) -> None:
    lines = tuple(f"L{n}" for n in range(100))
    play.start("S-1", lines=lines)
    play.say("S-1", *(Reserved(line=line) for line in lines))
    play.deliver()
    assert play.sent("S-1") == ["reserve", "pay"]
    assert play.dead_letters() == []


def test_no_deadline_is_left_of_a_saga_that_has_ended(play: Play) -> None:
    play.start("S-1", "S-2")
    for answer in GRANTED:
        play.answer("S-1", answer)
    play.answer("S-2", OutOfStock())
    before = history(play, "S-1")
    play.clock.advance(hours=24)
    assert play.deadlines.run_once().due == 0
    assert (play.state("S-1").status, history(play, "S-1")) == (COMPLETED, before)
    with play.engine.connect() as connection:
        assert connection.execute(select(sagas.store.table.c.due_at)).scalars().all() == [None] * 2


def test_a_deadline_looks_again_when_it_has_the_saga_to_itself(play: Play) -> None:
    play.start("S-1")
    play.clock.advance(30)
    with Session(play.engine) as session:
        assert sagas.due(session, play.clock.now(), 10) == ["S-1"]
    for answer in GRANTED:
        play.answer("S-1", answer)
    with Session(play.engine) as session, session.begin():
        turn = sagas.turn(session)
        turn.lock(["S-1"], skip=True)
        assert not turn.wake("S-1")


def test_a_deadline_that_was_over_at_a_restart_fires_once_for_all_workers(play: Play) -> None:
    play.start("S-1")
    play.clock.advance(hours=24)
    fresh = [sagas.deadlines(play.engine, play.transport) for _ in range(3)]
    assert [worker.run_once().due for worker in fresh] == [1, 0, 0]
    assert history(play, "S-1") == ["started", "asked stock/do", "timed out stock/do"]


def test_local_work_that_keeps_failing_is_a_dead_letter_and_goes_on_from_there(play: Play) -> None:
    saga_flow.broken.add("S-1")
    play.start("S-1")
    play.answer("S-1", Reserved())
    play.advance(1)
    (reason,) = play.dead_letters()
    assert "BrokenError: S-1" in reason
    assert play.state("S-1").status is RUNNING
    saga_flow.broken.clear()
    with play.engine.begin() as connection:
        ordering.dead_letters.redrive_all(connection, Wanted(consumer=ordering.name))
    play.work()
    assert play.state("S-1").step == "payment"


def test_sagas_go_on_after_the_database_cut_every_connection(play: Play) -> None:
    play.start("S-1")
    stop = threading.Event()

    def attempt() -> tuple[int, bool] | None:
        with contextlib.suppress(OperationalError):
            state = play.state("S-1")
            return state.attempt, state.sent
        return None

    with ThreadPoolExecutor(1) as other:
        running = other.submit(play.deadlines.run, stop)
        try:
            cut_connections(play.engine)
            play.clock.advance(30)
            eventually(attempt, (1, False))
            cut_connections(play.engine)
            play.clock.advance(2)
            eventually(attempt, (2, True))
        finally:
            stop.set()
        running.result()


def cut_connections(engine: Engine) -> None:
    alone = create_engine(engine.url, poolclass=NullPool)
    with alone.connect() as connection:
        connection.execute(
            text("""
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
        """)
        )


def test_a_command_that_the_broker_lost_is_sent_again(play: Play) -> None:
    play.start("S-1")
    client = play.transport.client
    client.delete(*client.scan_iter(match=f"*{play.transport.prefix}*", count=1000))
    play.advance(30)
    play.advance(2)
    sent = [*client.scan_iter(match=f"*{play.transport.prefix}*ordering.events*", _type="stream")]
    assert sum(client.xlen(key) for key in sent) == len(["lost", "second attempt"])
    for answer in GRANTED:
        play.answer("S-1", answer)
    assert play.state("S-1").status is COMPLETED


@pytest.fixture
def till(servers: Stack, clock: FakeClock) -> Iterator[Shop]:
    """Return the shop with one checkout, all the way through."""
    beside = (checkout.service, payments.service)
    shop = Shop(f"tree_{WORKER}", servers=servers, clock=clock, beside=beside)
    shop.orders.update_execution_options(labkit_clock=clock)
    with Session(shop.orders) as session, session.begin():
        checkout.check_out(session, "ORD-1", [("BOOK-DDD", 1)], amount_cents=3000)
    shop.settle()
    yield shop
    if servers.source == "environment":
        shop.delete()
    shop.lose_streams()
    shop.close()


def test_one_correlation_id_finds_every_message_of_a_checkout(till: Shop) -> None:
    found = [body for engine in (till.orders, till.stock) for body in bodies(engine)]
    assert {body["correlationId"] for body in found} == {"RES-1"}
    assert {body["event"]["type"] for body in found} == {*REQUESTS_AND_ANSWERS, *ORDER_CHANGES}


def test_requests_and_answers_of_a_checkout_are_one_tree(till: Shop) -> None:
    orders = Site(fulfillment.service, till.orders, (checkout.service, payments.service))
    sites = [orders, Site(inventory.service, till.stock)]
    first = next(bodies(till.orders))["messageId"]
    found = trace(first, sites, Entries(till.transport))
    types = [node.type for node in found.root.walk() if node.type not in ORDER_CHANGES]
    assert types == REQUESTS_AND_ANSWERS


def test_what_a_sagas_local_work_says_is_caused_by_the_answer_and_answers_nobody(
    till: Shop,
) -> None:
    (authorized,) = told(till, "PaymentAuthorized")
    *_, confirmed = told(till, "OrderStatusChanged")
    assert confirmed["headers"]["causationId"] == authorized["messageId"]
    assert confirmed["correlationId"] == "RES-1"
    assert REQUEST_ID in authorized["headers"]
    assert REQUEST_ID not in confirmed["headers"]


def told(till: Shop, type_: str) -> list[dict[str, Any]]:
    return [body for body in bodies(till.orders) if body["event"]["type"] == type_]


REQUESTS_AND_ANSWERS = [
    "ReserveStockRequested",
    "StockReserved",
    "AuthorizePaymentRequested",
    "PaymentAuthorized",
]
ORDER_CHANGES = ["OrderStatusChanged"]


def bodies(engine: Engine) -> Iterator[dict[str, Any]]:
    with engine.connect() as connection:
        query = text("select body from outbox_messages order by seq")
        yield from map(json.loads, connection.execute(query).scalars().all())
