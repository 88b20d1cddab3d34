"""03-E2: what to do with an answer, whether or not it is the awaited one.

Attacked by awaited answers, repetitions, a success and a "no" that come after the saga gave up,
and answers to what nobody asked for. The function is pure.

Guarantee: what is asked for here is what `labkit.saga.replies.classify` says (tested).
Not guaranteed: answers by parts, and answers to compensations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.saga_pieces import PASOS, Mensaje, Resultado
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling
from labkit.lab.servers import Stack

_STOCK, _ORDER, _PAYMENT = PASOS
_VERDICTS = ("aplicar", "ignorar", "compensar", "apartar")
_OUTCOMES: tuple[Resultado, ...] = ("hecho", "rechazo", "fallo")

History = dict[str, str]
_ORDERING: History = {_STOCK: "hecho", _ORDER: "en curso"}
_PAYING: History = {_STOCK: "hecho", _ORDER: "hecho", _PAYMENT: "en curso"}
_COMPLETED: History = dict.fromkeys(PASOS, "hecho")
_GIVEN_UP: History = {_STOCK: "compensado"}
_PAYMENT_GIVEN_UP: History = dict.fromkeys(PASOS, "compensado")
_REJECTED: History = {_STOCK: "rechazado"}


class _Case(NamedTuple):
    """An answer, what was awaited and known, and the student's verdict."""

    reply: Mensaje
    awaited: str | None
    history: History
    verdict: str

    def flaw(self, sentence: str) -> FlawError:
        """Return the flaw with the situation that shows it."""
        return FlawError(sentence, f"{_told(*self[:3])} → `{self.verdict}`")


def _told(reply: Mensaje, awaited: str | None, history: History) -> str:
    return f"`{reply}`, esperada `{awaited!r}`, historia `{history}`"


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_await, _repeat, _succeed_late, _say_no_late, _answer_unasked)
    return [attack(function) for attack in attacks]


def _ask(function: StudentFunction, reply: Mensaje, awaited: str | None, history: History) -> _Case:
    """Ask twice: who remembers the first time answers otherwise."""
    first, again = (_answer(function, reply, awaited, history) for _ in range(2))
    if first != again:
        raise again.flaw(
            "Con los mismos argumentos, la segunda vez devuelves otra cosa: tu función recuerda "
            "algo fuera de `historia`."
        )
    return first


def _answer(
    function: StudentFunction, reply: Mensaje, awaited: str | None, history: History
) -> _Case:
    given = dict(history)
    with telling(function):
        verdict = function(reply, awaited, given)
    if given != history:
        raise FlawError("Cambiaste `historia`: quien te llama aún la necesita. Solo léela.")
    if verdict is None:
        raise FlawError(
            "Tu función no devuelve nada: ¿falta un `return` en algún camino?",
            _told(reply, awaited, history),
        )
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        raise FlawError(
            f"Devolviste `{verdict!r:.40}`: se espera una de "
            f"{', '.join(f'`{each}`' for each in _VERDICTS)}."
        )
    return _Case(reply, awaited, history, verdict)


def _await(function: StudentFunction) -> str:
    """The awaited answer, whatever it says."""
    waiting = ((_STOCK, {_STOCK: "en curso"}), (_ORDER, _ORDERING), (_PAYMENT, _PAYING))
    for step, history in waiting:
        for outcome in _OUTCOMES:
            case = _ask(function, Mensaje(step, outcome), step, history)
            if case.verdict != "aplicar":
                raise case.flaw(
                    f"La saga esperaba a `{step}`, contestó `{outcome}` y devuelves "
                    f"`{case.verdict}`: lo esperado se aplica, también un no."
                )
    return "la respuesta esperada se aplica, diga lo que diga"


def _repeat(function: StudentFunction) -> str:
    """A step that is done, or said no, answers once more."""
    repeated = (
        (Mensaje(_STOCK, "hecho"), _PAYMENT, _PAYING),
        (Mensaje(_ORDER, "hecho"), _PAYMENT, _PAYING),
        (Mensaje(_STOCK, "hecho"), _ORDER, _ORDERING),
        (Mensaje(_PAYMENT, "hecho"), None, _COMPLETED),
        (Mensaje(_STOCK, "rechazo"), None, _REJECTED),
    )
    for reply, awaited, history in repeated:
        case = _ask(function, reply, awaited, history)
        if case.verdict != "ignorar":
            raise case.flaw(_told_repetition(case))
    return f"{len(repeated)} respuestas repetidas se ignoran"


