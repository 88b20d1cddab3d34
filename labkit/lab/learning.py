"""What the search for faults taught, version after version, as notebook 04 shows it.

The search is `labkit.testing.fault_search`; here it gets the words of the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labkit.lab.spanish import number
from labkit.testing.fault_search import (
    ATTEND,
    ATTEND_AND_DIE,
    INVENTED,
    LOST,
    PLACE,
    PLACE_AND_DIE,
    SEND_AGAIN,
    Iteration,
)

SURVIVED, NEW = "fallos conocidos que aguanta", "fallos nuevos"
STEPS: Mapping[str, str] = {
    PLACE: "coloca",
    PLACE_AND_DIE: "coloca y muere",
    ATTEND: "atiende",
    ATTEND_AND_DIE: "atiende y muere",
    SEND_AGAIN: "envía otra vez",
}

BROKE = {LOST: "pedido guardado, sin stock", INVENTED: "stock retenido, sin pedido"}


def counts(iterations: Sequence[Iteration]) -> dict[str, dict[str, float]]:
    """Return what each version survives, and what is found in it."""
    return {
        each.version: {SURVIVED: each.survived, NEW: int(each.found is not None)}
        for each in iterations
    }


def found(iterations: Sequence[Iteration]) -> pd.DataFrame:
    """Return the shortest schedule that breaks each version."""
    rows = [
        {
            "versión": each.version,
            "pasos": ", ".join(STEPS[step] for step in each.found.steps) if each.found else "–",
            "qué rompe": _broke(each),
        }
        for each in iterations
    ]
    return pd.DataFrame(rows)


def reading(iterations: Sequence[Iteration]) -> str:
    """Read how the versions got better."""
    said = [
        f"«{each.version}» aguanta {number(each.survived)} de {number(each.known)} conocidos y "
        f"{'muestra otro' if each.found else 'no muestra ninguno más'}"
        for each in iterations
    ]
    return f"{'; '.join(said)}."


def _broke(iteration: Iteration) -> str:
    if iteration.found is None:
        return "–"
    said = iteration.found.broke
    return next((words for told, words in BROKE.items() if told in said), said)
