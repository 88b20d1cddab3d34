"""Asking `siguiente` of 03-E1: one question, and its answer if it is one.

Guarantee: what cannot be an answer is refused with what to write instead; a function that changes
its argument, or answers the same question otherwise the second time, is refused too.
Not guaranteed: that the answer is right; see `advancing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import FrozenInstanceError, replace
from typing import NamedTuple

from labkit.lab.exercises.saga_pieces import PASOS, Estado, Mensaje, compensar, pedir
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling

_ORDERS = {order for step in PASOS for order in (*pedir(step), *compensar(step))}
_READ_ONLY = (
    "Cambias `estado`, que es de solo lectura: devuelve otro, el de `estado.avanza()`, "
    "`estado.reintenta()` o `estado.termina()`."
)


class Case(NamedTuple):
    """One question and what the student's function answered."""

    state: Estado
    message: Mensaje
    after: Estado
    orders: tuple[str, ...]

    @property
    def asked(self) -> list[str]:
        """Return what is asked for."""
        return [each for each in self.orders if each.startswith("pedir ")]

    @property
    def compensated(self) -> list[str]:
        """Return what is made good."""
        return [each for each in self.orders if each.startswith("compensar ")]

    def flaw(self, sentence: str) -> FlawError:
        """Return the flaw with what was asked and answered."""
        return FlawError(sentence, f"con {_told(self.state, self.message)}: {_listed(self.orders)}")


def _told(state: Estado, message: Mensaje) -> str:
    return f"`{state}` llega `{message}`"


def _listed(orders: Iterable[str]) -> str:
    return " → ".join(f"`{each}`" for each in orders) or "ninguna orden"


class _Pair(NamedTuple):
    """What a student's function returns."""

    state: Estado
    orders: tuple[str, ...]


def ask(function: StudentFunction, state: Estado, message: Mensaje) -> Case:
    """Ask twice: who remembers the first time answers otherwise."""
    first, again = (_answer(function, state, message) for _ in range(2))
    if first != again:
        raise again.flaw(
            "Con los mismos argumentos, la segunda vez devuelves otra cosa: tu función recuerda "
            "algo fuera de `estado`."
        )
    return first


def _answer(function: StudentFunction, state: Estado, message: Mensaje) -> Case:
    given = replace(state)
    try:
        with telling(function):
            answer = function(given, message)
    except RaisedError as raised:
        if not isinstance(raised.error, FrozenInstanceError):
            raise
        raise FlawError(_READ_ONLY, raised.sentence) from None
    if given != state:
        raise FlawError(_READ_ONLY)
    after, orders = _pair_in(answer)
    return Case(state, message, after, orders)


def _pair_in(answer: object) -> _Pair:
    """Return the student's state and orders; refuse what are none."""
    if answer is None:
        raise FlawError("Tu función no devuelve nada: falta un `return` con el estado y la lista.")
    if not isinstance(answer, tuple) or len(answer) != len(_Pair._fields):
        raise FlawError(
            f"Devolviste `{answer!r:.60}`: se esperan dos cosas, `return estado, ordenes`."
        )
    state, orders = answer
    if not isinstance(state, Estado):
        raise FlawError(f"Lo primero que devuelves es `{state!r:.60}`: se espera un `Estado`.")
    if not isinstance(orders, list | tuple):
        raise FlawError(
            f"Lo segundo que devuelves es `{orders!r:.60}`: se espera una lista de órdenes, `[]` "
            "si no hay ninguna."
        )
    _refuse_unknown_orders(orders)
    return _Pair(state, tuple(orders))


def _refuse_unknown_orders(orders: Sequence[object]) -> None:
    for order in orders:
        if not isinstance(order, str) or order not in _ORDERS:
            raise FlawError(
                f"`{order!r:.60}` no es una orden: hay `pedir(paso)` y `compensar(pasos)`, con los "
                "pasos de `PASOS`, y cada una ya es una lista."
            )
