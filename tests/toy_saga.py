"""A saga of four steps for tests: two compensatable ones, the pivot, a retriable one."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct
from sqlalchemy.orm import Session

from labkit.messages import Event
from labkit.ports import Stream
from labkit.saga import COMPENSATABLE, PIVOT, RETRIABLE, Command, Local, Saga, Step

PEERS = Stream("peers.events", partitions=2)


class Toy(Struct, frozen=True):
    """What the saga is made from."""

    order: str
    lines: tuple[str, ...] = ("A",)


class Reserve(Event, frozen=True):
    topic: ClassVar[str] = "toy.reserve"
    order: str


class Release(Event, frozen=True):
    topic: ClassVar[str] = "toy.release"
    order: str


class Reserved(Event, frozen=True):
    topic: ClassVar[str] = "toy.reserved"
    line: str = "A"


class OutOfStock(Event, frozen=True):
    topic: ClassVar[str] = "toy.out-of-stock"
    line: str = "A"
    reason: str = "OUT_OF_STOCK"


class Released(Event, frozen=True):
    topic: ClassVar[str] = "toy.released"


class Pay(Event, frozen=True):
    topic: ClassVar[str] = "toy.pay"
    order: str


class Paid(Event, frozen=True):
    topic: ClassVar[str] = "toy.paid"


class Declined(Event, frozen=True):
    topic: ClassVar[str] = "toy.declined"
    reason: str = "NO_FUNDS"


class BankAway(Event, frozen=True):
    topic: ClassVar[str] = "toy.bank-away"
    reason: str = "maintenance"


class VoidPayment(Event, frozen=True):
    topic: ClassVar[str] = "toy.void"
    order: str


class Voided(Event, frozen=True):
    topic: ClassVar[str] = "toy.voided"


class Ship(Event, frozen=True):
    topic: ClassVar[str] = "toy.ship"
    order: str


class Shipped(Event, frozen=True):
    topic: ClassVar[str] = "toy.shipped"


class CannotShip(Event, frozen=True):
    topic: ClassVar[str] = "toy.cannot-ship"
    reason: str = "STRIKE"


EVENTS = (
    Reserve, Release, Reserved, OutOfStock, Released, Pay, Paid, Declined, BankAway,
    VoidPayment, Voided, Ship, Shipped, CannotShip,
)  # fmt: skip


def nothing(_session: Session, _data: Toy) -> None:
    """Stand for local work where a test does not look at it."""


def reserve(**options: Any) -> Command:
    return Command(
        lambda data: Reserve(order=data.order),
        success=Reserved,
        rejection=OutOfStock,
        source=PEERS,
        parts=lambda data: data.lines,
        part_of=lambda event: event.line,
        **{"timeout_s": 30.0, "attempts": 3, "pause_s": 2.0, **options},
    )


def release(**options: Any) -> Command:
    return Command(
        lambda data: Release(order=data.order),
        success=Released,
        source=PEERS,
        **{"timeout_s": 30.0, "attempts": 4, "pause_s": 2.0, **options},
    )


def pay(**options: Any) -> Command:
    return Command(
        lambda data: Pay(order=data.order),
        success=Paid,
        rejection=Declined,
        failure=BankAway,
        source=PEERS,
        **{"timeout_s": 30.0, "attempts": 3, "pause_s": 2.0, **options},
    )


def void(**options: Any) -> Command:
    return Command(
        lambda data: VoidPayment(order=data.order), success=Voided, source=PEERS, **options
    )


def ship(**options: Any) -> Command:
    return Command(
        lambda data: Ship(order=data.order),
        success=Shipped,
        rejection=CannotShip,
        source=PEERS,
        **{"timeout_s": 30.0, "attempts": 3, "pause_s": 2.0, **options},
    )


def toy_saga(*, version: int = 1, void_payment: bool = True, **options: Any) -> Saga:
    """Return the saga; `options` go to the saga."""
    return Saga(
        "toy",
        Step("stock", COMPENSATABLE, reserve(), undo=release()),
        Step("order", COMPENSATABLE, Local(nothing), undo=Local(nothing)),
        Step("payment", PIVOT, pay(), undo=void() if void_payment else None),
        Step("shipping", RETRIABLE, ship()),
        data=Toy,
        version=version,
        **options,
    )
