"""Fulfillment: one transaction per order, results in any order and number, one status rule."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session

from labkit.errors import PermanentError
from labkit.shop import fulfillment
from labkit.shop.contracts import (
    Line,
    OrderStatusChanged,
    ReleaseReservationRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.order_book import OrderError, status_of
from tests.integration.conftest import Deliver, Shop

SKUS = ("BOOK-DDD", "BOOK-HEX", "BOOK-EDA")


@pytest.fixture
def reserved(shop: Shop, deliver: Deliver) -> Deliver:
    return partial(deliver, shop.orders, fulfillment.service, fulfillment.stock_reserved)


@pytest.fixture
def rejected(shop: Shop, deliver: Deliver) -> Deliver:
    return partial(deliver, shop.orders, fulfillment.service, fulfillment.stock_rejected)


def yes(sku: str) -> StockReserved:
    return StockReserved(reservation_id="RES-1", sku=sku, qty=1)


def no(sku: str) -> StockReservationRejected:
    return StockReservationRejected(reservation_id="RES-1", sku=sku, reason="sold out, sorry")


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([None, None], "RESERVATION_PENDING"),
        (["RESERVED", None], "PARTIALLY_RESERVED"),
        (["RESERVED", "RESERVED"], "RESERVED"),
        (["REJECTED", None], "REJECTED"),
        (["RESERVED", "REJECTED"], "REJECTED"),
    ],
)
def test_the_status_follows_from_all_lines(results: list[str | None], status: str) -> None:
    assert status_of(results) == status


def test_an_order_is_written_with_its_route_its_view_row_and_its_request(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2), ("BOOK-EDA", 1))

    with shop.orders.connect() as connection:
        counts = [
            connection.execute(text(f"select count(*) from {table}")).scalar_one()
            for table in ("orders", "order_lines", "reservation_routing", "outbox_messages")
        ]
    assert counts == [1, 2, 2, 1]
    assert shop.seen("ORD-1") == ("RESERVATION_PENDING", 1)


def test_an_order_that_is_rolled_back_leaves_nothing_at_all(shop: Shop) -> None:
    with Session(shop.orders) as session:
        fulfillment.place_order(session, "ORD-1", [("BOOK-DDD", 1)])
        session.rollback()
        session.commit()

    with shop.orders.connect() as connection:
        query = "select (select count(*) from orders) + (select count(*) from outbox_messages)"
        assert connection.execute(text(query)).scalar_one() == 0
    assert shop.seen("ORD-1") is None


@pytest.mark.parametrize("lines", [[], [("BOOK-DDD", 1), ("BOOK-DDD", 2)]])
def test_an_order_without_lines_or_with_an_article_twice_is_refused(
    shop: Shop, lines: list[tuple[str, int]]
) -> None:
    with pytest.raises(OrderError, match="one or more lines"):
        shop.place("ORD-1", *lines)


def test_an_order_cannot_be_placed_twice(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))

    with pytest.raises(OrderError, match="exists already"):
        shop.place("ORD-1", ("BOOK-DDD", 1))


def test_a_result_moves_the_order_and_tells_the_read_model(shop: Shop, reserved: Deliver) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))

    told = reserved(yes("BOOK-DDD"))

    assert told == [
        OrderStatusChanged(
            order_id="ORD-1", reservation_id="RES-1", status="RESERVED", order_version=2
        )
    ]


def test_a_result_that_changes_no_status_tells_nobody(shop: Shop, reserved: Deliver) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    reserved(yes("BOOK-DDD"))

    assert reserved(yes("BOOK-DDD")) == []


def test_a_line_keeps_its_first_result(shop: Shop, reserved: Deliver, rejected: Deliver) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    reserved(yes("BOOK-DDD"))

    rejected(no("BOOK-DDD"))

    assert shop.status("ORD-1") == "RESERVED"


def test_a_result_of_an_unknown_reservation_is_a_permanent_error(reserved: Deliver) -> None:
    with pytest.raises(PermanentError, match="no order has reservation RES-1"):
        reserved(yes("BOOK-DDD"))


def test_a_result_of_an_article_that_was_not_ordered_is_a_permanent_error(
    shop: Shop, reserved: Deliver
) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))

    with pytest.raises(PermanentError, match="no order has reservation RES-1 of BOOK-HEX"):
        reserved(yes("BOOK-HEX"))


def test_a_line_keeps_its_first_result_with_its_reason(
    shop: Shop, reserved: Deliver, rejected: Deliver
) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    rejected(no("BOOK-DDD"))
    reserved(yes("BOOK-DDD"))

    with shop.orders.connect() as connection:
        line = connection.execute(text("select result, reason from order_lines")).one()
    assert line == ("REJECTED", "sold out, sorry")


def test_cancelling_asks_for_the_release_of_all_lines_once(shop: Shop, deliver: Deliver) -> None:
    shop.place("ORD-1", ("BOOK-HEX", 2), ("BOOK-DDD", 1))

    assert (shop.cancel("ORD-1"), shop.cancel("ORD-1")) == (True, False)

    with shop.orders.connect() as connection:
        query = "select body from outbox_messages where topic like '%release%'"
        (body,) = connection.execute(text(query)).scalars()
    assert ReleaseReservationRequested.topic.endswith("release-reservation-requested.v1")
    assert Line("BOOK-DDD", 1).sku in body
    assert shop.status("ORD-1") == "CANCELLED"


def test_a_late_result_does_not_wake_a_cancelled_order(shop: Shop, reserved: Deliver) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    shop.cancel("ORD-1")

    reserved(yes("BOOK-DDD"))

    assert shop.status("ORD-1") == "CANCELLED"


def test_an_order_that_is_only_written_asks_nobody_until_it_is_told_to(shop: Shop) -> None:
    with Session(shop.orders) as session, session.begin():
        fulfillment.write_order(session, "ORD-1", [("BOOK-DDD", 2)])
    shop.settle()
    assert (shop.seen("ORD-1"), shop.books("BOOK-DDD")) == (("RESERVATION_PENDING", 1), (25, 0))

    for _ in range(2):
        with Session(shop.orders) as session, session.begin():
            fulfillment.ask_for_stock(session, "ORD-1")
    shop.settle()

    assert (shop.seen("ORD-1"), shop.books("BOOK-DDD")) == (("RESERVED", 2), (23, 2))


def test_a_rejected_order_can_give_back_what_it_holds_and_stays_rejected(shop: Shop) -> None:
    shop.place("ORD-3", ("BOOK-HEX", 1), ("BOOK-EDA", 9))
    shop.settle()

    for _ in range(2):
        with Session(shop.orders) as session, session.begin():
            fulfillment.ask_for_release(session, "ORD-3")
        shop.settle()

    assert (shop.status("ORD-3"), shop.books("BOOK-HEX")) == ("REJECTED", (10, 0))


def test_what_is_reserved_can_be_confirmed_once_and_not_cancelled_any_more(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.settle()

    for expected in (True, False):
        with Session(shop.orders) as session, session.begin():
            assert fulfillment.confirm_order(session, "ORD-1") is expected
    shop.settle()

    assert (shop.seen("ORD-1"), shop.books("BOOK-DDD")) == (("CONFIRMED", 3), (23, 2))
    with pytest.raises(OrderError, match="ORD-1 is confirmed"):
        shop.cancel("ORD-1")


def test_what_is_not_reserved_cannot_be_confirmed(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))

    refusal = pytest.raises(OrderError, match="ORD-1 is RESERVATION_PENDING")
    with Session(shop.orders) as session, session.begin(), refusal:
        fulfillment.confirm_order(session, "ORD-1")


def test_an_order_that_does_not_exist_cannot_be_cancelled(shop: Shop) -> None:
    with pytest.raises(OrderError, match="there is no order ORD-9"):
        shop.cancel("ORD-9")


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_order_and_repetition_of_results_ends_in_the_same_status(
    shop: Shop, reserved: Deliver, rejected: Deliver, data: st.DataObject
) -> None:
    outcome = {sku: data.draw(st.booleans(), label=sku) for sku in SKUS}
    arrivals = data.draw(
        st.lists(st.sampled_from(SKUS), max_size=6)
        .map(lambda extra: [*SKUS, *extra])
        .flatmap(st.permutations)
    )
    with shop.orders.begin() as connection:
        connection.execute(text("truncate orders, order_lines, reservation_routing cascade"))
        connection.execute(text("truncate order_status_view"))
    shop.place("ORD-1", *[(sku, 1) for sku in SKUS])

    for sku in arrivals:
        reserved(yes(sku)) if outcome[sku] else rejected(no(sku))

    assert shop.status("ORD-1") == ("RESERVED" if all(outcome.values()) else "REJECTED")
