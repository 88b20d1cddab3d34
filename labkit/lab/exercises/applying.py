"""01-E2: the result of a line is applied to the lines of an order, whatever comes when.

Attacked by three results in every order of arrival with one of them coming again, by the two
answers that share a correlation id, by results that contradict the first, and by results that are
none of this order's. The function is pure: its argument stays, and it remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from labkit.lab.exercises.arrivals import arrivals
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.results import (
    Lines,
    Result,
    line_of,
    listed,
    named,
    open_lines,
    outcome_of,
    rejected,
    reserved,
)
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling
from labkit.lab.servers import Stack
from labkit.shop.contracts import UNKNOWN_SKU
from labkit.shop.order_book import REJECTED, RESERVED, status_of

_TWO = (reserved("RES-2", "BOOK-DDD"), reserved("RES-2", "BOOK-EDA"))
_ID = "RES-1001"
_A, _B, _C = reserved(_ID, "A"), reserved(_ID, "B"), rejected(_ID, "C")
_STRANGERS = (rejected("RES-1002", "B"), rejected(_ID, "X", UNKNOWN_SKU), reserved(_ID, "X"))
_CONTRADICTIONS = ((_C, reserved(_ID, "C")), (_B, rejected(_ID, "B")))


class _Run(NamedTuple):
    """Results in their order of arrival, and the lines after each of them."""

    arrived: tuple[Result, ...]
    states: tuple[Lines, ...]


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_answer_twice, _arrive, _contradict, _mislead)
    return [attack(function) for attack in attacks]


def _apply(function: StudentFunction, lines: Lines, message: Result) -> Lines:
    given = dict(lines)
    with telling(function):
        answer = function(given, message)
    if given != lines:
        raise FlawError(
            "Cambiaste las líneas que te dieron: quien te llama aún las necesita. Devuelve otras: "
            "`{**lineas, clave: resultado}`."
        )
    return _lines_in(answer, lines)


def _lines_in(answer: object, lines: Lines) -> Lines:
    """Return the student's lines; refuse what are none."""
    if answer is None:
        raise FlawError("Tu función no devuelve nada: falta un `return` con todas las líneas.")
    if not isinstance(answer, Mapping):
        raise FlawError(
            f"Devolviste `{type(answer).__name__}`: se espera un diccionario como `lineas`, con "
            "todas las líneas."
        )
    if new := [key for key in answer if key not in lines]:
        raise FlawError(f"`{new[0]!r:.60}` no es una línea del pedido, y la añadiste.")
    if lost := [key for key in lines if key not in answer]:
        raise FlawError(
            f"Perdiste la línea `{lost[0]}`: devuelve todas, `{{**lineas, clave: resultado}}`."
        )
    _refuse_other_results(answer)
    return dict(answer)


def _refuse_other_results(answer: Mapping[tuple[str, str], object]) -> None:
    for (_, sku), result in answer.items():
        if result not in (None, RESERVED, REJECTED):
            raise FlawError(
                f"La línea {sku} quedó en `{result!r:.40}`: un resultado es `RESERVED`, "
                "`REJECTED` o `None`."
            )


def _answer_twice(function: StudentFunction) -> str:
    """The story's two answers share their correlation id."""
    lines = open_lines(*_TWO)
    for message in _TWO:
        lines = _apply(function, lines, message)
    first, second = (lines[line_of(message)] for message in _TWO)
    if first is not None and second is None:
        raise FlawError(
            "Descartas la segunda línea de RES-2: comparte correlación, no identidad.",
            named(_TWO),
        )
    if first is None:
        raise FlawError(
            "RES-2 contestó por `BOOK-DDD` y su línea sigue sin resultado: ¿no la encuentras, o "
            "tu función recuerda algo de otra vez?",
            named(_TWO),
        )
    return "RES-2: dos respuestas con un solo `correlationId`, y cuentan las dos"


def _arrive(function: StudentFunction) -> str:
    """Three results in every order, each of them in turn coming twice."""
    three = (_A, _B, _C)
    orders = [order for again in three for order in arrivals(three, again=again, times=2)]
    runs = [_run(function, order) for order in orders]
    # Every rule looks at all runs before the next does: the first one broken tells most.
    for refuse in (_refuse_return, _refuse_early, _refuse_other):
        for run in runs:
            refuse(run)
    return f"{len(orders)} órdenes de llegada de A, B y C, con una repetida: el mismo final"


def _run(function: StudentFunction, order: tuple[Result, ...]) -> _Run:
    states = [open_lines(_A, _B, _C)]
    for number, message in enumerate(order):
        again = message in order[:number]
        states.append(
            _calmly(function, states[-1], message, "Una repetición")
            if again
            else _apply(function, states[-1], message)
        )
        _refuse_memory(function, states[-2], message, states[-1])
    return _Run(order, tuple(states[1:]))


def _calmly(function: StudentFunction, lines: Lines, message: Result, what: str) -> Lines:
    try:
        return _apply(function, lines, message)
    except RaisedError as raised:
        raise FlawError(
            f"{what} no es un error: tu función terminó en `{type(raised.error).__name__}`. "
            "Devuelve las líneas como están.",
            raised.sentence,
        ) from None


