"""Backorder: what is missing in warehouse A is looked for in B; a part is offered to the customer.

    begin → at A ─ all there ──────────────→ WHOLE
              └ missing, or silent → at B ─ all there → WHOLE
                                       ├ a part → offered ─ accepts ──────────→ ACCEPTED
                                       │                  ├ declines ─────────→ DECLINED
                                       │                  └ silent for 24 h ──→ EXPIRED
                                       └ nothing ────────────────────────────→ OUT_OF_STOCK

The course depends on the answers, so this is a process manager and no saga. Its id is the
reservation's. What is given up is released at once, also at a warehouse that has not answered:
a release is never overtaken by its request (one key), so a late yes holds nothing any more.

Guarantee: at the end the warehouses hold what the result says, as soon as they have handled what
they were sent: all lines (WHOLE), the lines of the offer (ACCEPTED), or none.
Not guaranteed: that a silent warehouse was right to be silent; its stock is simply not used.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from labkit.messages import Event, Registry
from labkit.ports import Stream
from labkit.process_manager import Next, Process, ProcessManager
from labkit.service import Service
from labkit.shop.contracts import (
    INVENTORY,
    Id,
    Line,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)

BACKORDERS = Stream("backorders.events")
WAREHOUSE_A = Stream("warehouse-a.events", INVENTORY.partitions)
WAREHOUSE_B = Stream("warehouse-b.events", INVENTORY.partitions)

AT_A, AT_B, OFFERED = "at_a", "at_b", "offered"
WHOLE, ACCEPTED, DECLINED = "WHOLE", "ACCEPTED", "DECLINED"
EXPIRED, OUT_OF_STOCK = "EXPIRED", "OUT_OF_STOCK"

WAREHOUSE_S = 600.0
CUSTOMER_S = 24 * 3600.0

Warehouse = Literal["A", "B"]


class WarehouseStockRequested(ReserveStockRequested, frozen=True):
    """As its parent, to one of the warehouses."""

    topic: ClassVar[str] = "backorders.warehouse-stock-requested.v1"

    warehouse: Warehouse


class WarehouseReleaseRequested(ReleaseReservationRequested, frozen=True):
    """As its parent, to one of the warehouses."""

    topic: ClassVar[str] = "backorders.warehouse-release-requested.v1"

    warehouse: Warehouse


class PartialOffered(Event, frozen=True):
    """The customer can have these lines, and has a day to say so."""

    topic: ClassVar[str] = "backorders.partial-offered.v1"

    reservation_id: Id
    lines: tuple[Line, ...]


class OfferAnswered(Event, frozen=True):
    """The customer accepts or declines; its key is the reservation's id."""

    topic: ClassVar[str] = "backorders.offer-answered.v1"

    reservation_id: Id
    accepts: bool


class BackorderEnded(Event, frozen=True):
    """What became of it, and which lines are held."""

    topic: ClassVar[str] = "backorders.backorder-ended.v1"

    reservation_id: Id
    result: str
    lines: tuple[Line, ...]


REGISTRY = Registry(
    WarehouseStockRequested,
    WarehouseReleaseRequested,
    PartialOffered,
    OfferAnswered,
    BackorderEnded,
    StockReserved,
    StockReservationRejected,
)
service = Service("backorders", REGISTRY, stream=BACKORDERS)


class Backorder(Struct, frozen=True):
    """What it remembers.

    Args:
        lines: what the customer wants, each article once.
        held: article to the warehouse that holds it.
        refused: articles that the warehouse in question has not.
    """

    lines: tuple[Line, ...]
    held: dict[str, Warehouse] = {}
    refused: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[Line, ...]:
        """Return the lines that some warehouse holds."""
        return tuple(line for line in self.lines if line.sku in self.held)

    @property
    def missing(self) -> tuple[Line, ...]:
        """Return the lines that no warehouse holds."""
        return tuple(line for line in self.lines if line.sku not in self.held)

    @property
    def unanswered(self) -> set[str]:
        """Return the articles about which the warehouse in question has said nothing."""
        return {line.sku for line in self.missing} - {*self.refused}

    def at(self, warehouse: Warehouse) -> tuple[Line, ...]:
        """Return the lines that a warehouse holds."""
        return tuple(line for line in self.kept if self.held[line.sku] == warehouse)


