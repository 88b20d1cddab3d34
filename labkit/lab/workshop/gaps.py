"""The six gaps, what fills each, and how far a student has come.

A function is attacked by an exercise (`labkit.lab.exercises`); the state of a gap is what its last
attack said. A gap that was not filled is filled with the solution, marked *con ayuda*.

Guarantee: a student's function is used only after it has survived its attack, in this process.
Not guaranteed: memory; a new kernel begins with six gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import pandas as pd

from labkit.lab import exercises
from labkit.lab.workshop import solutions

PENDING, NOT_YET, DONE, HELPED = "pendiente", "todavía no", "hecho", "con ayuda"
_STATES = {"pending": PENDING, "failed": NOT_YET, "passed": DONE}


class Gap(NamedTuple):
    """A gap.

    Args:
        number: as in `taller.probar(1, …)`.
        title: what is to be done.
        functions: what fills it, by name.
    """

    number: int
    title: str
    functions: tuple[str, ...]


GAPS = (
    Gap(1, "Colocar el pedido", ("colocar",)),
    Gap(2, "Publicar", ("publicar",)),
    Gap(3, "Consumir y reservar, una sola vez", ("al_pedir_reserva",)),
    Gap(4, "Responder una por línea", ("al_pedir_reserva",)),
    Gap(5, "Aplicar la respuesta y proyectar", ("al_contestar", "fila")),
    Gap(6, "Compensar", ("al_recibir_rechazo",)),
)
EXERCISES: Mapping[str, str] = {
    "colocar": "05-W1",
    "publicar": "05-W2",
    "al_pedir_reserva": "05-E1",
    "al_contestar": "05-W5",
    "fila": "05-W5-vista",
    "al_recibir_rechazo": "05-E2",
}


def find(number: int) -> Gap:
    """Return a gap.

    Raises:
        ValueError: there is none of this number.
    """
    for gap in GAPS:
        if gap.number == number:
            return gap
    raise ValueError(f"no hay hueco {number!r}: van del 1 al {len(GAPS)}")


def own(helped: Collection[int] = ()) -> dict[str, Callable[..., Any]]:
    """Return the student's functions that survived their attacks, by name.

    Args:
        helped: gaps that are filled with the solution, whatever was attacked.
    """
    given_up = {name for number in helped for name in find(number).functions}
    found = {name: exercises.last(exercise) for name, exercise in EXERCISES.items()}
    return {
        name: each.function
        for name, each in found.items()
        if each and each.result.state == "passed" and name not in given_up
    }


def whole(mine: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return all functions: the student's, and the solution where there is none."""
    return {name: mine.get(name, getattr(solutions, name)) for name in EXERCISES}


def state_of(gap: Gap, helped: Collection[int]) -> str:
    """Return how far a gap is."""
    if any(gap.functions == find(number).functions for number in helped):
        return HELPED
    lasts = [exercises.last(EXERCISES[name]) for name in gap.functions]
    states = [_STATES[each.result.state] if each else PENDING for each in lasts]
    return next((state for state in (NOT_YET, PENDING) if state in states), DONE)


def board(helped: Collection[int]) -> pd.DataFrame:
    """Return all gaps and their states, as a table."""
    rows = [
        (gap.number, gap.title, ", ".join(gap.functions), state_of(gap, helped)) for gap in GAPS
    ]
    return pd.DataFrame(rows, columns=["hueco", "qué falta", "tu función", "estado"])
