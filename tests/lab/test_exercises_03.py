"""Notebook 03: each wrong answer fails with its own sentence, the solution passes, the stub waits.

The wrong answers are written as a student would write them, many of them coming from TypeScript.
That the exercises teach what the library does is `test_exercises_03_agree.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from labkit.lab import exercises
from labkit.lab.exercises.saga_pieces import INTENTOS, PASOS, Estado, compensar, pedir
from tests.saga_answers import clasificar, siguiente

Answer = Callable[..., Any]


def advancing_stub(estado: Any, mensaje: Any) -> Any:
    """Decide."""
    raise NotImplementedError


def builds_states_by_hand(estado: Any, mensaje: Any) -> Any:
    """Right in another way: without any of what is handed out."""
    if estado.paso != mensaje.paso:
        return estado, []
    match mensaje.resultado:
        case "hecho":
            hechos = (*estado.hechos, estado.paso)
            paso = PASOS[len(hechos)] if len(hechos) < len(PASOS) else None
            return Estado(paso, 1, hechos), [f"pedir {paso}"] if paso else []
        case "rechazo":
            pasos = estado.hechos
        case _ if estado.intento < INTENTOS:
            return replace(estado, intento=estado.intento + 1), [f"pedir {estado.paso}"]
        case _:
            pasos = (*estado.hechos, estado.paso)
    return Estado(None), [f"compensar {paso}" for paso in pasos[::-1]]


def asks_for_the_past_first(estado: Any, mensaje: Any) -> Any:
    """Right in another way: what is done, and what has ended, is asked for by name."""
    if estado.terminada or mensaje.paso in estado.hechos:
        return (estado, ())
    return siguiente(estado, mensaje)


def is_over(estado: Any, mensaje: Any) -> bool:
    return bool(mensaje.paso != estado.paso)


def compensates_what_was_rejected(estado: Any, mensaje: Any) -> Any:
    if is_over(estado, mensaje) or mensaje.resultado != "rechazo":
        return siguiente(estado, mensaje)
    return estado.termina(), compensar([estado.paso, *reversed(estado.hechos)])


def compensates_what_was_rejected_later(estado: Any, mensaje: Any) -> Any:
    if estado.paso == "pagar":
        return compensates_what_was_rejected(estado, mensaje)
    return siguiente(estado, mensaje)


def compensates_in_the_order_of_execution(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, sorted(ordenes, key=lambda orden: PASOS.index(orden.split()[1]))


def compensates_the_unknown_payment_last(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, sorted(ordenes, key=lambda orden: orden == "compensar pagar")


def takes_a_failure_for_a_no(estado: Any, mensaje: Any) -> Any:
    if is_over(estado, mensaje) or mensaje.resultado == "hecho":
        return siguiente(estado, mensaje)
    return estado.termina(), compensar(reversed(estado.hechos))


def takes_not_now_for_a_no(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "fallo":
        return takes_a_failure_for_a_no(estado, mensaje)
    return siguiente(estado, mensaje)


def leaves_out_the_step_without_an_answer(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    if mensaje.resultado == "sin respuesta" and nuevo.terminada:
        return nuevo, compensar(reversed(estado.hechos))
    return nuevo, ordenes


def leaves_out_the_step_that_failed(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    if mensaje.resultado == "fallo" and nuevo.terminada and estado.paso:
        return nuevo, compensar(reversed(estado.hechos))
    return nuevo, ordenes


def counts_one_attempt_less(estado: Any, mensaje: Any) -> Any:
    if estado.intento == INTENTOS - 1:
        return siguiente(replace(estado, intento=INTENTOS), mensaje)
    return siguiente(estado, mensaje)


def asks_for_the_next_one(estado: Any, mensaje: Any) -> Any:
    if is_over(estado, mensaje) or mensaje.resultado in ("hecho", "rechazo"):
        return siguiente(estado, mensaje)
    return estado.reintenta(), pedir(PASOS[0])


def retries_for_ever(estado: Any, mensaje: Any) -> Any:
    if is_over(estado, mensaje) or mensaje.resultado in ("hecho", "rechazo"):
        return siguiente(estado, mensaje)
    return estado.reintenta(), pedir(estado.paso)


def retries_a_no(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "rechazo":
        return siguiente(estado, replace(mensaje, resultado="fallo"))
    return siguiente(estado, mensaje)


def asks_again_without_counting(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return (estado, ordenes) if nuevo.intento > estado.intento else (nuevo, ordenes)


def keeps_the_attempt(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return replace(nuevo, intento=max(estado.intento, nuevo.intento)), ordenes


def waits_for_ever(estado: Any, mensaje: Any) -> Any:
    return (estado, []) if mensaje.resultado == "sin respuesta" else siguiente(estado, mensaje)


def takes_silence_for_a_yes(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "sin respuesta":
        return siguiente(estado, replace(mensaje, resultado="hecho"))
    return siguiente(estado, mensaje)


def takes_a_no_for_a_yes(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "rechazo":
        return siguiente(estado, replace(mensaje, resultado="hecho"))
    return siguiente(estado, mensaje)


def compensates_nothing(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, [orden for orden in ordenes if orden.startswith("pedir")]


def compensates_the_last_step_only(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, ordenes[:1]


def compensates_twice(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, ordenes + [orden for orden in ordenes if orden.startswith("compensar")]


def compensates_without_ending(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return (estado, ordenes) if "compensar" in " ".join(ordenes) else (nuevo, ordenes)


def does_not_look_at_the_step(estado: Any, mensaje: Any) -> Any:
    if estado.terminada:
        return estado, []
    return siguiente(estado, replace(mensaje, paso=estado.paso))


def counts_a_stale_failure(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "fallo":
        return does_not_look_at_the_step(estado, mensaje)
    return siguiente(estado, mensaje)


def compensates_again_at_the_end(estado: Any, mensaje: Any) -> Any:
    if mensaje.resultado == "rechazo":
        return estado.termina(), compensar(reversed(estado.hechos))
    return siguiente(estado, mensaje)


def raises_on_a_repetition(estado: Any, mensaje: Any) -> Any:
    if is_over(estado, mensaje):
        raise ValueError(mensaje)
    return siguiente(estado, mensaje)


def asks_for_nothing(estado: Any, mensaje: Any) -> Any:
    return siguiente(estado, mensaje)[0], []


def asks_for_all_at_once(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    rest = PASOS[len(nuevo.hechos) :]
    return nuevo, [orden for paso in rest for orden in pedir(paso)] if ordenes else []


def begins_again_at_the_end(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, ordenes or pedir(PASOS[0])


def compensates_a_success(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, [*ordenes, *compensar(nuevo.hechos)]


def keeps_the_state(estado: Any, mensaje: Any) -> Any:
    return estado, siguiente(estado, mensaje)[1]


def forgets_what_was_done(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return replace(nuevo, hechos=()), ordenes


def mutates(estado: Any, mensaje: Any) -> Any:
    estado.intento += 1
    return estado, pedir(estado.paso)


def mutates_behind_its_back(estado: Any, mensaje: Any) -> Any:
    vars(estado)["hechos"] = (*estado.hechos, mensaje.paso)
    return estado, []


seen: set[Any] = set()


def remembers_messages(estado: Any, mensaje: Any) -> Any:
    if mensaje in seen:
        return estado, []
    seen.add(mensaje)
    return siguiente(estado, mensaje)


def forgets_to_return(estado: Any, mensaje: Any) -> None:
    siguiente(estado, mensaje)


def returns_the_state_only(estado: Any, mensaje: Any) -> Any:
    return siguiente(estado, mensaje)[0]


def returns_an_object(estado: Any, mensaje: Any) -> Any:
    return {"estado": estado, "ordenes": []}


def swaps_the_two(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return ordenes, nuevo


def returns_one_order(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, "".join(ordenes)


def nests_the_orders(estado: Any, mensaje: Any) -> Any:
    nuevo, ordenes = siguiente(estado, mensaje)
    return nuevo, [ordenes]


def writes_its_own_words(estado: Any, mensaje: Any) -> Any:
    nuevo, _ = siguiente(estado, mensaje)
    return nuevo, [f"solicitar {nuevo.paso}"]


def asks_for_none(estado: Any, mensaje: Any) -> Any:
    nuevo, _ = siguiente(estado, mensaje)
    return nuevo, [f"pedir {nuevo.paso}"]


def spreads_like_typescript(estado: Any, mensaje: Any) -> Any:
    return {**estado, "paso": mensaje.paso}, []


def classifying_stub(respuesta: Any, esperada: Any, historia: Any) -> Any: ...


def asks_for_the_awaited_first(respuesta: Any, esperada: Any, historia: Any) -> Any:
    """Right in another way."""
    if respuesta.paso == esperada:
        return "aplicar"
    match historia.get(respuesta.paso), respuesta.resultado:
        case (None, _):
            return "apartar"
        case ("compensado", "hecho"):
            return "compensar"
        case _:
            return "ignorar"


def ignores_all_else(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return "aplicar" if respuesta.paso == esperada else "ignorar"


def ignores_what_ended(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return clasificar(respuesta, esperada, historia) if esperada else "ignorar"


def ignores_late_payments(respuesta: Any, esperada: Any, historia: Any) -> Any:
    late = esperada is None and respuesta.paso == "pagar"
    return "ignorar" if late else clasificar(respuesta, esperada, historia)


def applies_everything(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return "aplicar" if respuesta.paso else "apartar"


def applies_what_was_asked_for(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return "aplicar" if respuesta.paso in historia else "apartar"


def applies_late_answers(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if historia.get(respuesta.paso) == "compensado":
        return "aplicar"
    return clasificar(respuesta, esperada, historia)


def applies_the_unasked(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.paso not in historia:
        return "aplicar"
    return clasificar(respuesta, esperada, historia)


def compensates_every_late_reply(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if historia.get(respuesta.paso) == "compensado":
        return "compensar"
    return clasificar(respuesta, esperada, historia)


def compensates_late_failures(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.resultado == "rechazo":
        return clasificar(respuesta, esperada, historia)
    return compensates_every_late_reply(respuesta, esperada, historia)


def compensates_every_success(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.paso != esperada and respuesta.resultado == "hecho":
        return "compensar"
    return clasificar(respuesta, esperada, historia)


def compensates_a_repeated_no(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if historia.get(respuesta.paso) == "rechazado":
        return "compensar"
    return clasificar(respuesta, esperada, historia)


def compensates_an_awaited_no(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.resultado == "rechazo":
        return "compensar"
    return clasificar(respuesta, esperada, historia)


def compensates_the_unasked(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.resultado == "hecho" and historia.get(respuesta.paso) is None:
        return "compensar"
    return clasificar(respuesta, esperada, historia)


def parks_all_else(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return "aplicar" if respuesta.paso == esperada else "apartar"


def parks_what_is_late(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if historia.get(respuesta.paso) == "compensado":
        return "apartar"
    return clasificar(respuesta, esperada, historia)


def parks_a_late_no(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if historia.get(respuesta.paso) == "compensado" and respuesta.resultado == "rechazo":
        return "apartar"
    return clasificar(respuesta, esperada, historia)


def ignores_the_unasked(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.paso not in historia:
        return "ignorar"
    return clasificar(respuesta, esperada, historia)


def looks_up_without_asking(respuesta: Any, esperada: Any, historia: Any) -> Any:
    antes = historia[respuesta.paso]
    if respuesta.paso == esperada:
        return "aplicar"
    late = respuesta.resultado == "hecho" and antes != "hecho"
    return "compensar" if late else "ignorar"


def writes_history(respuesta: Any, esperada: Any, historia: Any) -> Any:
    historia[respuesta.paso] = respuesta.resultado
    return "aplicar"


def remembers_answers(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta in seen:
        return "ignorar"
    seen.add(respuesta)
    return clasificar(respuesta, esperada, historia)


def forgets_a_way(respuesta: Any, esperada: Any, historia: Any) -> Any:
    if respuesta.paso == esperada:
        return "aplicar"
    if respuesta.paso not in historia:
        return "apartar"
    return None


def returns_a_boolean(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return bool(respuesta.paso == esperada)


def capitalizes(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return clasificar(respuesta, esperada, historia).upper()


def asks_like_typescript(respuesta: Any, esperada: Any, historia: Any) -> Any:
    return "aplicar" if historia.includes(respuesta.paso) else "apartar"


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Answers that remember something begin each test without it."""
    yield
    seen.clear()


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        (
            "03-E1",
            compensates_what_was_rejected,
            "Pides liberar una reserva que el inventario no concedió: paso 1 dijo que no.",
        ),
        (
            "03-E1",
            compensates_what_was_rejected_later,
            "Compensas `pagar`, que no llegó a hacerse: paso 3 dijo que no.",
        ),
        (
            "03-E1",
            compensates_in_the_order_of_execution,
            (
                "Liberaste el stock con el pedido aún en firme: entre ambos, otro cliente compró "
                "la unidad de un pedido vigente."
            ),
        ),
        (
            "03-E1",
            compensates_the_unknown_payment_last,
            "Se compensa del último paso al primero, y aquí el pago no va delante.",
        ),
        (
            "03-E1",
            takes_a_failure_for_a_no,
            "El pago tardó, no dijo que no: faltó reintentar antes de compensar.",
        ),
        (
            "03-E1",
            takes_not_now_for_a_no,
            "El pago falló, no dijo que no: faltó reintentar antes de compensar.",
        ),
        (
            "03-E1",
            leaves_out_the_step_without_an_answer,
            "Sin respuesta no es sin efecto: RES-11 pudo reservarse; compénsalo también.",
        ),
        (
            "03-E1",
            leaves_out_the_step_that_failed,
            "Un fallo no es un no: `reservar_stock` pudo hacerse antes de fallar",
        ),
        ("03-E1", counts_one_attempt_less, "Compensas en el intento 2 de `pagar`, y hay 3"),
        ("03-E1", retries_for_ever, "Van 3 intentos de `reservar_stock` y pides otro"),
        ("03-E1", retries_a_no, "`reservar_stock` dijo que no, y un no no se reintenta"),
        (
            "03-E1",
            asks_again_without_counting,
            "`pagar` queda en el intento 1 y va por el 2",
        ),
        ("03-E1", keeps_the_attempt, "`crear_pedido` queda en el intento 2 y va por el 1"),
        ("03-E1", waits_for_ever, "`pagar` tardó y no pides nada: la saga se queda parada."),
        ("03-E1", takes_silence_for_a_yes, "`pagar` tardó y lo das por hecho: nadie lo ha dicho."),
        ("03-E1", asks_for_the_next_one, "`pagar` tardó: se pide otra vez ese paso, y nada más."),
        ("03-E1", takes_a_no_for_a_yes, "`reservar_stock` dijo que no y sigues adelante"),
        ("03-E1", compensates_nothing, "`reservar_stock` está hecho y nadie lo compensa"),
        (
            "03-E1",
            compensates_the_last_step_only,
            "`reservar_stock` está hecho y nadie lo compensa",
        ),
        ("03-E1", compensates_twice, "Cada paso hecho se compensa una sola vez"),
        ("03-E1", compensates_without_ending, "Compensas y la saga sigue esperando una respuesta"),
        (
            "03-E1",
            does_not_look_at_the_step,
            (
                "La respuesta de `reservar_stock` llegó dos veces, y la segunda dio por hecho "
                "`crear_pedido`."
            ),
        ),
        (
            "03-E1",
            counts_a_stale_failure,
            "Un fallo de `reservar_stock`, que ya está hecho, contó como si fuera de `crear_pedido",
        ),
        (
            "03-E1",
            compensates_again_at_the_end,
            "La saga ya terminó, la respuesta de `crear_pedido` llegó otra vez y aún le hiciste",
        ),
        ("03-E1", raises_on_a_repetition, "Una respuesta repetida no es un error: tu función term"),
        ("03-E1", asks_for_nothing, "`reservar_stock` está hecho y no pides `crear_pedido`: la"),
        ("03-E1", asks_for_all_at_once, "Tras `reservar_stock` se pide `crear_pedido`, una vez"),
        ("03-E1", begins_again_at_the_end, "Los tres pasos están hechos: no queda nada que pedir."),
        ("03-E1", compensates_a_success, "`reservar_stock` está hecho y aun así compensas"),
        ("03-E1", keeps_the_state, "y la saga está en `Estado(paso='crear_pedido', intento=1"),
        ("03-E1", forgets_what_was_done, "y la saga está en `Estado(paso='crear_pedido', intento"),
        ("03-E1", mutates, "Cambias `estado`, que es de solo lectura: devuelve otro"),
        ("03-E1", mutates_behind_its_back, "Cambias `estado`, que es de solo lectura"),
        ("03-E1", remembers_messages, "tu función recuerda algo fuera de `estado`"),
        ("03-E1", forgets_to_return, "Tu función no devuelve nada: falta un `return`"),
        ("03-E1", returns_the_state_only, "se esperan dos cosas, `return estado, ordenes`"),
        ("03-E1", returns_an_object, "Devolviste `{'estado': Estado("),
        ("03-E1", swaps_the_two, "Lo primero que devuelves es `['pedir crear_pedido']`"),
        ("03-E1", returns_one_order, "Lo segundo que devuelves es `'pedir crear_pedido'`"),
        ("03-E1", nests_the_orders, "`['pedir crear_pedido']` no es una orden"),
        ("03-E1", writes_its_own_words, "`'solicitar crear_pedido'` no es una orden"),
        ("03-E1", asks_for_none, "`'pedir None'` no es una orden"),
        ("03-E1", spreads_like_typescript, "Tu función se detuvo en la línea"),
        (
            "03-E2",
            ignores_all_else,
            "El `StockReserved` tardío de RES-11 quedó sin dueño: falta una unidad.",
        ),
        (
            "03-E2",
            ignores_what_ended,
            "El `StockReserved` tardío de RES-11 quedó sin dueño: falta una unidad.",
        ),
        (
            "03-E2",
            ignores_late_payments,
            "El `PaymentAuthorized` tardío de RES-11 quedó sin dueño: falta devolver un cobro.",
        ),
        ("03-E2", applies_everything, "La respuesta del paso 1 dio por bueno el paso 3."),
        ("03-E2", applies_what_was_asked_for, "La respuesta del paso 1 dio por bueno el paso 3."),
        (
            "03-E2",
            applies_late_answers,
            "La saga ya terminó y aplicaste la respuesta del paso 1.",
        ),
        ("03-E2", applies_the_unasked, "La respuesta del paso 3 dio por bueno el paso 2."),
        (
            "03-E2",
            compensates_every_late_reply,
            "RES-11 había sido rechazado: compensaste una reserva que no existió.",
        ),
        (
            "03-E2",
            compensates_late_failures,
            "El fallo tardío de RES-11 no reservó nada: compensaste una reserva que no existió.",
        ),
        (
            "03-E2",
            compensates_every_success,
            "`reservar_stock` está hecho y su pedido sigue adelante: compensaste una respuesta",
        ),
        (
            "03-E2",
            compensates_a_repeated_no,
            "`reservar_stock` dijo que no, dos veces: no hay nada",
        ),
        (
            "03-E2",
            compensates_an_awaited_no,
            "La saga esperaba a `reservar_stock`, contestó `rechazo` y devuelves `compensar`",
        ),
        ("03-E2", compensates_the_unasked, "Nadie pidió `pagar`: no sabes qué compensas. Apártala"),
        ("03-E2", parks_all_else, "`reservar_stock` ya contestó y su respuesta repetida no es un"),
        ("03-E2", parks_what_is_late, "Apartas un éxito tardío: no es un fallo, se sabe de quién"),
        ("03-E2", parks_a_late_no, "Un `rechazo` tardío no es un error que nadie deba mirar."),
        ("03-E2", ignores_the_unasked, "Nadie pidió `pagar` y su respuesta se perdió: apártala"),
        (
            "03-E2",
            looks_up_without_asking,
            "Nadie pidió `pagar` y tu función terminó en `KeyError`: si no está en `historia`, se",
        ),
        ("03-E2", writes_history, "Cambiaste `historia`: quien te llama aún la necesita"),
        ("03-E2", remembers_answers, "tu función recuerda algo fuera de `historia`"),
        ("03-E2", forgets_a_way, "Tu función no devuelve nada: ¿falta un `return` en algún camino"),
        ("03-E2", returns_a_boolean, "Devolviste `True`: se espera una de `aplicar`, `ignorar`"),
        ("03-E2", capitalizes, "Devolviste `'APLICAR'`: se espera una de"),
        ("03-E2", asks_like_typescript, "'dict' object has no attribute 'includes'"),
    ],
)
def test_a_wrong_answer_fails_for_its_own_reason(
    exercise: str, answer: Answer, sentence: str
) -> None:
    result = exercises.examine(exercise, answer)

    assert (result.state, sentence in result.text) == ("failed", True), result.text
    assert result.text.startswith(f"**{exercise} · Todavía no.**")


