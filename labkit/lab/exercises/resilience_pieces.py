"""What a student is handed in the exercises of notebook 04: two limits, and what a fault is.

Guarantee: everything here is read-only and does nothing by itself; the errors and the event are
labkit's own and SQLAlchemy's own, as a handler or a caller really meets them.
Not guaranteed: that a type says all about a fault. Whether repeating does harm is known by whoever
asked, not by the error: that is `Fallo.idempotente`.

Why names in Spanish: the student reads and writes them in a function of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from labkit.errors import (
    AttemptTimeoutError,
    BreakerOpenError,
    BrokerUnavailableError,
    InvalidMessageError,
    PermanentError,
    RejectedError,
    TransientError,
)
from labkit.shop.contracts import StockReservationRejected

__all__ = [
    "BASE_S",
    "TOPE_S",
    "AttemptTimeoutError",
    "BreakerOpenError",
    "BrokerUnavailableError",
    "Fallo",
    "InvalidMessageError",
    "OperationalError",
    "PermanentError",
    "RejectedError",
    "StockReservationRejected",
    "TransientError",
]

BASE_S = 1.0
TOPE_S = 30.0


@dataclass(frozen=True)
class Fallo:
    """What came back instead of what was asked for.

    Args:
        de: whose it is: an order, a reservation, a charge.
        causa: the error that was raised, or the event that says no.
        idempotente: whether doing it again does no harm.
    """

    de: str
    causa: Exception | StockReservationRejected
    idempotente: bool = True
