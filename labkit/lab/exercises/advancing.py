"""03-E1: from the state of a saga and what came of a request to the next state and its orders.

Attacked by success and by a "no" at each step, by failures and missing answers (tried again, then
made good together with the step itself), and by repetitions of every answer. The function is pure.

Guarantee: what is asked for here is what `labkit.saga.decide` does on the same inputs (tested).
Not guaranteed: pauses, answers to compensations and late successes; the last are 03-E2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import product
from typing import NamedTuple

from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.saga_pieces import (
    INTENTOS,
    PASOS,
    Estado,
    Mensaje,
    Resultado,
    compensar,
    pedir,
)
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling
from labkit.lab.servers import Stack

_STOCK, _ORDER, _PAYMENT = PASOS
_UNCERTAIN: tuple[Resultado, ...] = ("sin respuesta", "fallo")
_ORDERS = {order for step in PASOS for order in (*pedir(step), *compensar(step))}
_NAMES = {_STOCK: "La reserva", _ORDER: "El pedido", _PAYMENT: "El pago"}
_SAID = {"sin respuesta": "tardó", "fallo": "falló"}


class _Case(NamedTuple):
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


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_succeed, _reject, _retry, _give_up, _repeat)
    return [attack(function) for attack in attacks]


def _in_hand(step: str, attempt: int = 1) -> Estado:
    """Return a saga that waits for the answer of a step."""
    return Estado(step, attempt, PASOS[: PASOS.index(step)])


def _ask(function: StudentFunction, state: Estado, message: Mensaje) -> _Case:
    """Ask twice: who remembers the first time answers otherwise."""
    first, again = (_answer(function, state, message) for _ in range(2))
    if first != again:
        raise again.flaw(
            "Con los mismos argumentos, la segunda vez devuelves otra cosa: tu función recuerda "
            "algo fuera de `estado`."
        )
    return first


def _answer(function: StudentFunction, state: Estado, message: Mensaje) -> _Case:
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
    return _Case(state, message, after, orders)


_READ_ONLY = (
    "Cambias `estado`, que es de solo lectura: devuelve otro, el de `estado.avanza()`, "
    "`estado.reintenta()` o `estado.termina()`."
)


def _pair_in(answer: object) -> tuple[Estado, tuple[str, ...]]:
    """Return the student's state and orders; refuse what are none."""
    if answer is None:
        raise FlawError("Tu función no devuelve nada: falta un `return` con el estado y la lista.")
    if not isinstance(answer, tuple) or len(answer) != 2:
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
    return state, tuple(orders)


def _refuse_unknown_orders(orders: Sequence[object]) -> None:
    for order in orders:
        if not isinstance(order, str) or order not in _ORDERS:
            raise FlawError(
                f"`{order!r:.60}` no es una orden: hay `pedir(paso)` y `compensar(pasos)`, con los "
                "pasos de `PASOS`, y cada una ya es una lista."
            )


def _succeed(function: StudentFunction) -> str:
    """Each step is done, at its first attempt and at its second."""
    for step, attempt in product(PASOS, (1, 2)):
        case = _ask(function, _in_hand(step, attempt), Mensaje(step, "hecho"))
        following = case.state.avanza()
        _refuse_orders_of_success(case, following)
        _refuse_other_state(case, following)
    return "tres pasos hechos, uno tras otro, y la saga termina"


def _refuse_orders_of_success(case: _Case, following: Estado) -> None:
    step = case.message.paso
    if case.compensated:
        raise case.flaw(f"`{step}` está hecho y aun así compensas: nadie lo ha pedido.")
    if list(case.orders) == pedir(following.paso):
        return
    if following.paso is None:
        raise case.flaw("Los tres pasos están hechos: no queda nada que pedir.")
    if not case.orders:
        raise case.flaw(
            f"`{step}` está hecho y no pides `{following.paso}`: la saga se queda parada."
        )
    raise case.flaw(f"Tras `{step}` se pide `{following.paso}`, una vez y nada más.")


