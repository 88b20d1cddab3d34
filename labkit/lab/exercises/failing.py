"""Faults of 04-E2, each as it comes about: what can happen here without a server, happens.

A message is really unreadable, a breaker is really open, a database is really not there. A full
disk and an answer that is lost are made as PostgreSQL, psycopg and labkit name them.

Guarantee: nothing is left behind; nothing leaves the machine.
Not guaranteed: that these are all the faults there are.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import errors as postgres
from sqlalchemy.exc import OperationalError

from labkit import db
from labkit.breaker import LocalBreaker
from labkit.clock import FakeClock
from labkit.errors import (
    AttemptTimeoutError,
    BreakerOpenError,
    BrokerUnavailableError,
    InvalidMessageError,
    LabkitError,
)
from labkit.lab.exercises.pieces import STORY_TIME
from labkit.lab.exercises.resilience_pieces import Fallo
from labkit.messages import encode
from labkit.shop.contracts import (
    REGISTRY,
    Line,
    ReserveStockRequested,
    StockReservationRejected,
)
from labkit.shop.provider import ProviderAwayError
from labkit.wire import decode_envelope

_BROKEN = (BrokerUnavailableError, ConnectionResetError, BrokenPipeError, ConnectionRefusedError)


def broken_connections(count: int) -> list[Fallo]:
    """Return what so many healthy messages meet while the broker is away."""
    return [
        Fallo(f"RES-{100 + number}", _BROKEN[number % len(_BROKEN)]("sin conexión"))
        for number in range(1, count + 1)
    ]


def slow() -> Fallo:
    """Return a reservation that nobody waited for any longer; it has a key."""
    return Fallo("ORD-17", AttemptTimeoutError("inventory", 2.0))


def database_full() -> Fallo:
    """Return what PostgreSQL says when its disk is full."""
    said = postgres.DiskFull('could not extend file "base/16384/2619": No space left on device')
    return Fallo("ORD-17", OperationalError("update stock set held = held + 1", {}, said))


def database_away() -> Fallo:
    """Return what a service meets when its database does not listen."""
    # Port 1 belongs to a service that no machine runs any more: the kernel refuses at once.
    engine = db.connect("postgresql+psycopg://labkit@127.0.0.1:1/inventory")
    return Fallo("ORD-17", _raised(OperationalError, engine.connect))


def no_stock(reason: str) -> Fallo:
    """Return the inventory's no."""
    return Fallo("ORD-3", StockReservationRejected("RES-3", "BOOK-EDA", reason))


def unreadable() -> Fallo:
    """Return what reading the poisoned message of RES-18 ends in."""
    event = ReserveStockRequested(reservation_id="RES-18", lines=(Line("BOOK-DDD", 2),))
    body = encode(
        event,
        message_id="RES-18:pedir",
        correlation_id="RES-18",
        occurred_at=STORY_TIME,
        headers={},
    ).replace('"qty":2', '"qty":"dos"')
    return Fallo(
        "RES-18", _raised(InvalidMessageError, lambda: REGISTRY.message(decode_envelope(body)))
    )


def open_breaker(of: str, *, idempotente: bool) -> Fallo:
    """Return what a caller of an open breaker is told; the call did not leave."""
    breaker = LocalBreaker("inventory", open_s=5.0, clock=FakeClock())
    breaker.open()
    return Fallo(of, _raised(BreakerOpenError, lambda: breaker.call(dict)), idempotente)


def lost_charge(of: str, *, idempotente: bool) -> Fallo:
    """Return a charge whose answer never came, with or without an idempotency key."""
    return Fallo(of, ProviderAwayError(), idempotente)


def _raised(expected: type[Exception], do: Callable[[], object]) -> Exception:
    try:
        do()
    except expected as error:
        return error.with_traceback(None)
    raise LabkitError(f"no {expected.__name__} came of it: this machine is not as expected")
