"""What the review of yesterday's pull request found: three faults, and where each is answered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from labkit.lab.pr_de_ayer.code import answer_to, handle_reservation, place_order

OPEN, CLOSED = "abierto", "cerrado"


class Comment(NamedTuple):
    """One remark of the review.

    Args:
        id: how the notebooks call it.
        where: the function that it is about.
        said: what the function does.
        harm: what comes of it.
        notebook: in which it is answered.
    """

    id: str
    where: Callable[..., object]
    said: str
    harm: str
    notebook: str


COMMENTS = (
    Comment("F1", place_order, "guarda y luego publica", "pierde o inventa un mensaje", "02"),
    Comment("F2", handle_reservation, "anota antes del efecto, aparte", "pierde el efecto", "02"),
    Comment("F3", answer_to, "toda excepción es un rechazo", "dice que no hay, y sí hay", "05"),
)


class Comments(list[tuple[str, ...]]):
    """The comments with their states; a table in a notebook."""

    def __repr__(self) -> str:
        return "\n".join(" · ".join(row) for row in self)

    def _repr_markdown_(self) -> str:
        head = ("comentario", "función", "qué hace", "qué provoca", "estado", "se cierra en")
        rule = ("---",) * len(head)
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *self))


def comments(closed: Collection[str] = ()) -> Comments:
    """Return the comments.

    Args:
        closed: the ids of those that are answered.
    """
    return Comments(_row(each, CLOSED if each.id in closed else OPEN) for each in COMMENTS)


def _row(comment: Comment, state: str) -> tuple[str, ...]:
    function = f"`{comment.where.__name__}`"
    return comment.id, function, comment.said, comment.harm, state, comment.notebook