def _refuse_other_state(case: _Case, expected: Estado) -> None:
    if case.after == expected:
        return
    if case.after.paso == expected.paso and case.after.intento != expected.intento:
        raise case.flaw(
            f"`{expected.paso}` queda en el intento {case.after.intento} y va por el "
            f"{expected.intento}: cada paso cuenta los suyos."
        )
    raise case.flaw(f"Devolviste `{case.after}` y la saga está en `{expected}`.")


def _reject(function: StudentFunction) -> str:
    """Each step in turn says no: what was done before it is made good, and it is not."""
    for step in PASOS:
        case = _ask(function, _in_hand(step), Mensaje(step, "rechazo"))
        if f"compensar {step}" in case.orders:
            raise case.flaw(_told_ungranted(step))
        if f"pedir {step}" in case.orders:
            raise case.flaw(f"`{step}` dijo que no, y un no no se reintenta: la respuesta es esa.")
        if case.asked:
            raise case.flaw(f"`{step}` dijo que no y sigues adelante como si estuviera hecho.")
        _refuse_compensation(case, case.state.hechos)
    return "un rechazo en cada paso: se compensa lo hecho, del último al primero"


def _told_ungranted(step: str) -> str:
    if step == _STOCK:
        return "Pides liberar una reserva que el inventario no concedió: paso 1 dijo que no."
    number = PASOS.index(step) + 1
    return f"Compensas `{step}`, que no llegó a hacerse: paso {number} dijo que no."


def _refuse_compensation(case: _Case, steps: Sequence[str]) -> None:
    """Refuse anything but to make good these steps, the last one first, and to end."""
    missing = [step for step in steps if f"compensar {step}" not in case.orders]
    if missing:
        raise case.flaw(
            f"`{missing[-1]}` está hecho y nadie lo compensa: la saga termina y su efecto se queda."
        )
    expected = compensar(reversed(steps))
    if sorted(case.orders) != sorted(expected):
        raise case.flaw("Cada paso hecho se compensa una sola vez, y no hay más órdenes.")
    if list(case.orders) != expected:
        raise case.flaw(_told_order(case.orders))
    if not case.after.terminada:
        raise case.flaw(
            "Compensas y la saga sigue esperando una respuesta: devuelve `estado.termina()`."
        )


def _told_order(orders: Sequence[str]) -> str:
    stock, order = (orders.index(f"compensar {step}") for step in (_STOCK, _ORDER))
    if stock < order:
        return (
            "Liberaste el stock con el pedido aún en firme: entre ambos, otro cliente compró la "
            "unidad de un pedido vigente."
        )
    return "Se compensa del último paso al primero, y aquí el pago no va delante."


def _retry(function: StudentFunction) -> str:
    """Nobody said no: the same step is asked for again."""
    for outcome, step, attempt in product(_UNCERTAIN, reversed(PASOS), range(1, INTENTOS)):
        case = _ask(function, _in_hand(step, attempt), Mensaje(step, outcome))
        if case.compensated or case.after.terminada:
            raise case.flaw(_told_too_early(step, outcome, attempt))
        if not case.orders:
            raise case.flaw(f"`{step}` {_SAID[outcome]} y no pides nada: la saga se queda parada.")
        if list(case.orders) != pedir(step):
            raise case.flaw(
                f"`{step}` {_SAID[outcome]} y lo das por hecho: se pide otra vez el mismo paso."
            )
        _refuse_other_state(case, case.state.reintenta())
    return f"ni un fallo ni una falta de respuesta es un no: hasta {INTENTOS} intentos de cada paso"


def _told_too_early(step: str, outcome: Resultado, attempt: int) -> str:
    if attempt == 1:
        return (
            f"{_NAMES[step]} {_SAID[outcome]}, no dijo que no: faltó reintentar antes de compensar."
        )
    return f"Compensas en el intento {attempt} de `{step}`, y hay {INTENTOS}: `INTENTOS`."


