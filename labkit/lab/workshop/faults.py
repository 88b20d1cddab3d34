"""The three faults of yesterday's pull request, looked for in the workshop's own books.

Guarantee: a fault counts as closed when its harm is looked for and not there: an order without its
message (F1), a message that was noted and has no effect (F2), a "no" that inventory never gave
while its database was away (F3, run once more).
"""

from __future__ import annotations

import json
from typing import Any

from labkit.lab.workshop import falling
from labkit.lab.workshop.shop import Workshop

_REQUESTS = """
    select message_id, body::json->'event'->'payload' as payload from outbox_messages
    where topic = 'fulfillment.reserve-stock-requested.v1'
"""
_NOTED = "select message_id from inbox_messages where consumer = 'inventory'"
_DECIDED = "select reservation_id, sku from reservation_lines"


def closed(shop: Workshop) -> set[str]:
    """Return the faults that are closed.

    Args:
        shop: the workshop's, after the story's orders.
    """
    answers = {"F1": _none_lost(shop), "F2": _none_without_effect(shop), "F3": _no_false_no(shop)}
    return {name for name, holds in answers.items() if holds}


def _none_lost(shop: Workshop) -> bool:
    orders = len(shop.table(shop.orders, "select 1 from orders"))
    waiting = len(shop.ficha().books.unpublished)
    return orders > 0 and not shop.without_event() and not waiting


def _none_without_effect(shop: Workshop) -> bool:
    noted = set(shop.table(shop.stock, _NOTED)["message_id"])
    decided = set(shop.table(shop.stock, _DECIDED).itertuples(index=False, name=None))
    asked = [
        (payload["reservationId"], line["sku"])
        for row in shop.table(shop.orders, _REQUESTS).itertuples()
        for payload in [_read(row.payload)]
        for line in payload["lines"]
        if row.message_id in noted
    ]
    return bool(asked) and decided.issuperset(asked)


def _read(payload: Any) -> Any:
    """Return a payload, whether or not the driver has read the JSON."""
    return json.loads(payload) if isinstance(payload, str) else payload


def _no_false_no(shop: Workshop) -> bool:
    if "al_pedir_reserva" not in shop.functions:
        return False
    function = shop.functions["al_pedir_reserva"]
    said = falling.answers(function, "hueco 4", shop.servers)
    mine = said[said["código"] == "hueco 4"]
    return not mine.apply(lambda row: row.str.contains("Rejected").any(), axis="columns").any()
