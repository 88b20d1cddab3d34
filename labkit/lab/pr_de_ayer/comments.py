"""What the review of yesterday's pull request found: three faults, and where each is answered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import pandas as pd

from labkit.lab.pr_de_ayer.code import answer_to, handle_reservation, place_order

OPEN, CLOSED = "abierto", "cerrado"


class Comment(NamedTuple):
    """One remark of the review.

    Args:
        id: how the notebooks call it.
        where: the function that it is about.
        said: what the function does.
        harm: what comes of it.
        answered: in which notebook.
    """

    id: str
    where: Callable[..., object]
    said: str
    harm: str
    answered: str


COMMENTS = (
    Comment("F1", place_order, "guarda y luego publica", "pierde", "02"),
    Comment("F2", handle_reservation, "anota el mensaje antes de su efecto", "pierde", "02"),
    Comment("F3", answer_to, "llama rechazo a cualquier excepción", "miente", "05"),
)


def comments(closed: Collection[str] = ()) -> pd.DataFrame:
    """Return the comments as a table.

    Args:
        closed: the ids of those that are answered.
    """
    columns = ["comentario", "función", "qué hace", "consecuencia", "estado", "se responde en"]
    rows = [
        (
            each.id,
            each.where.__name__,
            each.said,
            each.harm,
            CLOSED if each.id in closed else OPEN,
            each.answered,
        )
        for each in COMMENTS
    ]
    return pd.DataFrame(rows, columns=columns)