def _give_up(function: StudentFunction) -> str:
    """No attempt is left, and nobody knows whether the step happened."""
    for outcome, step in product(_UNCERTAIN, PASOS):
        case = _ask(function, _in_hand(step, INTENTOS), Mensaje(step, outcome))
        if case.asked:
            raise case.flaw(
                f"Van {INTENTOS} intentos de `{step}` y pides otro: `INTENTOS` es el tope."
            )
        if f"compensar {step}" not in case.orders:
            raise case.flaw(_told_unknown(step, outcome))
        _refuse_compensation(case, (*case.state.hechos, step))
    return "sin más intentos, se compensa también el paso del que nada se sabe"


def _told_unknown(step: str, outcome: Resultado) -> str:
    if outcome == "fallo":
        return f"Un fallo no es un no: `{step}` pudo hacerse antes de fallar; compénsalo también."
    what = "RES-11 pudo reservarse" if step == _STOCK else f"`{step}` pudo hacerse"
    return f"Sin respuesta no es sin efecto: {what}; compénsalo también."


def _repeat(function: StudentFunction) -> str:
    """Every answer comes again: to a saga that went on, and to one that has ended."""
    repeated = [(_in_hand(step), Mensaje(each, "hecho")) for step, each in _done_before()]
    repeated += [(_in_hand(step), Mensaje(each, "fallo")) for step, each in _done_before()]
    repeated += [(Estado(None, 1, PASOS), Mensaje(_PAYMENT, "hecho"))]
    for step, outcome in product(PASOS, ("rechazo", "fallo")):
        repeated.append((_in_hand(step).termina(), Mensaje(step, outcome)))  # type: ignore[arg-type]
    for state, message in repeated:
        _refuse_effect(_calmly(function, state, message))
    return f"{len(repeated)} respuestas repetidas, que no piden ni cambian nada"


def _done_before() -> list[tuple[str, str]]:
    """Return each step in hand with each step before it."""
    return [(step, each) for step in PASOS for each in PASOS[: PASOS.index(step)]]


def _calmly(function: StudentFunction, state: Estado, message: Mensaje) -> _Case:
    try:
        return _ask(function, state, message)
    except RaisedError as raised:
        raise FlawError(
            f"Una respuesta repetida no es un error: tu función terminó en "
            f"`{type(raised.error).__name__}`. Devuelve `estado, []`.",
            raised.sentence,
        ) from None


def _refuse_effect(case: _Case) -> None:
    state, message = case.state, case.message
    if case.after == state and not case.orders:
        return
    if state.terminada:
        raise case.flaw(
            f"La saga ya terminó, la respuesta de `{message.paso}` llegó otra vez y aún le hiciste "
            "caso."
        )
    if message.resultado == "hecho":
        raise case.flaw(
            f"La respuesta de `{message.paso}` llegó dos veces, y la segunda dio por hecho "
            f"`{state.paso}`."
        )
    raise case.flaw(
        f"Un fallo de `{message.paso}`, que ya está hecho, contó como si fuera de `{state.paso}`."
    )


ADVANCING = Exercise(
    id="03-E1",
    signature="siguiente(estado, mensaje)",
    hints=(
        (
            "Primero lo repetido: si `mensaje.paso` no es `estado.paso`, devuelve `estado, []`. "
            "Después, tres casos: está hecho, dijo que no, o no se sabe. Solo el último se "
            "reintenta, y si no quedan intentos el paso pudo hacerse."
        ),
        (
            "Un rechazo compensa `estado.hechos`; agotar `INTENTOS` compensa "
            "`[*estado.hechos, estado.paso]`. Las dos veces del último al primero: "
            "`compensar(reversed(pasos))`, con `estado.termina()`."
        ),
    ),
    attack=_attack,
)