def _told_repetition(case: _Case) -> str:
    reply = case.reply
    if case.verdict == "aplicar":
        return _told_misplaced(case)
    if case.verdict == "apartar":
        return f"`{reply.paso}` ya contestó y su respuesta repetida no es un fallo: no se aparta."
    if reply.resultado == "rechazo":
        return f"`{reply.paso}` dijo que no, dos veces: no hay nada que compensar."
    return (
        f"`{reply.paso}` está hecho y su pedido sigue adelante: compensaste una respuesta repetida."
    )


def _told_misplaced(case: _Case) -> str:
    """Say that an answer was applied to a step which is not its own."""
    number = [*PASOS, case.reply.paso].index(case.reply.paso) + 1
    if case.awaited is None:
        return f"La saga ya terminó y aplicaste la respuesta del paso {number}."
    return f"La respuesta del paso {number} dio por bueno el paso {PASOS.index(case.awaited) + 1}."


def _succeed_late(function: StudentFunction) -> str:
    """A success of a step that was given up: its effect would belong to nobody."""
    for step, history in ((_STOCK, _GIVEN_UP), (_PAYMENT, _PAYMENT_GIVEN_UP)):
        case = _ask(function, Mensaje(step, "hecho"), None, history)
        if case.verdict != "compensar":
            raise case.flaw(_told_orphan(case))
    return "el éxito tardío se compensa: nadie más lo hará"


def _told_orphan(case: _Case) -> str:
    if case.verdict == "aplicar":
        return _told_misplaced(case)
    if case.verdict == "apartar":
        return "Apartas un éxito tardío: no es un fallo, se sabe de quién es y qué hacer."
    if case.reply.paso == _STOCK:
        return "El `StockReserved` tardío de RES-11 quedó sin dueño: falta una unidad."
    return "El `PaymentAuthorized` tardío de RES-11 quedó sin dueño: falta devolver un cobro."


def _say_no_late(function: StudentFunction) -> str:
    """A "no", or a failure, of a step that was given up: there is nothing to make good."""
    for outcome in ("rechazo", "fallo"):
        case = _ask(function, Mensaje(_STOCK, outcome), None, _GIVEN_UP)
        if case.verdict != "ignorar":
            raise case.flaw(_told_nothing_late(case))
    return "el rechazo y el fallo tardíos se ignoran: no hay efecto"


def _told_nothing_late(case: _Case) -> str:
    if case.verdict == "aplicar":
        return _told_misplaced(case)
    if case.verdict == "apartar":
        return f"Un `{case.reply.resultado}` tardío no es un error que nadie deba mirar."
    if case.reply.resultado == "rechazo":
        return "RES-11 había sido rechazado: compensaste una reserva que no existió."
    return "El fallo tardío de RES-11 no reservó nada: compensaste una reserva que no existió."


def _answer_unasked(function: StudentFunction) -> str:
    """Nobody asked for it, so nobody knows what it means."""
    for reply in (
        Mensaje(_PAYMENT, "hecho"),
        Mensaje(_PAYMENT, "rechazo"),
        Mensaje("enviar", "hecho"),
    ):
        case = _calmly(function, reply)
        if case.verdict != "apartar":
            raise case.flaw(_told_unasked(case))
    return "una respuesta que nadie pidió se aparta, para que alguien la mire"


def _calmly(function: StudentFunction, reply: Mensaje) -> _Case:
    try:
        return _ask(function, reply, _ORDER, _ORDERING)
    except RaisedError as raised:
        raise FlawError(
            f"Nadie pidió `{reply.paso}` y tu función terminó en `{type(raised.error).__name__}`: "
            "si no está en `historia`, se aparta.",
            raised.sentence,
        ) from None


def _told_unasked(case: _Case) -> str:
    step = case.reply.paso
    if case.verdict == "aplicar":
        return _told_misplaced(case)
    if case.verdict == "ignorar":
        return (
            f"Nadie pidió `{step}` y su respuesta se perdió: apártala, algo va mal en otro sitio."
        )
    return f"Nadie pidió `{step}`: no sabes qué compensas. Apártala."


CLASSIFYING = Exercise(
    id="03-E2",
    signature="clasificar(respuesta, esperada, historia)",
    hints=(
        (
            "Pregunta por este orden: ¿alguien lo pidió (`respuesta.paso in historia`)? ¿Es lo que "
            "se espera? Lo que queda llega repetido o tarde."
        ),
        (
            "De lo repetido o tardío solo un `hecho` tiene efecto. Si `historia` ya cuenta con él "
            "(`hecho`), es una repetición; si no, se compensa. Lo demás se ignora."
        ),
    ),
    attack=_attack,
)
