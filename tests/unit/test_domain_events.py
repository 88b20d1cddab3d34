"""Domain events: one history per order, of which one event concerns others and none travels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from labkit.errors import InvalidEventError
from labkit.lab.story_cast import CAST
from labkit.messages import encode
from labkit.shop.domain_events import OrderPlaced, history_of

ORDERS = ("ORD-1", "ORD-2", "ORD-3")


def test_an_order_with_two_lines_has_ten_private_events() -> None:
    counts = [len(history_of(order, CAST[order].lines)) for order in ORDERS]

    assert counts == [8, 10, 10]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_is_placed_once_in_its_history(order: str) -> None:
    placed = [each for each in history_of(order, CAST[order].lines) if type(each) is OrderPlaced]

    assert [each.order_id for each in placed] == [order]
    assert [(line.sku, line.qty) for line in placed[0].lines] == list(CAST[order].lines)
    assert placed[0].reservation_id == order.replace("ORD", "RES")


def test_a_history_is_the_same_in_every_run() -> None:
    assert history_of("ORD-1", [("BOOK-DDD", 2)]) == history_of("ORD-1", [("BOOK-DDD", 2)])


def test_the_margin_is_what_the_lines_leave_after_the_discount() -> None:
    [placed] = [e for e in history_of("ORD-1", [("BOOK-DDD", 2)]) if isinstance(e, OrderPlaced)]

    assert placed.internal_margin == 2 * (5400 - 3100) - 200


@pytest.mark.parametrize("number", range(8))
def test_a_domain_event_cannot_travel_as_it_is(number: int) -> None:
    event: Any = history_of("ORD-1", [("BOOK-DDD", 2)])[number]

    with pytest.raises(InvalidEventError):
        encode(
            event,
            message_id="1",
            correlation_id="RES-1",
            occurred_at=datetime(2026, 2, 17, 16, tzinfo=UTC),
            headers={},
        )