Backordered = Process[Backorder]
manager = ProcessManager("backorder", service, data=Backorder)
_ASKED: dict[str, Warehouse] = {AT_A: "A", AT_B: "B"}


@manager.on_start
def begin(process: Backordered) -> Next:
    """Ask warehouse A for all of it."""
    return _ask(process, process.data, AT_A)


@manager.on(StockReserved, source=WAREHOUSE_A, when=[AT_A])
@manager.on(StockReserved, source=WAREHOUSE_B, when=[AT_B])
def reserved(process: Backordered, event: StockReserved) -> Next | None:
    """Take a line from the warehouse in question; what is known already is ignored."""
    data = process.data
    if event.sku not in data.unanswered:
        return None
    return _answered(process, replace(data, held=data.held | {event.sku: _ASKED[process.state]}))


@manager.on(StockReservationRejected, source=WAREHOUSE_A, when=[AT_A])
@manager.on(StockReservationRejected, source=WAREHOUSE_B, when=[AT_B])
def rejected(process: Backordered, event: StockReservationRejected) -> Next | None:
    """Note what the warehouse in question has not."""
    data = process.data
    if event.sku not in data.unanswered:
        return None
    return _answered(process, replace(data, refused=(*data.refused, event.sku)))


@manager.on_deadline("warehouse", when=[AT_A, AT_B])
def warehouse_is_silent(process: Backordered) -> Next:
    """Do without the warehouse in question, and give back whatever it set aside."""
    data, silent = process.data, _ASKED[process.state]
    asked = tuple(line for line in data.lines if data.held.get(line.sku, silent) == silent)
    left = {sku: at for sku, at in data.held.items() if at != silent}
    return _look_further(process, replace(data, held=left), _release(process, silent, asked))


@manager.on(OfferAnswered, source=BACKORDERS, when=[OFFERED])
def customer_answered(process: Backordered, event: OfferAnswered) -> Next:
    """Keep the part, or give it back."""
    return _end(process, process.data, ACCEPTED) if event.accepts else _give_up(process, DECLINED)


@manager.on_deadline("customer", when=[OFFERED])
def customer_is_silent(process: Backordered) -> Next:
    """Give the part back."""
    return _give_up(process, EXPIRED)


def _ask(process: Backordered, data: Backorder, state: str, *given_up: Event) -> Next:
    """Ask the warehouse of a state for what is missing."""
    request = WarehouseStockRequested(
        reservation_id=process.id, lines=data.missing, warehouse=_ASKED[state]
    )
    return Next(
        state=state,
        data=replace(data, refused=()),
        send=[*given_up, request],
        deadlines={"warehouse": WAREHOUSE_S},
    )


def _answered(process: Backordered, data: Backorder) -> Next:
    if data.unanswered:
        return Next(data=data)
    return _look_further(process, data) if data.missing else _end(process, data, WHOLE)


def _look_further(process: Backordered, data: Backorder, *given_up: Event) -> Next:
    """Ask warehouse B after A; after B offer what there is."""
    if process.state == AT_A:
        return _ask(process, data, AT_B, *given_up)
    if not data.held:
        return _end(process, data, OUT_OF_STOCK, *given_up)
    return Next(
        state=OFFERED,
        data=data,
        send=[*given_up, PartialOffered(reservation_id=process.id, lines=data.kept)],
        deadlines={"customer": CUSTOMER_S},
        forget=["warehouse"],
    )


def _give_up(process: Backordered, result: str) -> Next:
    data = process.data
    releases = [_release(process, each, data.at(each)) for each in sorted({*data.held.values()})]
    return _end(process, replace(data, held={}), result, *releases)


def _end(process: Backordered, data: Backorder, result: str, *given_up: Event) -> Next:
    ended = BackorderEnded(reservation_id=process.id, result=result, lines=data.kept)
    return Next(end=result, data=data, send=[*given_up, ended])


def _release(process: Backordered, warehouse: Warehouse, lines: tuple[Line, ...]) -> Event:
    return WarehouseReleaseRequested(reservation_id=process.id, lines=lines, warehouse=warehouse)
