"""The doctor's answers for a notebook: in Spanish, and the same text on every healthy bench.

`labkit doctor` prints what was seen (versions, ports); this card says what it is needed for.

Guarantee: every check of the doctor has a row; what fails shows its remedy.
Not guaranteed: Spanish for a remedy in a command's own words; a terminal's text stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labkit.lab import doctor
from labkit.lab.preconditions import Check
from labkit.lab.servers import Stack

FINE = "verde"
# What a check looks at, and what it is for.
WORDS: Mapping[str, tuple[str, str]] = {
    "Python version": ("Python", "lo que usan los cuadernos"),
    "hiredis": ("hiredis", "leer deprisa las respuestas de Redis"),
    "PostgreSQL version": ("PostgreSQL: versión", "cortar a un proceso congelado"),
    "PostgreSQL synchronous_commit": ("PostgreSQL: synchronous_commit", "no perder lo confirmado"),
    "PostgreSQL fsync": ("PostgreSQL: fsync", "sobrevivir a un corte de luz"),
    "PostgreSQL encoding": ("PostgreSQL: codificación", "guardar cualquier letra"),
    "PostgreSQL max_connections": ("PostgreSQL: conexiones", "sitio para todos los procesos"),
    "PostgreSQL track_commit_timestamp": ("PostgreSQL: hora de confirmar", "dibujar el viaje"),
    "PostgreSQL open transactions": ("PostgreSQL: transacciones abiertas", "que pueda limpiar"),
    "PostgreSQL prepared transactions": ("PostgreSQL: dos fases olvidadas", "que no bloqueen"),
    "Redis version": ("Redis: versión", "recortar un stream tras sus lectores"),
    "Redis append-only file": ("Redis: copia en disco", "no perder los streams al reiniciar"),
    "Redis maxmemory-policy": ("Redis: memoria llena", "que rechace y no borre sin avisar"),
    "Redis maxmemory": ("Redis: memoria libre", "que quepa lo siguiente"),
    "Redis role": ("Redis: papel", "que acepte escrituras"),
    "Redis commands": ("Redis: órdenes", "que existan las que se usan"),
    "Clocks": ("relojes", "que los tres digan la misma hora"),
    "PostgreSQL closed to the network": ("PostgreSQL: red", "que nadie de fuera entre"),
    "Redis closed to the network": ("Redis: red", "que nadie de fuera entre"),
}


def table(stack: Stack) -> pd.DataFrame:
    """Ask the servers, and return a row for each precondition.

    Args:
        stack: which servers.
    """
    return of(doctor.checks(stack))


def of(checks: Sequence[Check]) -> pd.DataFrame:
    """Return a row for each check.

    Args:
        checks: the doctor's.
    """
    rows = [(*_words(check), FINE if check.ok else _remedy(check)) for check in checks]
    return pd.DataFrame(rows, columns=["condición", "para qué", "verde o remedio"])


def _words(check: Check) -> tuple[str, str]:
    return WORDS.get(check.name, (check.name, "que el servidor conteste"))


def _remedy(check: Check) -> str:
    said = "rojo" if check.level == "error" else "aviso"
    return f"{said}: {check.remedy}"
