"""The audit finds what it looks for: every invariant is broken once, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from labkit.lab.bench import STOCK
from labkit.shop.contracts import FULFILLMENT
from labkit.testing.audit import audit
from tests.integration.conftest import Shop

CONSERVED = "stock is conserved"
AGREE = "both services agree on every line"
ONE_EFFECT = "each request has exactly one effect"
PUBLISHED = "every committed event is published"
ORDERED = "nothing lost, invented or out of order per key"
VIEW = "the view shows the orders"
NO_DEAD_LETTERS = "no dead letters"


@pytest.fixture
def broken(shop: Shop) -> Callable[[], set[str]]:
    """Let two orders settle; return a function that names the invariants broken since."""
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.place("ORD-2", ("BOOK-EDA", 9))
    shop.settle()

    def find() -> set[str]:
        return {
            name
            for name, why in audit(shop.orders, shop.stock, shop.transport, STOCK).items()
            if why
        }

    assert find() == set()
    return find


@pytest.mark.parametrize(
    ("side", "sabotage", "found"),
    [
        ("stock", "update stock set available = available + 1", {CONSERVED}),
        ("stock", "update stock set held = held + 1, available = available - 1", {CONSERVED}),
        ("stock", "update reservation_lines set state = 'REJECTED'", {CONSERVED, AGREE}),
        ("orders", "update order_lines set result = null", {AGREE}),
        ("stock", "delete from inbox_messages", {ONE_EFFECT}),
        ("orders", "update outbox_messages set published_at = null", {PUBLISHED}),
        ("orders", "update order_status_view set version = 1", {VIEW}),
        ("orders", "delete from order_status_view where order_id = 'ORD-2'", {VIEW}),
    ],
)
def test_a_change_by_hand_is_found(
    shop: Shop, broken: Callable[[], set[str]], side: str, sabotage: str, found: set[str]
) -> None:
    with getattr(shop, side).begin() as connection:
        connection.execute(text(sabotage))

    assert broken() == found


def test_a_release_that_was_not_answered_is_found(
    shop: Shop, broken: Callable[[], set[str]]
) -> None:
    shop.cancel("ORD-1")
    shop.settle()
    assert broken() == set()

    unanswered = "update outbox_messages set topic = 'another' where topic like '%released%'"
    with shop.stock.begin() as connection:
        connection.execute(text(unanswered))

    assert broken() == {ONE_EFFECT}


def test_an_entry_missing_from_the_stream_is_found(
    shop: Shop, broken: Callable[[], set[str]]
) -> None:
    key = shop.transport.stream_key(FULFILLMENT, FULFILLMENT.partition_of("RES-1"))
    shop.transport.client.xtrim(key, maxlen=0, approximate=False)

    assert broken() == {ORDERED}


def test_an_entry_that_nobody_committed_is_found(
    shop: Shop, broken: Callable[[], set[str]]
) -> None:
    with shop.orders.begin() as connection:
        connection.execute(text("delete from outbox_messages where key = 'RES-1'"))

    assert ORDERED in broken()


def test_a_dead_letter_is_found(shop: Shop, broken: Callable[[], set[str]]) -> None:
    shop.transport.client.xadd(shop.transport.stream_key(FULFILLMENT, 0), {"hello": "world"})
    shop.settle()

    assert broken() == {NO_DEAD_LETTERS, ORDERED}
