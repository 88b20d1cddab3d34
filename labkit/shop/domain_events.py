"""Domain events: what happens to an order inside fulfillment, and is nobody else's business.

They are private: other contexts hear integration events (`labkit.shop.contracts`), which a
translator writes. So a field here may be renamed on any afternoon without asking anybody.

Guarantee: the same order has the same history in every run, and none of these events can travel
as it is: the outbox takes `labkit.messages.Event`, and these are none.
Not guaranteed: that they are stored; `fulfillment` keeps the order's state, not its history.
Amounts are in cents.

Pattern: Evans, *Domain-Driven Design*, and Vernon, *Implementing Domain-Driven Design*: "Domain
Events"; Khononov, *Learning Domain-Driven Design*: "private events, public events".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.shop.order_book import reservation_id_of

_DISCOUNT = 200
# Article to what it costs the customer and what it cost us, each in cents.
_PRICES: Mapping[str, tuple[int, int]] = {
    "BOOK-DDD": (5400, 3100),
    "BOOK-HEX": (3900, 2500),
    "BOOK-EDA": (4500, 2700),
}
_OTHER_PRICE = (3000, 2000)


@dataclass(frozen=True)
class OrderLine:
    """So many of one article, with what we paid for it."""

    sku: str
    qty: int
    unit_price: int
    unit_cost: int


@dataclass(frozen=True)
class DomainEvent:
    """Something that happened to an order."""

    order_id: str


@dataclass(frozen=True)
class OrderStarted(DomainEvent):
    """A customer put the first article into the basket."""

    customer_email: str


@dataclass(frozen=True)
class LineAdded(DomainEvent):
    """An article was put into the basket."""

    sku: str
    qty: int


@dataclass(frozen=True)
class LinePriceAdjusted(DomainEvent):
    """The price of a line followed today's rule."""

    sku: str
    unit_price: int
    unit_cost: int


@dataclass(frozen=True)
class CouponApplied(DomainEvent):
    """The customer pays less."""

    code: str
    discount: int


@dataclass(frozen=True)
class RiskAssessed(DomainEvent):
    """Somebody may be paying with a stranger's card; from 0 to 100."""

    risk_score: int


@dataclass(frozen=True)
class OrderPlaced(DomainEvent):
    """The customer asked for it: the one event from which others must learn something."""

    reservation_id: str
    lines: tuple[OrderLine, ...]
    internal_margin: int
    customer_email: str


@dataclass(frozen=True)
class PickingPlanned(DomainEvent):
    """Our own people know which shelves to go to; it has lines, and it is private all the same."""

    reservation_id: str
    lines: tuple[OrderLine, ...]


@dataclass(frozen=True)
class MarginReported(DomainEvent):
    """Accounting knows what is left for us."""

    internal_margin: int


def history_of(
    order_id: str, lines: Sequence[tuple[str, int]], *, reservation_id: str | None = None
) -> tuple[DomainEvent, ...]:
    """Return what happens inside fulfillment until an order is placed: two events a line, and six.

    Args:
        order_id: the order's id.
        lines: article and quantity.
        reservation_id: the reservation's id; `RES-` and the order's number by default.

    Returns:
        The events in the order in which they happened; exactly one is an `OrderPlaced`.
    """
    reservation_id = reservation_id or reservation_id_of(order_id)
    priced = tuple(OrderLine(sku, qty, *_PRICES.get(sku, _OTHER_PRICE)) for sku, qty in lines)
    customer = f"cliente-{order_id.lower()}@example.org"
    margin = sum(each.qty * (each.unit_price - each.unit_cost) for each in priced) - _DISCOUNT
    return (
        OrderStarted(order_id, customer),
        *(LineAdded(order_id, each.sku, each.qty) for each in priced),
        *(
            LinePriceAdjusted(order_id, each.sku, each.unit_price, each.unit_cost)
            for each in priced
        ),
        CouponApplied(order_id, "MARTES", _DISCOUNT),
        RiskAssessed(order_id, 7),
        OrderPlaced(order_id, reservation_id, priced, margin, customer),
        PickingPlanned(order_id, reservation_id, priced),
        MarginReported(order_id, margin),
    )