def _refuse_memory(
    function: StudentFunction, lines: Lines, message: Result, expected: Lines
) -> None:
    """The same question once more; who remembers the first answers otherwise."""
    if _calmly(function, lines, message, "Preguntar dos veces lo mismo") != expected:
        raise FlawError(
            "Con los mismos argumentos, la segunda vez devuelves otra cosa: tu función recuerda "
            "algo fuera de `lineas`."
        )


def _refuse_return(run: _Run) -> None:
    """Refuse to leave REJECTED: the last one does not win."""
    statuses = [status_of(state.values()) for state in run.states]
    for number in range(1, len(statuses)):
        before, after = statuses[number - 1 : number + 1]
        if _C in run.arrived[:number] and before == REJECTED != after:
            raise FlawError(
                f"Tras el rechazo de C llega la reserva de {run.arrived[number].event.sku} y el "
                f"pedido vuelve a {after}.",
                named(run.arrived[: number + 1]),
            )


def _refuse_early(run: _Run) -> None:
    """Refuse to be complete before everyone has answered."""
    for number, state in enumerate(run.states, start=1):
        arrived = run.arrived[:number]
        missing = [each for each in (_A, _B, _C) if each not in arrived]
        if missing and status_of(state.values()) == RESERVED:
            raise FlawError(
                f"Con {listed(arrived)} das por completado el pedido y {missing[-1].event.sku} no "
                "ha contestado.",
                named(arrived),
            )


def _refuse_other(run: _Run) -> None:
    """Refuse lines that say anything but their first result."""
    expected = open_lines(_A, _B, _C)
    for number, (message, state) in enumerate(zip(run.arrived, run.states, strict=True), start=1):
        rejected_before = REJECTED in expected.values()
        expected[line_of(message)] = outcome_of(message)
        if state != expected:
            told = _told_difference(message, state, expected, after_no=rejected_before)
            raise FlawError(told, named(run.arrived[:number]))


def _told_difference(message: Result, state: Lines, expected: Lines, *, after_no: bool) -> str:
    sku = message.event.sku
    if state[line_of(message)] is None:
        if after_no:
            return (
                f"Tras el rechazo de C descartas la reserva de {sku}: nadie sabrá que hay que "
                "devolver su stock."
            )
        return f"{sku} contestó {outcome_of(message)} y su línea sigue sin resultado."
    if state[line_of(message)] != expected[line_of(message)]:
        return f"{sku} contestó {outcome_of(message)} y su línea dice {state[line_of(message)]}."
    key = next(key for key in expected if state[key] != expected[key])
    known = "aún no ha contestado" if expected[key] is None else f"contestó {expected[key]}"
    return f"La línea {key[1]} dice {state[key]} y {known}."


def _contradict(function: StudentFunction) -> str:
    """A line answers a second time, and otherwise."""
    for first, second in _CONTRADICTIONS:
        lines = open_lines(_A, _B, _C) | {
            line_of(each): outcome_of(each) for each in (_A, _B, first)
        }
        after = _calmly(function, lines, second, "Una segunda respuesta")
        if after != lines:
            came = "su reserva" if outcome_of(second) == RESERVED else "su rechazo"
            gone = "el rechazo" if outcome_of(first) == REJECTED else "la reserva"
            verb = "vuelve" if outcome_of(first) == REJECTED else "pasa"
            raise FlawError(
                f"Tras {gone} de {first.event.sku} llega {came} y el pedido {verb} a "
                f"{status_of(after.values())}: cada línea guarda su primer resultado.",
                named([first, second]),
            )
    return "una segunda respuesta que dice lo contrario no cambia nada"


def _mislead(function: StudentFunction) -> str:
    """Results of another reservation, and of an article that the order does not have."""
    lines = open_lines(_A, _B, _C) | {line_of(_A): RESERVED}
    for message in _STRANGERS:
        reservation, sku = line_of(message)
        after = _calmly(function, lines, message, f"El resultado de {sku} en {reservation}")
        if after != lines:
            raise FlawError(
                f"Aplicaste a {_ID} el resultado de {sku} en {reservation}: una línea es "
                "reserva y SKU, las dos cosas.",
                named([message]),
            )
    return f"un resultado de RES-1002 y un SKU desconocido no cambian {_ID}"


APPLYING = Exercise(
    id="01-E2",
    signature="aplicar(lineas, mensaje)",
    hints=(
        (
            "Una línea es `(mensaje.event.reservation_id, mensaje.event.sku)`. Si no está en "
            "`lineas`, no es tuya; si ya tiene resultado, guarda el primero. En los dos casos "
            "devuelve `lineas`."
        ),
        (
            "No cambies `lineas`: `{**lineas, linea: resultado}` es otro diccionario. El resultado "
            "es `RESERVED` si `mensaje.event` es un `StockReserved`, y si no `REJECTED`."
        ),
    ),
    attack=_attack,
)
