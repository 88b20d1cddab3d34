"""Inventory: never more than there is, one answer per line, and a no is an answer."""

from __future__ import annotations

import threading
import uuid
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from labkit.messages import Event
from labkit.shop import inventory
from labkit.shop.contracts import (
    Line,
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from tests.integration.conftest import Deliver, Shop, message_of


@pytest.fixture
def reserve(shop: Shop, deliver: Deliver) -> Deliver:
    return partial(deliver, shop.stock, inventory.service, inventory.reserve)


@pytest.fixture
def release(shop: Shop, deliver: Deliver) -> Deliver:
    return partial(deliver, shop.stock, inventory.service, inventory.release)


def request(reservation_id: str, *lines: tuple[str, int]) -> ReserveStockRequested:
    return ReserveStockRequested(
        reservation_id=reservation_id, lines=tuple(Line(sku, qty) for sku, qty in lines)
    )


def release_of(reservation_id: str, *lines: tuple[str, int]) -> ReleaseReservationRequested:
    return ReleaseReservationRequested(
        reservation_id=reservation_id, lines=tuple(Line(sku, qty) for sku, qty in lines)
    )


def test_each_line_gets_its_own_answer(shop: Shop, reserve: Deliver) -> None:
    answers = reserve(request("RES-1", ("BOOK-HEX", 1), ("BOOK-EDA", 9), ("BOOK-XXX", 1)))

    assert answers == [
        StockReservationRejected(reservation_id="RES-1", sku="BOOK-EDA", reason="OUT_OF_STOCK"),
        StockReserved(reservation_id="RES-1", sku="BOOK-HEX", qty=1),
        StockReservationRejected(reservation_id="RES-1", sku="BOOK-XXX", reason="UNKNOWN_SKU"),
    ]
    assert (shop.books("BOOK-HEX"), shop.books("BOOK-EDA")) == ((9, 1), (5, 0))


def test_a_line_that_is_asked_for_again_gets_the_stored_answer(
    shop: Shop, reserve: Deliver
) -> None:
    first = reserve(request("RES-1", ("BOOK-EDA", 5)))
    reserve(request("RES-2", ("BOOK-EDA", 1)))

    assert reserve(request("RES-1", ("BOOK-EDA", 5))) == first
    assert reserve(request("RES-2", ("BOOK-EDA", 1)))[0].event_type == "StockReservationRejected"
    assert shop.books("BOOK-EDA") == (0, 5)


def test_the_reason_of_a_stored_no_stays_the_same(reserve: Deliver) -> None:
    first = reserve(request("RES-1", ("BOOK-XXX", 1)))

    assert reserve(request("RES-1", ("BOOK-XXX", 1))) == first


def test_a_release_gives_back_what_was_held_once(
    shop: Shop, reserve: Deliver, release: Deliver
) -> None:
    reserve(request("RES-1", ("BOOK-HEX", 4)))

    release(release_of("RES-1", ("BOOK-HEX", 4)))
    release(release_of("RES-1", ("BOOK-HEX", 4)))

    assert shop.books("BOOK-HEX") == (10, 0)


def test_a_release_of_a_rejected_line_gives_nothing_back(
    shop: Shop, reserve: Deliver, release: Deliver
) -> None:
    reserve(request("RES-1", ("BOOK-EDA", 9)))

    release(release_of("RES-1", ("BOOK-EDA", 9)))

    assert shop.books("BOOK-EDA") == (5, 0)


def test_a_reservation_that_comes_after_its_release_is_rejected(
    shop: Shop, reserve: Deliver, release: Deliver
) -> None:
    release(release_of("RES-1", ("BOOK-HEX", 4)))

    (answer,) = reserve(request("RES-1", ("BOOK-HEX", 4)))

    assert answer == StockReservationRejected(
        reservation_id="RES-1", sku="BOOK-HEX", reason="RESERVATION_RELEASED"
    )
    assert shop.books("BOOK-HEX") == (10, 0)


@pytest.mark.parametrize("reserved", [("BOOK-HEX", 4), ("BOOK-HEX", 99), None])
def test_a_release_is_answered_whatever_there_was_to_give_back(
    reserve: Deliver, release: Deliver, reserved: tuple[str, int] | None
) -> None:
    if reserved:
        reserve(request("RES-1", reserved))

    (answer,) = release(release_of("RES-1", ("BOOK-HEX", 4), ("BOOK-XXX", 1)))

    lines = (Line("BOOK-HEX", 4), Line("BOOK-XXX", 1))
    assert answer == ReservationReleased(reservation_id="RES-1", lines=lines)


def test_a_release_that_is_asked_for_again_is_answered_again(
    reserve: Deliver, release: Deliver
) -> None:
    reserve(request("RES-1", ("BOOK-HEX", 4)))

    first = release(release_of("RES-1", ("BOOK-HEX", 4)))

    assert first == release(release_of("RES-1", ("BOOK-HEX", 4)))


def test_a_release_of_no_lines_is_answered(release: Deliver) -> None:
    assert release(release_of("RES-1")) == [ReservationReleased(reservation_id="RES-1", lines=())]


def test_an_answer_names_the_request_without_a_word_of_the_handler(shop: Shop) -> None:
    reserving = message_of(request("RES-1", ("BOOK-HEX", 1)))
    releasing = message_of(release_of("RES-1", ("BOOK-HEX", 1)))

    with Session(shop.stock) as session, session.begin():
        inventory.reserve(session, replace(reserving, headers={"requestId": "do"}))
        inventory.release(session, replace(releasing, headers={"requestId": "undo"}))

    assert _request_ids(shop) == ["do", "undo"]


requests_and_releases = st.lists(
    st.tuples(st.sampled_from(["reserve", "release"]), st.integers(1, 2)), max_size=6
)


@given(steps=requests_and_releases)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_stock_adds_up_and_each_request_is_answered_in_every_order(
    shop: Shop, reserve: Deliver, release: Deliver, steps: list[tuple[str, int]]
) -> None:
    lot = uuid.uuid4().hex
    for verb, number in steps:
        line = ("BOOK-HEX", 3)
        event: Event = (request if verb == "reserve" else release_of)(f"{lot}-{number}", line)
        (answer,) = (reserve if verb == "reserve" else release)(event)
        decided = {"StockReserved", "StockReservationRejected"}
        assert answer.event_type in (decided if verb == "reserve" else {"ReservationReleased"})

    available, held = shop.books("BOOK-HEX")
    assert available + held == 10
    assert held == 3 * sum(_holds(steps, number) for number in (1, 2))
    for number in (1, 2):
        release(release_of(f"{lot}-{number}", ("BOOK-HEX", 3)))


def _holds(steps: list[tuple[str, int]], number: int) -> bool:
    """Say whether a reservation holds stock: it was asked for, and never released."""
    verbs = {verb for verb, n in steps if n == number}
    return verbs == {"reserve"}


def test_a_technical_failure_is_not_answered_at_all(shop: Shop) -> None:
    message = message_of(request("RES-1", ("BOOK-HEX", 1)))
    with shop.stock.begin() as other, Session(shop.stock) as session:
        other.execute(text("select * from stock for update"))
        session.execute(text("set local statement_timeout = '50ms'"))

        with pytest.raises(OperationalError):
            inventory.reserve(session, message)

    assert _answers(shop) == 0


def test_twenty_threads_sell_the_last_five_once(shop: Shop) -> None:
    start = threading.Barrier(20)

    def buy(number: int) -> None:
        event = request(f"RES-{number}", ("BOOK-EDA", 1))
        with Session(shop.stock) as session, session.begin():
            start.wait()
            inventory.reserve(session, message_of(event))

    threads = [threading.Thread(target=buy, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (shop.books("BOOK-EDA"), _answers(shop)) == ((0, 5), 20)


def _request_ids(shop: Shop) -> list[str]:
    query = "select body::json->'headers'->>'requestId' from outbox_messages order by seq"
    with shop.stock.connect() as connection:
        return list(connection.execute(text(query)).scalars())


def _answers(shop: Shop) -> int:
    with shop.stock.connect() as connection:
        count: int = connection.execute(text("select count(*) from outbox_messages")).scalar_one()
        return count
