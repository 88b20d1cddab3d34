"""ERP: a legacy system's orders, behind an anti-corruption layer.

Its documents say what we need in a language of another age: `ART_NR` with leading zeros,
quantities and cents as text, positions that name an article twice, and many fields that are
nobody's business here. This module alone knows that language; what comes out is ours.

Guarantee: a document becomes an order in our words, or it is refused whole with the field and
the reason. Fields that we do not need are not looked at, so they may change.
Not guaranteed: that the ERP is right. What it says in good form is taken as said.

Crash windows: none; nothing is stored.

Pattern: Evans, *Domain-Driven Design*: "Anticorruption Layer"; Khononov, *Learning Domain-Driven
Design*, ch. 9; Hohpe and Woolf: "Message Translator", "Content Filter".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from labkit.errors import PermanentError
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.shop.order_book import reservation_id_of

# Whose number is whose: without this table, the ERP's numbers would spread through our code.
ARTICLES: Mapping[str, str] = {"100": "BOOK-DDD", "200": "BOOK-HEX", "300": "BOOK-EDA"}
ORDER_KIND = "TA"
MAX_QUANTITY = 1_000_000
_DIGITS = re.compile(r"[0-9]{1,18}")
# The ERP writes three decimals. Why not a point: its 1.000 is a thousand, ours is one.
_WHOLE = re.compile(r"([0-9]{1,9})(?:,0{1,3})?")


class ErpDocumentError(PermanentError):
    """A document that cannot become an order: which `field`, and for what `reason`."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class OrderedLine(Struct, frozen=True):
    """So many of one article, for so many cents in all."""

    sku: str
    qty: int
    cents: int


class CustomerOrder(Struct, frozen=True):
    """An order as we speak of it: each article once."""

    order_id: str
    lines: tuple[OrderedLine, ...]


def order_of(document: Any) -> CustomerOrder | None:
    """Translate a document of the ERP.

    Args:
        document: as its JSON was read.

    Returns:
        The order, or None when it is a document of another kind, such as an offer.

    Raises:
        ErpDocumentError: when a field that we need is missing or cannot be what it says.
    """
    fields = _record(document, "document")
    if _text(fields, "BELEGART", "") != ORDER_KIND:
        return None
    if (currency := _text(fields, "WAEHRUNG", "")) != "EUR":
        raise ErpDocumentError("WAEHRUNG", f"{currency!r:.40} is not EUR")
    order_id = f"ORD-{_number(fields, 'BELEGNR', '')}"
    lines: dict[str, OrderedLine] = {}
    for line in _positions(fields):
        before = lines.get(line.sku, OrderedLine(line.sku, 0, 0))
        together = OrderedLine(line.sku, before.qty + line.qty, before.cents + line.cents)
        if together.qty > MAX_QUANTITY:
            raise ErpDocumentError("POSITIONEN", f"more than {MAX_QUANTITY} of {line.sku}")
        lines[line.sku] = together
    return CustomerOrder(order_id, tuple(lines.values()))


def request_of(order: CustomerOrder) -> ReserveStockRequested:
    """Return what inventory is asked for: no prices, they are none of its business."""
    wanted = tuple(Line(line.sku, line.qty) for line in order.lines)
    return ReserveStockRequested(reservation_id=reservation_id_of(order.order_id), lines=wanted)


def _positions(fields: Mapping[str, Any]) -> Iterator[OrderedLine]:
    positions = fields.get("POSITIONEN")
    if not isinstance(positions, list) or not positions:
        raise ErpDocumentError("POSITIONEN", "an order has one position or more")
    for index, position in enumerate(positions):
        at = f"POSITIONEN[{index}]"
        record, within = _record(position, at), f"{at}."
        qty = _quantity(record, within)
        cents = int(_digits(record, "PREIS_CT", within))
        yield OrderedLine(_sku(record, within), qty, qty * cents)


def _sku(record: Mapping[str, Any], within: str) -> str:
    number = _number(record, "ART_NR", within)
    if number not in ARTICLES:
        raise ErpDocumentError(f"{within}ART_NR", f"{number} is no article of ours")
    return ARTICLES[number]


def _quantity(record: Mapping[str, Any], within: str) -> int:
    text = _text(record, "MENGE", within)
    read = _WHOLE.fullmatch(text)
    if read is None or not 1 <= int(read[1]) <= MAX_QUANTITY:
        raise ErpDocumentError(f"{within}MENGE", f"{text!r:.40} is no whole number of pieces")
    return int(read[1])


def _number(record: Mapping[str, Any], name: str, within: str) -> str:
    """Return a number of a document or an article without its leading zeros."""
    return _digits(record, name, within).lstrip("0") or "0"


def _digits(record: Mapping[str, Any], name: str, within: str) -> str:
    text = _text(record, name, within)
    if _DIGITS.fullmatch(text) is None:
        raise ErpDocumentError(f"{within}{name}", f"{text!r:.40} is not made of digits")
    return text


def _text(record: Mapping[str, Any], name: str, within: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        said = "is missing" if value is None else f"{value!r:.40} is no text"
        raise ErpDocumentError(f"{within}{name}", said)
    return value.strip()


def _record(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ErpDocumentError(field, f"{value!r:.40} is no record")
    return value
