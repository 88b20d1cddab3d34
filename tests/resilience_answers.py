"""The right answers to the exercises of notebook 04, as its folded solutions have them."""

from __future__ import annotations

from typing import Any

from labkit.lab.exercises.resilience_pieces import (
    BASE_S,
    TOPE_S,
    BreakerOpenError,
    InvalidMessageError,
    StockReservationRejected,
)


def espera(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    mas_larga_s = min(TOPE_S, BASE_S * 2 ** (intento - 1))
    pausa_s = azar() * mas_larga_s + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def decidir(fallo: Any) -> Any:
    if isinstance(fallo.causa, StockReservationRejected):
        return "responder_no"
    if isinstance(fallo.causa, BreakerOpenError):
        return "rechazar_ya"
    if isinstance(fallo.causa, InvalidMessageError) or not fallo.idempotente:
        return "apartar"
    return "reintentar"
