"""The process manager on real servers: every branch, late and twice, after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.errors import ConfigurationError, SagaError
from labkit.process_manager import ProcessManager
from labkit.saga import RUNNING
from labkit.saga.deadlines import Deadlines
from labkit.saga.operations import Operations
from labkit.service import Service
from labkit.shop.backorder import REGISTRY, Backorder, manager, service
from labkit.shop.contracts import Line, StockReserved
from labkit.transports.redis_streams import RedisStreams
from tests.backorder_flow import LINES, Floor

YES = StockReserved(reservation_id="RES-1", sku="BOOK", qty=1)


@pytest.fixture
def floor(
    new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Floor]:
    made = Floor(new_database, transport, clock)
    yield made
    made.close()


@pytest.fixture
def offered(floor: Floor) -> Floor:
    """Return a process whose customer was offered the book, which A holds."""
    floor.stock_up(A={"BOOK": 1, "PEN": 1}, B={"BOOK": 5, "PEN": 1})
    floor.start()
    floor.work()
    assert floor.process().state == "offered"
    return floor


def test_what_warehouse_a_has_comes_from_there(floor: Floor) -> None:
    floor.stock_up(A={"BOOK": 1, "PEN": 2}, B={"BOOK": 1, "PEN": 2})
    floor.start()
    floor.work()
    assert floor.process().result == "WHOLE"
    assert floor.held() == {"A": {"BOOK": 1, "PEN": 2}, "B": {}}


def test_what_a_has_not_comes_from_warehouse_b(floor: Floor) -> None:
    floor.stock_up(A={"BOOK": 1}, B={"PEN": 2})
    floor.start()
    floor.work()
    assert floor.process().result == "WHOLE"
    assert floor.held() == {"A": {"BOOK": 1}, "B": {"PEN": 2}}


def test_an_accepted_part_is_kept(offered: Floor) -> None:
    offered.answer(accepts=True)
    offered.work()
    assert offered.process().result == "ACCEPTED"
    assert offered.held() == {"A": {"BOOK": 1}, "B": {}}


def test_a_declined_part_is_given_back(offered: Floor) -> None:
    offered.answer(accepts=False)
    offered.work()
    assert offered.process().result == "DECLINED"
    assert offered.stock()["A"] == {"BOOK": (1, 0), "PEN": (1, 0)}


def test_a_part_that_nobody_answers_for_is_given_back_after_a_day(offered: Floor) -> None:
    offered.advance(hours=23.9)
    assert offered.process().state == "offered"
    offered.advance(hours=0.1)
    assert offered.process().result == "EXPIRED"
    assert offered.held() == {"A": {}, "B": {}}


def test_a_deadline_fires_after_everything_was_stopped_for_longer(offered: Floor) -> None:
    offered.clock.advance(hours=240)
    offered.restart()
    offered.work()
    assert offered.process().result == "EXPIRED"


def test_an_answer_that_comes_before_the_deadline_is_looked_at_counts(offered: Floor) -> None:
    offered.clock.advance(hours=25)
    offered.answer(accepts=True)
    for worker in offered.workers["backorders"][:-1]:
        while worker.run_once():
            pass
    offered.work()
    assert offered.process().result == "ACCEPTED"


def test_an_answer_after_the_deadline_changes_nothing_and_is_in_the_history(offered: Floor) -> None:
    offered.advance(hours=24)
    offered.answer(accepts=True)
    offered.work()
    assert offered.process().result == "EXPIRED"
    assert offered.held() == {"A": {}, "B": {}}
    last = offered.history()[-1]
    assert (last.what, last.step, last.detail) == ("ignored", "EXPIRED", "OfferAnswered")
    assert offered.dead_letters() == []


def test_of_two_answers_the_first_counts(offered: Floor) -> None:
    offered.answer(accepts=False)
    offered.answer(accepts=True)
    offered.work()
    assert offered.process().result == "DECLINED"


def test_a_message_that_is_published_again_is_handled_once(offered: Floor) -> None:
    before = [tuple(row) for row in offered.history()]
    for engine in offered.engines.values():
        with engine.begin() as connection:
            connection.execute(text("update outbox_messages set published_at = null"))
    offered.work()
    assert [tuple(row) for row in offered.history()] == before


def test_a_warehouse_that_is_away_is_given_up_and_holds_nothing_when_it_is_back(
    floor: Floor,
) -> None:
    floor.stock_up(A={"BOOK": 1, "PEN": 2}, B={"BOOK": 1, "PEN": 2})
    floor.start()
    floor.work(without="A")
    assert floor.process().state == "at_a"
    floor.advance(hours=1, without="A")
    assert floor.process().result == "WHOLE"
    floor.work()
    assert floor.held() == {"A": {}, "B": {"BOOK": 1, "PEN": 2}}
    assert "ignored" in [row.what for row in floor.history()]


def test_a_process_begins_once(floor: Floor) -> None:
    assert floor.start()
    assert not floor.start(lines=(Line("OTHER", 1),))
    assert floor.process().data.lines == LINES
    assert len(floor.sent()) == 1


def test_a_rolled_back_start_leaves_neither_process_nor_message(floor: Floor) -> None:
    with Session(floor.engine) as session:
        manager.start(session, "RES-1", Backorder(LINES))
        session.rollback()
    with Session(floor.engine) as session:
        assert manager.find(session, "RES-1") is None
    assert floor.sent() == []


def test_a_process_begins_with_data_of_its_class(floor: Floor) -> None:
    wrong: Any = {"lines": []}
    with Session(floor.engine) as session, pytest.raises(ConfigurationError, match="Backorder"):
        manager.start(session, "RES-1", wrong)


def test_data_that_nobody_could_read_again_is_refused_at_the_start(floor: Floor) -> None:
    unreadable: Any = Backorder((Line("BOOK", "1"),))  # type: ignore[arg-type]
    with Session(floor.engine) as session, pytest.raises(ConfigurationError, match="survive JSON"):
        manager.start(session, "RES-1", unreadable)


def test_every_request_names_process_state_and_type(floor: Floor) -> None:
    floor.start()
    floor.work()
    assert floor.sent() == [
        ("WarehouseStockRequested", "backorder/RES-1/at_a:WarehouseStockRequested/do"),
        ("WarehouseStockRequested", "backorder/RES-1/at_b:WarehouseStockRequested/do"),
        ("BackorderEnded", "backorder/RES-1/OUT_OF_STOCK:BackorderEnded/do"),
    ]


def test_a_message_about_a_process_that_nobody_began_is_none_of_ours(floor: Floor) -> None:
    floor.say("A", YES)
    floor.work()
    assert (floor.history(), floor.dead_letters()) == ([], [])


def test_an_answer_to_a_request_of_ours_that_never_was_is_a_dead_letter(floor: Floor) -> None:
    floor.say("A", YES, requestId="backorder/RES-1/at_a:WarehouseStockRequested/do")
    floor.work()
    assert floor.dead_letters() == ["UnknownSagaError: there is no backorder RES-1 to answer"]


def test_an_answer_that_names_its_request_finds_its_process_whatever_it_is_called(
    floor: Floor,
) -> None:
    floor.start("shop/RES-1")
    floor.say("A", YES, "another", requestId="backorder/shop/RES-1/at_a:Asked/do")
    floor.work(without="B")
    assert "BOOK" in floor.process("shop/RES-1").data.held


def test_an_answer_to_somebody_elses_request_is_none_of_ours(floor: Floor) -> None:
    floor.start()
    floor.say("A", YES, requestId="checkout/RES-1/reserve_stock/do")
    for worker in (*floor.workers["A"][:1], *floor.workers["backorders"]):
        worker.run_once()
    assert floor.process().data.held == {}
    assert [row.what for row in floor.history()] == ["started", "sent"]


def test_a_process_of_a_later_version_waits_for_who_knows_it(floor: Floor) -> None:
    floor.start()
    with floor.engine.begin() as connection:
        connection.execute(text("update saga set version = 2"))
    floor.say("A", YES)
    floor.advance(hours=1, without="A")
    assert floor.deadlines.run_once().due == 0
    floor.work()
    assert "began with version 2" in floor.dead_letters()[0]


def test_a_row_tells_whoever_reads_it_with_sql(offered: Floor) -> None:
    query = text("select saga, status, step, due_at is not null as waits from saga")
    with offered.engine.connect() as connection:
        assert tuple(connection.execute(query).one()) == ("backorder", "RUNNING", "offered", True)
    offered.answer(accepts=True)
    offered.work()
    with offered.engine.connect() as connection:
        row = tuple(connection.execute(query).one())
    assert row == ("backorder", "COMPLETED", "ACCEPTED", False)


def test_two_workers_at_once_fire_each_deadline_once(floor: Floor) -> None:
    floor.stock_up(A={"BOOK": 50})
    ids = [f"RES-{n}" for n in range(50)]
    for process_id in ids:
        floor.start(process_id)
    floor.work()
    floor.clock.advance(hours=24)
    workers = [Deadlines(floor.engine, manager, batch=7) for _ in range(2)]
    reports = []

    def run(worker: Deadlines) -> None:
        while report := worker.run_once():
            reports.append(report.due)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    floor.work()
    fired = [row for each in ids for row in floor.history(each) if row.what == "timed out"]
    assert (len(fired), sum(reports)) == (50, 50)
    assert floor.stock()["A"]["BOOK"] == (50, 0)


def test_answer_and_deadline_at_once_end_a_process_in_one_way(offered: Floor) -> None:
    offered.clock.advance(hours=24)
    offered.answer(accepts=True)
    offered.workers["backorders"][0].run_once()
    threads = [
        threading.Thread(target=worker.run_once) for worker in offered.workers["backorders"][1:]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    offered.work()
    kept = {"ACCEPTED": {"BOOK": 1}, "EXPIRED": {}}[offered.process().result or ""]
    assert offered.held()["A"] == kept
    assert [row.what for row in offered.history()].count("completed") == 1


def test_people_see_processes_in_the_list_of_sagas(offered: Floor) -> None:
    people = Operations(manager)
    with Session(offered.engine) as session:
        listed = people.find(session)
        shown = people.one(session, "RES-1")
    assert [(each.saga, each.id, each.status) for each in listed] == [
        ("backorder", "RES-1", RUNNING)
    ]
    assert [line.what for line in shown.history] == [row.what for row in offered.history()]


def test_what_people_do_to_sagas_is_refused_for_a_process(offered: Floor) -> None:
    with Session(offered.engine) as session, pytest.raises(SagaError, match="send it an event"):
        Operations(manager).retry(session, "RES-1", who="operator", why="it waits")


def test_the_role_saga_wakes_processes_too(offered: Floor) -> None:
    offered.clock.advance(hours=24)
    (worker,) = service.workers("saga", offered.engine, offered.transport)
    worker.run_once()
    assert offered.process().result == "EXPIRED"


def test_a_name_is_declared_once() -> None:
    twice = Service("twice", REGISTRY)
    ProcessManager("backorder", twice, data=Backorder)
    with pytest.raises(ConfigurationError, match="declared twice"):
        ProcessManager("backorder", twice, data=Backorder)
