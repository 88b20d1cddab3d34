"""Counting: what of a flow at rest was lost, doubled, out of order or stuck.

Guarantee: each number is that of messages or orders with a counter-example in the books of both
databases and both streams; `told` is the first one.
Not guaranteed: anything about a flow that still moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import text

from labkit.lab.workshop.shop import Workshop
from labkit.shop.contracts import ReleaseReservationRequested, ReserveStockRequested
from labkit.testing import auditor
from labkit.testing.audit import audit
from labkit.testing.findings import Kind
from labkit.testing.ledgers import books_of

_ANSWERS = """
    select body::json #>> '{event,payload,reservationId}' as reservation_id,
           body::json #>> '{event,payload,sku}' as sku
    from outbox_messages where topic like 'inventory.stock-%'
"""
_WORDS: Mapping[Kind, str] = {
    "lost": "perdido",
    "phantom": "inventado",
    "doubled": "repetido",
    "reordered": "desordenado",
}
_STUCK = """
    select o.order_id from orders o left join order_status_view v using (order_id)
    where o.status not in ('RESERVED', 'REJECTED')
       or (v.status, v.version) is distinct from (o.status, o.version)
       or exists (select from order_lines l where l.order_id = o.order_id and l.result is null)
    order by 1
"""


_OPEN = text("""
    with waiting as (select count(distinct order_id) as n from order_lines where result is null)
    select (select count(*) from orders) - n as settled,
           n + (select count(*) from outbox_messages where published_at is null)
             + (select count(*) from orders o left join order_status_view v using (order_id)
                where v.version is distinct from o.version) as moving,
           (select count(*) from outbox_messages where topic = any(:topics)) as asked
    from waiting
""")
_HEARD = text("""
    select (select count(*) from outbox_messages where published_at is null) as moving,
           (select count(*) from inbox_messages where consumer = 'inventory') as heard
""")
_ASKING = [ReserveStockRequested.topic, ReleaseReservationRequested.topic]


class Standing(NamedTuple):
    """How far a flow is: orders with all their answers, and how much is under way."""

    settled: int
    moving: int


def standing(bench: Workshop) -> Standing:
    """Look how far a flow is, with two short queries: it is asked many times a second."""
    with bench.orders.connect() as orders, bench.stock.connect() as stock:
        own = orders.execute(_OPEN, {"topics": _ASKING}).one()
        other = stock.execute(_HEARD).one()
    unheard = abs(own.asked - other.heard)
    return Standing(int(own.settled), int(own.moving + other.moving + unheard))


class Count(NamedTuple):
    """What was found; `told` is the first counter-example of all."""

    lost: int
    doubled: int
    reordered: int
    stuck: int
    told: str | None

    @property
    def wrong(self) -> bool:
        """Say whether there is anything to tell."""
        return self.told is not None


def count(bench: Workshop, opening: Mapping[str, int]) -> Count:
    """Read all books.

    Args:
        bench: whose.
        opening: the stock before the first order.
    """
    sides = ((bench.parts.service, bench.orders), (bench.parts.inventario, bench.stock))
    books = [books_of(service, engine) for service, engine in sides]
    found = auditor.audit(
        [sent for sent, _ in books], [each for _, all_ in books for each in all_], bench.transport
    )
    answers = Counter(bench.table(bench.stock, _ANSWERS).itertuples(index=False, name=None))
    twice = [line for line, times in answers.items() if times > 1]
    stuck = bench.table(bench.orders, _STUCK)["order_id"].tolist()
    broken = audit(bench.orders, bench.stock, bench.transport, opening)
    told = [f"{_WORDS[each.kind]}: {each.message_id} ({each.where})" for each in found.all]
    told += [f"repetido: {' '.join(map(str, line))} tiene dos respuestas" for line in twice]
    told += [f"atascado: {order}" for order in stuck]
    told += [f"no cuadra: {each}" for each in broken.values() if each]
    return Count(
        lost=found.count("lost"),
        doubled=found.count("doubled") + len(twice),
        reordered=found.count("reordered"),
        stuck=len(stuck),
        told=told[0] if told else None,
    )
