"""Checkout: reserve stock, make the order firm, authorize the payment, confirm. A saga.

| step | kind | made good by | `order_status_view` |
|---|---|---|---|
| `reserve_stock` | compensatable | the stock is released | PENDING, PARTIALLY_RESERVED |
| `create_order` | compensatable | the firm order is called off | RESERVED |
| `authorize_payment` | pivot | voided, when nobody knows its outcome | RESERVED |
| `confirm_order` | retriable | – | CONFIRMED |

It ends REJECTED when inventory said no, CANCELLED when anything later failed, or in time nobody
answered, or the customer changed their mind. The order's id exists from the first call; what is
*created* after the reservation is the firm order. Saga id = reservation id = correlation id.

`order_status_view` follows: the saga changes orders through fulfillment's own verbs, and the
read model hears of them as of all other changes. The same case as choreography, where nobody
holds the course, is `labkit.shop.choreography`.

Guarantee: stock, firm order and payment agree when it has ended; see `labkit.saga`.
From the first call to its end the saga holds the order (`fulfillment.order_locks`): nobody cancels
it behind its back. Not guaranteed: more isolation than that. From the reservation to the end other
orders see less stock.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy.orm import Session

from labkit.messages import Registry
from labkit.saga import (
    COMPENSATABLE,
    COMPENSATED,
    PIVOT,
    RETRIABLE,
    Command,
    Local,
    Saga,
    Sagas,
    State,
    Step,
)
from labkit.service import Service
from labkit.shop import firm_orders, fulfillment
from labkit.shop.contracts import (
    FULFILLMENT,
    INVENTORY,
    Line,
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.order_book import CANCELLED
from labkit.shop.payments import (
    AuthorizePaymentRequested,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentUnavailable,
    PaymentVoided,
    VoidPaymentRequested,
)

_ANSWERS = (
    StockReserved,
    StockReservationRejected,
    ReservationReleased,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentUnavailable,
    PaymentVoided,
)
service = Service("checkout", Registry(*_ANSWERS), beside=fulfillment.service)


class Checkout(Struct, frozen=True):
    """What the saga is made from."""

    order_id: str
    reservation_id: str
    lines: tuple[Line, ...]
    amount_cents: int

    @property
    def skus(self) -> list[str]:
        """Return the articles: inventory answers each by itself."""
        return [line.sku for line in self.lines]


def _reserve(order: Checkout) -> ReserveStockRequested:
    return ReserveStockRequested(reservation_id=order.reservation_id, lines=order.lines)


def _release(order: Checkout) -> ReleaseReservationRequested:
    return ReleaseReservationRequested(reservation_id=order.reservation_id, lines=order.lines)


def _authorize(order: Checkout) -> AuthorizePaymentRequested:
    return AuthorizePaymentRequested(
        reservation_id=order.reservation_id,
        order_id=order.order_id,
        amount_cents=order.amount_cents,
    )


def _void(order: Checkout) -> VoidPaymentRequested:
    return VoidPaymentRequested(
        reservation_id=order.reservation_id,
        order_id=order.order_id,
        amount_cents=order.amount_cents,
    )


RESERVE = Command(
    _reserve,
    success=StockReserved,
    rejection=StockReservationRejected,
    source=INVENTORY,
    parts=lambda order: order.skus,
    part_of=lambda event: event.sku,
    timeout_s=30.0,
    attempts=3,
)
RELEASE = Command(_release, success=ReservationReleased, source=INVENTORY, attempts=5)
AUTHORIZE = Command(
    _authorize,
    success=PaymentAuthorized,
    rejection=PaymentDeclined,
    failure=PaymentUnavailable,
    source=FULFILLMENT,
    attempts=3,
)
VOID = Command(
    _void, success=PaymentVoided, failure=PaymentUnavailable, source=FULFILLMENT, attempts=5
)


def _make_firm(session: Session, order: Checkout) -> None:
    firm_orders.make_firm(session, order.order_id)


def _call_off(session: Session, order: Checkout) -> None:
    firm_orders.call_off(session, order.order_id)


def _confirm(session: Session, order: Checkout) -> None:
    fulfillment.confirm_order(session, order.order_id)


def _close(session: Session, state: State) -> None:
    """Say in the order how a saga ended that never came to a firm order, and let go of it."""
    if state.status is COMPENSATED:
        fulfillment.move_order(session, state.data.order_id, CANCELLED)
    fulfillment.order_locks.free(session, state.data.order_id, state.id)


CHECKOUT = Saga(
    "checkout",
    Step("reserve_stock", COMPENSATABLE, RESERVE, undo=RELEASE),
    Step("create_order", COMPENSATABLE, Local(_make_firm), undo=Local(_call_off)),
    Step("authorize_payment", PIVOT, AUTHORIZE, undo=VOID),
    Step("confirm_order", RETRIABLE, Local(_confirm)),
    data=Checkout,
    at_end=_close,
)
sagas = Sagas(service, CHECKOUT)


def check_out(
    session: Session, order_id: str, lines: Sequence[tuple[str, int]], *, amount_cents: int
) -> str:
    """Write an order and begin its saga, in your transaction.

    Args:
        session: your transaction; nothing is asked for unless it commits.
        order_id: the order's id.
        lines: article and quantity; each article once.
        amount_cents: what is paid, in cents.

    Returns:
        The reservation's id, which is the saga's.

    Raises:
        OrderError: when there are no lines, an article comes twice, or the order
            exists.
    """
    reservation_id = fulfillment.write_order(session, order_id, lines)
    fulfillment.order_locks.take(session, order_id, reservation_id)
    wire = tuple(Line(sku, qty) for sku, qty in lines)
    order = Checkout(order_id, reservation_id, wire, amount_cents)
    sagas.start(session, reservation_id, order)
    return reservation_id
