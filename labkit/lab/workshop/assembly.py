"""Assembly: two services of labkit, made of the functions that fill the gaps.

A function that is missing is not registered: the half-built service runs as far as it was built.
Tables are those of `labkit.shop`, by name, so that whatever reads its books reads these; names of
services and streams are the shop's too.

Guarantee: what is attacked, killed and handed over are the same functions; nothing else handles
the workshop's messages, except the release of stock, which inventory brings along.
Not guaranteed: that functions which were never attacked do what their gap asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from labkit.lab.workshop.pieces import Order, asked
from labkit.messages import Message
from labkit.outbox import Outbox
from labkit.ports import Stream, Transport
from labkit.projection import Projection
from labkit.relay import Relay
from labkit.reports import RelayReport
from labkit.roles import Role, Worker, WorkerOptions
from labkit.service import Service
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import (
    FULFILLMENT,
    INVENTORY,
    REGISTRY,
    OrderStatusChanged,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)

Function = Callable[..., Any]
Functions = Mapping[str, Function]


@dataclass(frozen=True)
class Parts:
    """The two services, and how an order is placed; without a function, nothing is placed."""

    service: Publisher
    inventario: Publisher
    place: Callable[[Session, Order], object] | None = None


class Publisher(Service):
    """A service whose events leave through the student's `publicar`.

    Args:
        name: the context's name.
        stream: its stream.
        publish: the student's function; without one, nobody publishes.
    """

    def __init__(self, name: str, stream: Stream, publish: Function | None) -> None:
        super().__init__(name, REGISTRY, stream=stream)
        self.publish = publish
        self._told: WorkerOptions = {}

    def relay(
        self, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> Relay:
        """Return labkit's own relay, told what the workers of this service were told.

        So that `service.relay(engine, transport)` goes on at once where a dead one stopped.
        """
        told: Any = {**self._told, **options}
        return super().relay(engine, transport, **told)

    def workers(
        self, role: Role, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> list[Worker]:
        """Return the workers of a role, the student's function in the place of the relay."""
        self._told = options
        found = super().workers(role, engine, transport, **options)
        others = [each for each in found if not isinstance(each, Relay)]
        if self.publish is None or len(others) == len(found):
            return others
        return [Publishing(self, self.publish, engine, transport), *others]


class Publishing(Relay):
    """The student's `publicar` as a worker."""

    def __init__(
        self, service: Service, publish: Function, engine: Engine, transport: Transport
    ) -> None:
        super().__init__(engine, service.outbox, transport.publisher(service.stream))
        self._call: Callable[[threading.Event], object] = lambda stop: publish(
            service, engine, transport, stop
        )
        self._database = engine

    def run_once(self) -> RelayReport:
        """Let the function publish until nothing waits; report how many rows it marked."""
        waiting = unpublished(self._database, self.outbox)
        if not waiting:
            return RelayReport()
        self._call(Drained(self._database, self.outbox))
        report = RelayReport(published=waiting - unpublished(self._database, self.outbox))
        self.total += report
        return report

    def run(self, stop: threading.Event) -> RelayReport:
        """Let the function publish until told to stop."""
        self._call(stop)
        return self.total


class Drained(threading.Event):
    """An event that is set as long as nothing waits in an outbox."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        super().__init__()
        self._engine, self._outbox = engine, outbox

    def is_set(self) -> bool:
        """Look into the outbox."""
        return super().is_set() or not unpublished(self._engine, self._outbox)


def unpublished(engine: Engine, outbox: Outbox) -> int:
    """Return how many rows of an outbox wait."""
    table = outbox.table
    query = select(func.count()).select_from(table).where(table.c.published_at.is_(None))
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def assemble(functions: Functions) -> Parts:
    """Make both services of what there is.

    Args:
        functions: by the names of `labkit.lab.workshop.gaps`; any may be missing.
    """
    orders = Publisher("fulfillment", FULFILLMENT, functions.get("publicar"))
    stock = Publisher("inventory", INVENTORY, functions.get("publicar"))
    _adopt(orders, fulfillment.service)
    asked.to_metadata(orders.metadata)
    _adopt(stock, inventory.service)
    _register_answers(orders, functions.get("al_contestar"), functions.get("al_recibir_rechazo"))
    if row := functions.get("fila"):
        orders.add_projection(projection_of(orders, row))
    if reserve := functions.get("al_pedir_reserva"):
        stock.on(ReserveStockRequested, source=FULFILLMENT)(reserve)
        lock = inventory.lock_stock
        stock.on(ReleaseReservationRequested, source=FULFILLMENT, lock_first=lock)(
            inventory.release
        )
    return Parts(orders, stock, functions.get("colocar"))


def projection_of(service: Service, row: Function) -> Projection:
    """Return `order_status_view` as the student's function fills it."""
    projection = Projection("order_status_view", service.metadata.tables["order_status_view"])
    projection.on(OrderStatusChanged)(row)
    return projection


def _adopt(service: Service, other: Service) -> None:
    """Give a service the tables of another that it has none of its own for."""
    for table in other.metadata.sorted_tables:
        if table.name not in service.metadata.tables:
            table.to_metadata(service.metadata)


def _register_answers(
    service: Service, answered: Function | None, rejected: Function | None
) -> None:
    """Register both answers; a rejection is noted first and made good then, in one transaction."""
    if answered is None:
        return
    note = answered

    def note_and_compensate(session: Session, message: Message[StockReservationRejected]) -> None:
        note(session, message)
        if rejected is not None:
            rejected(session, message)

    service.on(StockReserved, source=INVENTORY)(note)
    service.on(StockReservationRejected, source=INVENTORY)(note_and_compensate)