@pytest.mark.parametrize(
    ("exercise", "answer", "survived"),
    [
        ("03-E1", siguiente, "13 respuestas repetidas"),
        ("03-E1", builds_states_by_hand, "13 respuestas repetidas"),
        ("03-E1", asks_for_the_past_first, "13 respuestas repetidas"),
        ("03-E2", clasificar, "5 respuestas repetidas"),
        ("03-E2", asks_for_the_awaited_first, "5 respuestas repetidas"),
    ],
)
def test_a_right_answer_passes_twice_in_a_row(exercise: str, answer: Answer, survived: str) -> None:
    first, again = (exercises.examine(exercise, answer) for _ in range(2))

    assert (first.state, survived in first.text) == ("passed", True), first.text
    assert first == again


@pytest.mark.parametrize(
    ("exercise", "stub"), [("03-E1", advancing_stub), ("03-E2", classifying_stub)]
)
def test_a_stub_is_pending(exercise: str, stub: Answer) -> None:
    result = exercises.examine(exercise, stub)

    assert result.state == "pending"
    assert result.text.startswith(f"**{exercise} · Pendiente.**")


@pytest.mark.parametrize("exercise", ["03-E1", "03-E2"])
def test_the_hints_are_two(exercise: str) -> None:
    assert len(exercises.EXERCISES[exercise].hints) == 2


def test_what_failed_is_shown_with_the_question_and_the_orders() -> None:
    text = exercises.examine("03-E1", compensates_in_the_order_of_execution).text

    assert "`Mensaje(paso='pagar', resultado='rechazo')`" in text
    assert text.endswith("`compensar reservar_stock` → `compensar crear_pedido`")


def test_a_saga_that_has_ended_has_no_step_to_be_done() -> None:
    with pytest.raises(ValueError, match="la saga ya terminó"):
        Estado().termina().avanza()
