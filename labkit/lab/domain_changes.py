"""What an internal change breaks: the domain event itself on the wire, or its translation.

Each change is a class that fulfillment might have tomorrow. Inventory stays as it is today: it
reads with the registry that its consumer reads with.

Guarantee: "breaks" means that inventory's own reading, or a rule, raised just now.
Not guaranteed: changes of meaning under the same name; no reader notices those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from labkit.errors import PermanentError
from labkit.lab.story_cast import CAST
from labkit.messages import Event
from labkit.shop import inventory
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.shop.domain_events import OrderLine, OrderPlaced, history_of
from labkit.translation import Translator
from labkit.wire import Envelope, WireEvent

NOBODY = "nadie"
READER = inventory.service.name
_AGREED = {"reservationId", "lines", "sku", "qty"}


@dataclass(frozen=True)
class Renamed:
    """OrderPlaced, after somebody called the reservation a booking."""

    booking_id: str
    lines: tuple[OrderLine, ...]


@dataclass(frozen=True)
class Regrouped:
    """OrderPlaced, after somebody found that quantities by article are easier to add up."""

    reservation_id: str
    lines: dict[str, int]


@dataclass(frozen=True)
class Scored:
    """OrderPlaced, after somebody added what we think of the customer."""

    reservation_id: str
    lines: tuple[OrderLine, ...]
    risk_score: int


class Change(NamedTuple):
    """A change inside fulfillment: tomorrow's event, and the rule that goes with it."""

    said: str
    event: object
    rule: Callable[[Any], Event | None]


def ask_for_stock(order: OrderPlaced) -> ReserveStockRequested:
    """Today's rule: of an order, inventory needs its reservation, articles and quantities."""
    lines = tuple(Line(line.sku, line.qty) for line in order.lines)
    return ReserveStockRequested(reservation_id=order.reservation_id, lines=lines)


def renamed(order: Renamed) -> ReserveStockRequested:
    """Tomorrow's rule: the booking is the reservation."""
    lines = tuple(Line(line.sku, line.qty) for line in order.lines)
    return ReserveStockRequested(reservation_id=order.booking_id, lines=lines)


def regrouped(order: Regrouped) -> ReserveStockRequested:
    """Tomorrow's rule: each article is a line."""
    lines = tuple(Line(sku, qty) for sku, qty in order.lines.items())
    return ReserveStockRequested(reservation_id=order.reservation_id, lines=lines)


def changes() -> list[Change]:
    """Return three changes of the event that places ORD-2."""
    history = history_of("ORD-2", CAST["ORD-2"].lines)
    [placed] = [event for event in history if isinstance(event, OrderPlaced)]
    reservation_id, lines = placed.reservation_id, placed.lines
    quantities = {line.sku: line.qty for line in lines}
    return [
        Change("reservation_id → booking_id", Renamed(reservation_id, lines), renamed),
        Change("lines: lista → por artículo", Regrouped(reservation_id, quantities), regrouped),
        Change("campo nuevo: risk_score", Scored(reservation_id, lines, 7), ask_for_stock),
    ]


def who_breaks() -> pd.DataFrame:
    """Make each change, publish the domain event and its translation, and let inventory read."""
    rows = [
        {
            "cambio en el dominio": change.said,
            "publicar: se rompe": broken_by(as_it_is(change.event)),
            "publicar: se ve fuera": ", ".join(leaked(as_it_is(change.event))) or None,
            "traducir: se rompe": broken_by(translated(change)),
            "traducir: cambia": "su regla" if change.rule is not ask_for_stock else "nada",
        }
        for change in changes()
    ]
    return pd.DataFrame(rows)


def as_it_is(event: Any) -> bytes:
    """Return what travels when the object itself is published: every field, in camel case."""
    return msgspec.json.encode(_in_camel_case(asdict(event)))


def translated(change: Change) -> bytes:
    """Return what travels when a change is translated by its rule."""
    translator = Translator("fulfillment")
    translator.on(type(change.event))(change.rule)
    return msgspec.json.encode(translator.translate(change.event))


def broken_by(payload: bytes) -> str:
    """Let inventory read a payload as a request for stock; say who cannot go on.

    Args:
        payload: what travels.
    """
    wire = WireEvent(type=ReserveStockRequested.event_type, version=1, payload=msgspec.Raw(payload))
    try:
        inventory.service.registry.decode(Envelope(message_id="RES-2", event=wire))
    except PermanentError:
        return READER
    return NOBODY


def leaked(payload: bytes) -> list[str]:
    """Return the fields that travel, those of the lines too, without standing in the contract.

    Args:
        payload: what travels.
    """
    order = msgspec.json.decode(payload)
    lines = order["lines"] if isinstance(order["lines"], list) else []
    names = [name for fields in (order, *lines) for name in fields]
    return [name for name in dict.fromkeys(names) if name not in _AGREED]


def _in_camel_case(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_in_camel_case(each) for each in value]
    if isinstance(value, dict):
        return {_camel(name): _in_camel_case(each) for name, each in value.items()}
    return value


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)
