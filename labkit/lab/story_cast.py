"""The story's cast and its ledger, as data: who orders what, and what each notebook leaves behind.

Guarantee: on every row of the ledger, opening stock = available + held.
Not guaranteed: anything; this is what is written down. `labkit.lab.story` plays it through the
real services, and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from labkit.lab.bench import STOCK
from labkit.shop.order_book import (
    CANCELLED,
    CONFIRMED,
    REJECTED,
    RESERVATION_PENDING,
    RESERVED,
)

OPENING = STOCK


class Part(NamedTuple):
    """An order of the story: its lines, and what it is there for."""

    lines: tuple[tuple[str, int], ...]
    role: str


CAST: Mapping[str, Part] = {
    "ORD-1": Part((("BOOK-DDD", 2),), "el camino feliz"),
    "ORD-2": Part((("BOOK-DDD", 1), ("BOOK-EDA", 1)), "dos respuestas, un correlationId"),
    "ORD-3": Part((("BOOK-HEX", 1), ("BOOK-EDA", 9)), "media reserva"),
    "ORD-4": Part((("BOOK-HEX", 2),), "el evento perdido"),
    "ORD-5": Part((("BOOK-DDD", 1),), "el inventado: evento sin pedido"),
    "ORD-6": Part((("BOOK-DDD", 1),), "pago rechazado, liberación que falla tres veces"),
    "ORD-7": Part((("BOOK-HEX", 1),), "compensación imposible, decide una persona"),
    "ORD-8": Part((("BOOK-EDA", 3),), "la saga completa"),
    "ORD-9": Part((("BOOK-EDA", 1),), "se lleva la última unidad"),
    "ORD-10": Part((("BOOK-EDA", 1),), "llega tarde a la última unidad"),
    "ORD-11": Part((("BOOK-DDD", 1),), "respuesta tardía tras el plazo"),
    "ORD-17": Part((("BOOK-DDD", 1),), "¿dónde está?"),
    "ORD-18": Part((("BOOK-DDD", 2),), "mensaje envenenado"),
}


@dataclass(frozen=True)
class Books:
    """What both services' books say at one moment.

    Args:
        orders: order to status.
        stock: article to available and held.
        holders: reservation to what it holds, by article.
        unpublished: reservations whose messages are committed and have not left.
        unhandled: reservations whose messages have left and were not handled.
        held: reservations whose messages failed and will be tried again, or wait behind one.
        dead: reservations whose messages are dead letters.
        sent: how many messages of each type were written, status changes aside.
    """

    orders: Mapping[str, str] = field(default_factory=dict)
    stock: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    holders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unpublished: tuple[str, ...] = ()
    unhandled: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    sent: Mapping[str, int] = field(default_factory=dict)


def _stock(ddd: int, hex_: int, eda: int) -> dict[str, tuple[int, int]]:
    """Return what is available and, since nothing is ever sold, what must be held."""
    left = {"BOOK-DDD": ddd, "BOOK-HEX": hex_, "BOOK-EDA": eda}
    return {sku: (left[sku], OPENING[sku] - left[sku]) for sku in OPENING}


def _sent(requests: int, releases: int, reserved: int, rejected: int) -> dict[str, int]:
    counts = {
        "ReserveStockRequested": requests,
        "ReleaseReservationRequested": releases,
        "StockReserved": reserved,
        "StockReservationRejected": rejected,
        # Every release is answered, whether or not there was something to give back.
        "ReservationReleased": releases,
    }
    return {name: count for name, count in counts.items() if count}


_WRITTEN = {f"ORD-{n}": RESERVATION_PENDING for n in (1, 2, 3)}
_TRAVELLED = {"ORD-1": RESERVED, "ORD-2": RESERVED, "ORD-3": REJECTED, "ORD-4": RESERVED}
_PAID = _TRAVELLED | {
    "ORD-6": CANCELLED,
    "ORD-7": CANCELLED,
    "ORD-8": CONFIRMED,
    "ORD-9": CONFIRMED,
    "ORD-10": REJECTED,
    "ORD-11": CANCELLED,
    "ORD-17": RESERVATION_PENDING,
}
_KEPT = {
    "RES-1": {"BOOK-DDD": 2},
    "RES-2": {"BOOK-DDD": 1, "BOOK-EDA": 1},
    "RES-4": {"BOOK-HEX": 2},
}
_KEPT_AND_PAID = _KEPT | {"RES-8": {"BOOK-EDA": 3}, "RES-9": {"BOOK-EDA": 1}}

# What each notebook leaves behind; "00" is the session before.
LEDGER: Mapping[str, Books] = {
    "00": Books(stock=_stock(25, 10, 5)),
    "01": Books(
        orders=_WRITTEN,
        stock=_stock(25, 10, 5),
        unpublished=("RES-1", "RES-2", "RES-3"),
        sent=_sent(3, 0, 0, 0),
    ),
    "02": Books(
        orders=_TRAVELLED,
        stock=_stock(22, 7, 4),
        holders=_KEPT | {"RES-3": {"BOOK-HEX": 1}},
        sent=_sent(4, 0, 5, 1),
    ),
    "03": Books(
        orders=_PAID,
        stock=_stock(22, 8, 0),
        holders=_KEPT_AND_PAID,
        unhandled=("RES-17",),
        sent=_sent(11, 4, 10, 2),
    ),
    "04": Books(
        orders=_PAID | {"ORD-17": RESERVED, "ORD-18": RESERVED},
        stock=_stock(19, 8, 0),
        holders=_KEPT_AND_PAID | {"RES-17": {"BOOK-DDD": 1}, "RES-18": {"BOOK-DDD": 2}},
        sent=_sent(12, 4, 12, 2),
    ),
    "05": Books(
        orders=_TRAVELLED,
        stock=_stock(22, 8, 4),
        holders=_KEPT,
        sent=_sent(4, 1, 5, 1),
    ),
}

QUESTIONS: Mapping[str, str] = {
    "00": "¿y cómo se entera el otro servicio?",
    "01": "están escritos, ¿quién los envía?",
    "02": "ORD-3 está rechazado y retiene una unidad: ¿quién la devuelve?",
    "03": "el inventario no contesta: ¿y ahora?",
    "04": "¿sabrías montarlo tú?",
    "05": "los mismos mensajes, ¿por otro transporte?",
}
