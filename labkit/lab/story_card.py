"""The ficha de estado: what the books say, on one card for the student.

Guarantee: the same books give the same card, as Markdown and as text; no time and no random id
is on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.lab.story_books import WAITING
from labkit.lab.story_cast import Books

Table = Sequence[Sequence[str]]


@dataclass(frozen=True, repr=False)
class Card:
    """The ficha of one moment.

    Args:
        notebook: which notebook it is for.
        books: what both services' books say.
        lines: every order's lines.
        question: what is still open.
    """

    notebook: str
    books: Books
    lines: Mapping[str, Sequence[tuple[str, int]]]
    question: str

    def __repr__(self) -> str:
        tables = "\n\n".join(_as_text(table) for table in self._tables())
        return f"{self._title()}\n\n{tables}\n\nPregunta abierta: «{self.question}»"

    def _repr_markdown_(self) -> str:
        tables = "\n\n".join(_as_markdown(table) for table in self._tables())
        return f"**{self._title()}**\n\n{tables}\n\n**Pregunta abierta:** «{self.question}»"

    def _title(self) -> str:
        return f"Ficha de estado · cuaderno {self.notebook}"

    def _tables(self) -> list[Table]:
        return [self._orders(), self._stock(), self._waiting()]

    def _orders(self) -> Table:
        rows = [
            (order_id, ", ".join(f"{qty} × {sku}" for sku, qty in self.lines[order_id]), status)
            for order_id, status in self.books.orders.items()
        ]
        return [("pedido", "líneas", "estado"), *(rows or [("ninguno", "–", "–")])]

    def _stock(self) -> Table:
        rows = [
            (sku, str(available), str(held), self._holders(sku))
            for sku, (available, held) in self.books.stock.items()
        ]
        return [("artículo", "disponible", "retenido", "por quién"), *rows]

    def _holders(self, sku: str) -> str:
        held = self.books.holders.items()
        return ", ".join(f"{name} ({of[sku]})" for name, of in held if sku in of) or "–"

    def _waiting(self) -> Table:
        waiting = [(label, getattr(self.books, name)) for name, label in WAITING.items()]
        rows = [(label, str(len(names)), ", ".join(names) or "–") for label, names in waiting]
        return [("mensajes en espera", "reservas", "cuáles"), *rows]


def _as_markdown(table: Table) -> str:
    head, *rows = (f"| {' | '.join(row)} |" for row in table)
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])


def _as_text(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "\n".join(line.rstrip() for line in padded)
