"""The checkout on real servers: stock, firm order and payment agree whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.lab.bench import STOCK
from labkit.lab.servers import Stack
from labkit.saga import COMPENSATED, COMPENSATING, COMPLETED, RUNNING, STUCK, State
from labkit.saga.operations import Operations
from labkit.service import Service
from labkit.shop import checkout, choreography, inventory, payments
from labkit.shop.firm_orders import firm_orders
from labkit.shop.provider import CHARGED, Fault, SimulatedProvider
from tests.integration.conftest import WORKER, Shop

DDD, EDA, HEX = "BOOK-DDD", "BOOK-EDA", "BOOK-HEX"


class Till(Shop):
    """The shop with its checkout, and the questions that tests ask about it."""

    provider: SimulatedProvider
    clock: FakeClock

    def check_out(self, order_id: str, *lines: tuple[str, int]) -> str:
        with Session(self.orders) as session, session.begin():
            return checkout.check_out(session, order_id, lines, amount_cents=3000)

    def saga(self, order_id: str) -> State:
        with Session(self.orders) as session:
            turn = checkout.sagas.turn(session)
            saga_id = order_id.replace("ORD", "RES")
            turn.lock([saga_id])
            found = turn.state(saga_id)
        assert found is not None
        return found

    def wait(self, seconds: float, *, without: Service | tuple[Service, ...] = ()) -> None:
        """Let time pass from one due time of a saga to the next, and everybody work at each."""
        end = self.clock.now() + timedelta(seconds=seconds)
        with self.staying():
            while (due := self.next_due()) and due <= end:
                assert due > self.clock.now(), "nobody wakes what is due"
                self.clock.advance((due - self.clock.now()).total_seconds())
                self.settle(without=without)
        self.clock.advance((end - self.clock.now()).total_seconds())

    def next_due(self) -> datetime | None:
        with self.orders.connect() as connection:
            return connection.execute(
                select(func.min(checkout.sagas.store.table.c.due_at))
            ).scalar()

    def firm(self, order_id: str) -> tuple[bool, bool] | None:
        """Return whether a firm order was made, and whether it was called off."""
        mine = select(firm_orders).where(firm_orders.c.order_id == order_id)
        with self.orders.connect() as connection:
            row = connection.execute(mine).one_or_none()
        return (True, row.called_off_at is not None) if row else None

    def charged(self) -> list[str]:
        return [each.order_id for each in self.provider.charges() if each.state == CHARGED]

    def sent(self, order_id: str) -> list[str]:
        key = order_id.replace("ORD", "RES")
        query = text("""
            select body::json->'event'->>'type' from outbox_messages
            where key = :key and topic not like '%status%' order by seq
        """)
        with self.orders.connect() as connection:
            return list(connection.execute(query, {"key": key}).scalars())


@pytest.fixture
def till(servers: Stack, clock: FakeClock) -> Iterator[Till]:
    services = (checkout.service, payments.service)
    made = Till(f"till_{WORKER}", servers=servers, clock=clock, beside=services)
    made.orders.update_execution_options(labkit_clock=clock)
    made.clock, made.provider = clock, SimulatedProvider(made.orders)
    yield made
    if servers.source == "environment":
        made.delete()
    made.lose_streams()
    made.close()


def test_an_order_whose_stock_and_payment_are_granted_is_confirmed(till: Till) -> None:
    till.check_out("ORD-1", (DDD, 2))
    till.settle()
    assert till.saga("ORD-1").status is COMPLETED
    assert till.seen("ORD-1") == ("CONFIRMED", 3)
    assert till.books(DDD) == (23, 2)
    assert till.firm("ORD-1") == (True, False)
    assert till.charged() == ["ORD-1"]


def test_an_order_without_stock_is_rejected_and_nothing_is_asked_for_after_that(till: Till) -> None:
    till.check_out("ORD-1", (EDA, 9))
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.status("ORD-1") == "REJECTED"
    assert till.sent("ORD-1") == ["ReserveStockRequested"]
    assert till.firm("ORD-1") is None


def test_an_order_of_which_one_line_is_rejected_gives_the_other_back(till: Till) -> None:
    till.check_out("ORD-1", (HEX, 1), (EDA, 9))
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.status("ORD-1") == "REJECTED"
    assert till.books(HEX) == (10, 0)


def test_a_declined_payment_calls_the_firm_order_off_and_releases_the_stock(till: Till) -> None:
    till.provider.switch_on(Fault.DECLINE, "ORD-1")
    till.check_out("ORD-1", (DDD, 1))
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.seen("ORD-1") == ("CANCELLED", 3)
    assert till.firm("ORD-1") == (True, True)
    assert till.books(DDD) == (25, 0)
    assert till.charged() == []


def test_the_firm_order_is_called_off_before_its_stock_is_released(till: Till) -> None:
    till.provider.switch_on(Fault.DECLINE, "ORD-1")
    till.check_out("ORD-1", (DDD, 1))
    till.settle()
    with till.orders.connect() as connection:
        history = checkout.sagas.store.history
        steps = connection.execute(select(history.c.step).order_by(history.c.seq)).scalars().all()
    assert steps.index("create_order/undo") < steps.index("reserve_stock/undo")


def test_a_provider_that_is_away_for_a_while_is_asked_again(till: Till) -> None:
    till.provider.switch_on(Fault.DOWN, "ORD-1", times=2)
    till.check_out("ORD-1", (DDD, 1))
    till.settle()
    till.wait(30)
    assert till.saga("ORD-1").status is COMPLETED
    assert till.charged() == ["ORD-1"]


def test_a_lost_answer_of_the_provider_charges_once(till: Till) -> None:
    till.provider.switch_on(Fault.LOSE_ANSWER, "ORD-1", times=1)
    till.check_out("ORD-1", (DDD, 1))
    till.settle()
    till.wait(30)
    assert till.saga("ORD-1").status is COMPLETED
    assert [(each.state, each.requests) for each in till.provider.charges()] == [(CHARGED, 2)]


def test_a_payment_whose_outcome_stays_unknown_is_voided(till: Till) -> None:
    till.provider.switch_on(Fault.LOSE_ANSWER, "ORD-1", times=3)
    till.check_out("ORD-1", (DDD, 1))
    till.settle()
    till.wait(60)
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.charged() == []
    assert till.books(DDD) == (25, 0)


def test_a_release_that_fails_three_times_is_tried_again_until_it_works(till: Till) -> None:
    till.provider.switch_on(Fault.DECLINE, "ORD-1")
    till.check_out("ORD-1", (DDD, 1))
    till.settle(without=payments.service)
    till.settle(without=inventory.service)
    assert till.saga("ORD-1").status is COMPENSATING
    till.wait(90, without=inventory.service)
    assert till.sent("ORD-1").count("ReleaseReservationRequested") == 3
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.books(DDD) == (25, 0)


def test_a_release_that_never_works_waits_for_a_person_who_retries(till: Till) -> None:
    till.provider.switch_on(Fault.DECLINE, "ORD-1")
    till.check_out("ORD-1", (DDD, 1))
    till.settle(without=payments.service)
    till.wait(300, without=inventory.service)
    assert till.saga("ORD-1").status is STUCK
    till.settle()
    assert till.saga("ORD-1").status is STUCK
    with Session(till.orders) as session, session.begin():
        Operations(checkout.sagas).retry(session, "RES-1", who="operator", why="inventory is back")
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.books(DDD) == (25, 0)


def test_a_reservation_that_comes_after_the_deadline_is_given_back(till: Till) -> None:
    till.check_out("ORD-1", (DDD, 1))
    till.wait(150, without=inventory.service)
    assert till.saga("ORD-1").status is COMPENSATING
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.status("ORD-1") == "CANCELLED"
    assert till.books(DDD) == (25, 0)


def test_of_two_sagas_for_the_last_unit_one_is_confirmed_and_one_rejected(till: Till) -> None:
    till.check_out("ORD-1", (EDA, 5))
    till.check_out("ORD-2", (EDA, 5))
    till.settle()
    assert sorted((till.status("ORD-1"), till.status("ORD-2"))) == ["CONFIRMED", "REJECTED"]
    assert till.books(EDA) == (0, 5)


def test_a_checkout_that_is_cancelled_while_it_waits_gives_all_back(till: Till) -> None:
    till.check_out("ORD-1", (DDD, 1))
    till.settle(without=inventory.service)
    with Session(till.orders) as session, session.begin():
        Operations(checkout.sagas).cancel(session, "RES-1", who="customer", why="second thoughts")
    till.settle()
    assert till.saga("ORD-1").status is COMPENSATED
    assert till.status("ORD-1") == "CANCELLED"
    assert till.books(DDD) == (25, 0)


def test_a_hundred_checkouts_in_flight_all_end(till: Till) -> None:
    for n in range(100):
        till.check_out(f"ORD-{n}", (DDD, 1))
    till.settle(without=inventory.service)
    assert {till.saga(f"ORD-{n}").status for n in range(100)} == {RUNNING}
    till.settle()
    found = [till.saga(f"ORD-{n}").status for n in range(100)]
    assert (found.count(COMPLETED), found.count(COMPENSATED)) == (25, 75)
    assert till.books(DDD) == (0, 25)


def test_in_choreography_a_rejected_order_asks_for_its_release(
    servers: Stack, clock: FakeClock
) -> None:
    shop = Shop(f"dance_{WORKER}", servers=servers, clock=clock, beside=[choreography.service])
    shop.place("ORD-3", (HEX, 1), (EDA, 9))
    shop.settle()
    assert (shop.status("ORD-3"), shop.books(HEX)) == ("REJECTED", (10, 0))
    assert [shop.books(sku) for sku in STOCK] == [(25, 0), (10, 0), (5, 0)]
    shop.lose_streams()
    shop.close()
