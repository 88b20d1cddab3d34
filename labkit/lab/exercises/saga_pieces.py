"""What a student is handed in the exercises of notebook 03: a saga of three steps as plain data.

Guarantee: everything here is read-only and does nothing by itself: orders are texts, and a state
changes by giving another one. The wrong ways are as easy to write as the right one.
Not guaranteed: anything that a real saga needs beyond the rule; see `labkit.saga`.

Why names in Spanish: the student reads and writes them in a function of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["INTENTOS", "PASOS", "Estado", "Mensaje", "compensar", "pedir"]

PASOS = ("reservar_stock", "crear_pedido", "pagar")
INTENTOS = 3

Resultado = Literal["hecho", "rechazo", "fallo", "sin respuesta"]


@dataclass(frozen=True)
class Estado:
    """A saga at one moment.

    Args:
        paso: the step in hand, None when the saga has ended.
        intento: which attempt of the step, from 1.
        hechos: the steps that are done, oldest first.
    """

    paso: str | None = PASOS[0]
    intento: int = 1
    hechos: tuple[str, ...] = ()

    @property
    def terminada(self) -> bool:
        """Say whether it has ended."""
        return self.paso is None

    def avanza(self) -> Estado:
        """Return the state with the step done and the following one in hand.

        Raises:
            ValueError: when the saga has ended.
        """
        if self.paso is None:
            raise ValueError("la saga ya terminó: no queda paso que dar por hecho")
        following = [*PASOS, None][PASOS.index(self.paso) + 1]
        return Estado(following, 1, (*self.hechos, self.paso))

    def reintenta(self) -> Estado:
        """Return the state with one more attempt of the same step."""
        return replace(self, intento=self.intento + 1)

    def termina(self) -> Estado:
        """Return the state without a step in hand."""
        return replace(self, paso=None, intento=1)


@dataclass(frozen=True)
class Mensaje:
    """What came of a request.

    Args:
        paso: the step that it answers.
        resultado: done, a business "no", "not now", or that no answer came in time.
    """

    paso: str
    resultado: Resultado


def pedir(paso: str | None) -> list[str]:
    """Return the order that asks for a step; none when there is no step.

    >>> pedir("pagar")
    ['pedir pagar']
    """
    return [] if paso is None else [f"pedir {paso}"]


def compensar(pasos: str | Iterable[str]) -> list[str]:
    """Return the orders that make steps good, in the order in which they are given.

    >>> compensar(["reservar_stock", "pagar"])
    ['compensar reservar_stock', 'compensar pagar']
    """
    return [f"compensar {paso}" for paso in ([pasos] if isinstance(pasos, str) else pasos)]
