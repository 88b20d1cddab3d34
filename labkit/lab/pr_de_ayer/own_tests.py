"""The tests that the pull request came with: they run, and they pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Engine, func, select

from labkit.lab.pr_de_ayer.code import attend, handle_reservation, place_order
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT, INVENTORY
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope


class Shop(Protocol):
    """What a test needs: both databases and the streams."""

    @property
    def orders(self) -> Engine:
        """Return the orders' database."""

    @property
    def stock(self) -> Engine:
        """Return the stock's database."""

    @property
    def transport(self) -> RedisStreams:
        """Return the streams."""


class Lender(Protocol):
    """Whoever lends a shop for a test, such as a story."""

    def scratch(self) -> AbstractContextManager[Shop]:
        """Lend a shop with the opening stock."""


def el_pedido_queda_guardado(shop: Shop) -> None:
    """The order is in its table."""
    place_order(shop.orders, shop.transport, "ORD-901", [("BOOK-DDD", 2)])
    assert _one(shop.orders, select(fulfillment.orders.c.order_id)) == "ORD-901"


def el_inventario_retiene_las_unidades(shop: Shop) -> None:
    """Two of 25 are set aside, and inventory says yes."""
    place_order(shop.orders, shop.transport, "ORD-902", [("BOOK-DDD", 2)])
    attend(shop.stock, shop.transport)
    held = select(inventory.stock.c.held).where(inventory.stock.c.sku == "BOOK-DDD")
    assert (_one(shop.stock, held), _answers(shop)) == (2, ["StockReserved"])


def sin_stock_se_rechaza(shop: Shop) -> None:
    """Nine of five cannot be had, and inventory says no."""
    place_order(shop.orders, shop.transport, "ORD-903", [("BOOK-EDA", 9)])
    attend(shop.stock, shop.transport)
    assert _answers(shop) == ["StockReservationRejected"]


def un_mensaje_repetido_no_retiene_dos_veces(shop: Shop) -> None:
    """The same message twice holds two pieces, not four."""
    place_order(shop.orders, shop.transport, "ORD-904", [("BOOK-DDD", 2)])
    for body in _bodies(shop, FULFILLMENT) * 2:
        handle_reservation(shop.stock, shop.transport, body)
    assert _one(shop.stock, select(func.sum(inventory.stock.c.held))) == 2  # noqa: PLR2004


TESTS: tuple[Callable[[Shop], None], ...] = (
    el_pedido_queda_guardado,
    el_inventario_retiene_las_unidades,
    sin_stock_se_rechaza,
    un_mensaje_repetido_no_retiene_dos_veces,
)


class Row(NamedTuple):
    """One test, and whether it passed."""

    name: str
    passed: bool


class Results(list[Row]):
    """What the tests said; a table in a notebook."""

    def __repr__(self) -> str:
        return "\n".join(f"{_sign(row)} · {row.name}" for row in self)

    def _repr_markdown_(self) -> str:
        rows = [f"| {row.name} | {_sign(row)} |" for row in self]
        return "\n".join(["| test de la PR | resultado |", "|---|---|", *rows])


def run_tests(historia: Lender) -> Results:
    """Run the pull request's tests, each on a shop of its own, and say how they went.

    Args:
        historia: a story or bench; its books stay as they are.
    """
    return Results(Row(test.__name__.replace("_", " "), _passes(test, historia)) for test in TESTS)


def _passes(test: Callable[[Shop], None], historia: Lender) -> bool:
    with historia.scratch() as shop:
        try:
            test(shop)
        except AssertionError:
            return False
    return True


def _sign(row: Row) -> str:
    return "verde" if row.passed else "rojo"


def _one(engine: Engine, query: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(query).scalar_one()


def _answers(shop: Shop) -> list[str]:
    return [decode_envelope(body).event.type for body in _bodies(shop, INVENTORY)]


def _bodies(shop: Shop, stream: Any) -> list[bytes]:
    log = shop.transport.log(stream)
    partitions = range(stream.partitions)
    found = [entry for p in partitions for entry in log.entries(p, after="0", count=100)]
    return [entry.body for entry in found if entry.body]
