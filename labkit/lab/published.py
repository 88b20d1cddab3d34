"""Of what happens inside an order, what leaves: the private events of the story, translated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from labkit.lab.bench import Bench
from labkit.lab.domain_changes import ask_for_stock
from labkit.lab.spanish import number
from labkit.lab.story_cast import CAST
from labkit.messages import Event
from labkit.shop import fulfillment
from labkit.shop.contracts import REGISTRY, ReserveStockRequested
from labkit.shop.domain_events import DomainEvent, OrderPlaced, history_of
from labkit.translation import Translator
from labkit.wire import decode_envelope

STAY, LEAVE = "privados", "públicos"

to_public = Translator("fulfillment")
to_public.on(OrderPlaced)(ask_for_stock)


def private_and_public(order_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count what happens inside each order, by whether anybody outside is told.

    Args:
        order_ids: of the story.
    """
    counts = {}
    for order_id in order_ids:
        told = len(public_of([order_id]))
        counts[order_id] = {STAY: len(_private(order_id)) - told, LEAVE: told}
    return counts


def public_of(order_ids: Sequence[str]) -> list[Event]:
    """Translate what happens inside some orders.

    Args:
        order_ids: of the story.
    """
    return [
        public for order_id in order_ids for public in to_public.translate_all(_private(order_id))
    ]


def written(bench: Bench) -> list[Event]:
    """Return the requests for stock that wait in the outbox, oldest first.

    Args:
        bench: whose orders.
    """
    table = fulfillment.service.outbox.table
    mine = select(table.c.body).where(table.c.topic == ReserveStockRequested.topic)
    with bench.orders.connect() as connection:
        bodies = connection.execute(mine.order_by(table.c.seq)).scalars().all()
    return [REGISTRY.decode(decode_envelope(body)) for body in bodies]


def reading(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Read how many events there were, and how many of them leave.

    Args:
        counts: from `private_and_public`.
    """
    inside = sum(sum(row.values()) for row in counts.values())
    told = sum(row[LEAVE] for row in counts.values())
    each = ", ".join(f"{number(row[LEAVE])} de {order_id}" for order_id, row in counts.items())
    return (
        f"De {number(inside)} eventos de dominio de {number(len(counts))} pedidos salen "
        f"{number(told)}: {each}."
    )


def _private(order_id: str) -> tuple[DomainEvent, ...]:
    return history_of(order_id, CAST[order_id].lines)
