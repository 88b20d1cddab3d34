"""03-E1: from the state of a saga and what came of a request to the next state and its orders.

Attacked by success and by a "no" at each step, by failures and missing answers (tried again, then
made good together with the step itself), and by repetitions of every answer. The function is pure.

Guarantee: what is asked for here is what `labkit.saga.decide` does on the same inputs (tested).
Not guaranteed: pauses, answers to compensations and late successes; the last are 03-E2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from labkit.lab.exercises.asking import Case, ask
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
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction
from labkit.lab.servers import Stack

_STOCK, _ORDER, _PAYMENT = PASOS
_UNCERTAIN: tuple[Resultado, ...] = ("sin respuesta", "fallo")
_NAMES = {_STOCK: "La reserva", _ORDER: "El pedido", _PAYMENT: "El pago"}
_SAID = {"sin respuesta": "tardó", "fallo": "falló"}


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_succeed, _reject, _retry, _give_up, _repeat)
    return [attack(function) for attack in attacks]


def _in_hand(step: str, attempt: int = 1) -> Estado:
    """Return a saga that waits for the answer of a step."""
    return Estado(step, attempt, PASOS[: PASOS.index(step)])


def _succeed(function: StudentFunction) -> str:
    """Each step is done, at its first attempt and at its second."""
    for step, attempt in product(PASOS, (1, 2)):
        case = ask(function, _in_hand(step, attempt), Mensaje(step, "hecho"))
        following = case.state.avanza()
        _refuse_orders_of_success(case, following)
        _refuse_other_state(case, following)
    return "tres pasos hechos, uno tras otro, y la saga termina"


def _refuse_orders_of_success(case: Case, following: Estado) -> None:
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


def _refuse_other_state(case: Case, expected: Estado) -> None:
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
        case = ask(function, _in_hand(step), Mensaje(step, "rechazo"))
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


def _refuse_compensation(case: Case, steps: Sequence[str]) -> None:
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
        case = ask(function, _in_hand(step, attempt), Mensaje(step, outcome))
        if case.compensated:
            raise case.flaw(_told_too_early(step, outcome, attempt))
        if step in case.after.hechos:
            raise case.flaw(f"`{step}` {_SAID[outcome]} y lo das por hecho: nadie lo ha dicho.")
        if not case.orders:
            raise case.flaw(f"`{step}` {_SAID[outcome]} y no pides nada: la saga se queda parada.")
        if list(case.orders) != pedir(step):
            raise case.flaw(f"`{step}` {_SAID[outcome]}: se pide otra vez ese paso, y nada más.")
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
        case = ask(function, _in_hand(step, INTENTOS), Mensaje(step, outcome))
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


def _calmly(function: StudentFunction, state: Estado, message: Mensaje) -> Case:
    try:
        return ask(function, state, message)
    except RaisedError as raised:
        raise FlawError(
            f"Una respuesta repetida no es un error: tu función terminó en "
            f"`{type(raised.error).__name__}`. Devuelve `estado, []`.",
            raised.sentence,
        ) from None


def _refuse_effect(case: Case) -> None:
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
