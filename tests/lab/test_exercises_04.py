"""Notebook 04: each wrong answer fails with its own sentence, the solution passes, the stub waits.

The wrong answers are written as a student would write them, many of them coming from TypeScript.
That the exercises teach what the library does is `tests/integration/test_exercises_04_agree.py`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from labkit.lab import exercises
from labkit.lab.exercises import deciding, waiting
from labkit.lab.exercises.patience import patience
from labkit.lab.exercises.resilience_pieces import (
    BASE_S,
    TOPE_S,
    AttemptTimeoutError,
    BreakerOpenError,
    BrokerUnavailableError,
    InvalidMessageError,
    OperationalError,
    PermanentError,
    RejectedError,
    StockReservationRejected,
    TransientError,
)
from labkit.lab.exercises.student import FlawError
from tests.resilience_answers import decidir, espera

Answer = Callable[..., Any]


def waiting_stub(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    """Decide."""
    raise NotImplementedError


def stops_when_the_longest_does_not_fit(
    intento: Any, restante_s: Any, retry_after_s: Any, azar: Any
) -> Any:
    """Right in another way: it does not hope for a short pause, and counts attempts."""
    longest_s = min(TOPE_S, BASE_S * 2**intento)
    if intento > 5 or longest_s + (retry_after_s or 0) >= restante_s:
        return None
    return longest_s / 2 + azar() * longest_s / 2 + (retry_after_s or 0)


def refuses_a_long_wish(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    """Right in another way, and labkit's: who asks for more than the cap gets no attempt."""
    if retry_after_s is not None and retry_after_s > TOPE_S:
        return None
    return espera(intento, restante_s, retry_after_s, azar)


def doubles_without_chance(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return 2**intento


def doubles_up_to_the_cap(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(intento, restante_s, retry_after_s, lambda: 1.0)


def begins_without_chance(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(intento, restante_s, retry_after_s, azar if intento > 1 else lambda: 1.0)


def adds_a_pinch(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = min(TOPE_S, 2 ** (intento - 1)) + azar() / 2 + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def caps_nothing(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = azar() * BASE_S * 2**intento + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def caps_elsewhere(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = azar() * min(60, 2**intento) + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def caps_after_the_chance(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = min(TOPE_S, azar() * 2**intento) + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def caps_what_the_server_asked(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = min(TOPE_S, azar() * min(TOPE_S, 2 ** (intento - 1)) + (retry_after_s or 0))
    return pausa_s if pausa_s < restante_s else None


def waits_always_the_same(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(3, restante_s, retry_after_s, azar)


def grows_in_steps(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = azar() * min(TOPE_S, BASE_S * intento) + (retry_after_s or 0)
    return pausa_s if pausa_s < restante_s else None


def ignores_the_deadline(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return azar() * min(TOPE_S, 2 ** (intento - 1)) + (retry_after_s or 0)


def looks_at_the_deadline_too_early(
    intento: Any, restante_s: Any, retry_after_s: Any, azar: Any
) -> Any:
    if restante_s <= 0:
        return None
    return ignores_the_deadline(intento, restante_s, retry_after_s, azar)


def forgets_the_wish_in_the_sum(
    intento: Any, restante_s: Any, retry_after_s: Any, azar: Any
) -> Any:
    pausa_s = azar() * min(TOPE_S, 2 ** (intento - 1))
    return pausa_s + (retry_after_s or 0) if pausa_s < restante_s else None


def clips_to_the_deadline(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = ignores_the_deadline(intento, restante_s, retry_after_s, azar)
    return min(pausa_s, restante_s)


def gives_up_at_once(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return None if retry_after_s is None else azar()


def forgets_a_return(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = espera(intento, restante_s, retry_after_s, azar)
    if pausa_s is not None and pausa_s > 1:
        return pausa_s
    return None


def needs_half_a_minute(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    if restante_s < TOPE_S:
        return None
    return espera(intento, restante_s, retry_after_s, azar)


def ignores_the_server(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(intento, restante_s, None, azar)


def spreads_around_the_wish(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    if retry_after_s:
        pausa_s = retry_after_s * (0.5 + azar())
        return pausa_s if pausa_s < restante_s else None
    return espera(intento, restante_s, None, azar)


def obeys_to_the_second(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    if retry_after_s:
        return retry_after_s if retry_after_s < restante_s else None
    return espera(intento, restante_s, None, azar)


def takes_the_larger(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    pausa_s = max(retry_after_s or 0, espera(intento, 1e30, None, azar))
    return pausa_s if pausa_s < restante_s else None


def returns_milliseconds(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return azar() * 1000 * 2 ** (intento - 1)


def has_chances_of_its_own(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(intento, restante_s, retry_after_s, random.random)


def forgets_the_parentheses(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return azar * min(TOPE_S, 2 ** (intento - 1))


def compares_none(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return max(retry_after_s, azar() * min(TOPE_S, 2 ** (intento - 1)))


def returns_text(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return f"{espera(intento, restante_s, retry_after_s, azar)} s"


def returns_a_boolean(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return espera(intento, restante_s, retry_after_s, azar) is not None


def goes_back_in_time(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return azar() - 2


def waits_for_ever(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return float("inf")


def sleeps(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    time.sleep(espera(intento, restante_s, retry_after_s, azar))


def loops(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    while True:
        try:
            espera(intento, restante_s, retry_after_s, azar)
        except Exception:  # noqa: BLE001 - as a student would
            continue


def asks_like_typescript(intento: Any, restante_s: Any, retry_after_s: Any, azar: Any) -> Any:
    return min(TOPE_S, azar() * intento.pow(2))


def deciding_stub(fallo: Any) -> Any: ...


def asks_by_the_tree(fallo: Any) -> Any:
    """Right in another way: by what the error tree says, and no name of a single error."""
    match fallo.causa:
        case RejectedError():
            return "rechazar_ya"
        case PermanentError():
            return "apartar"
        case TransientError() | OSError() | OperationalError():
            return "reintentar" if fallo.idempotente else "apartar"
        case _:
            return "responder_no"


def retries_everything(fallo: Any) -> Any:
    return "reintentar"


def retries_every_error(fallo: Any) -> Any:
    return "reintentar" if isinstance(fallo.causa, Exception) else "responder_no"


def retries_what_is_unreadable(fallo: Any) -> Any:
    if isinstance(fallo.causa, InvalidMessageError):
        return "reintentar"
    return decidir(fallo)


def sets_every_error_aside(fallo: Any) -> Any:
    return "apartar" if isinstance(fallo.causa, Exception) else "responder_no"


def sets_os_errors_aside(fallo: Any) -> Any:
    if isinstance(fallo.causa, ConnectionError):
        return "apartar"
    return decidir(fallo)


def answers_no_to_every_error(fallo: Any) -> Any:
    return "responder_no"


def answers_no_to_what_is_slow(fallo: Any) -> Any:
    if isinstance(fallo.causa, TimeoutError):
        return "responder_no"
    return decidir(fallo)


def answers_no_when_refused(fallo: Any) -> Any:
    return "responder_no" if isinstance(fallo.causa, RejectedError) else decidir(fallo)


def answers_no_to_the_unreadable(fallo: Any) -> Any:
    return "responder_no" if isinstance(fallo.causa, PermanentError) else decidir(fallo)


def refuses_broken_connections(fallo: Any) -> Any:
    if isinstance(fallo.causa, BrokerUnavailableError):
        return "rechazar_ya"
    return decidir(fallo)


def sets_every_unknown_outcome_aside(fallo: Any) -> Any:
    return "apartar" if isinstance(fallo.causa, AttemptTimeoutError) else decidir(fallo)


def refuses_without_a_database(fallo: Any) -> Any:
    return "rechazar_ya" if isinstance(fallo.causa, OperationalError) else decidir(fallo)


def sets_aside_what_the_disk_refuses(fallo: Any) -> Any:
    full = isinstance(fallo.causa, OperationalError) and "No space" in str(fallo.causa)
    return "apartar" if full else decidir(fallo)


def knows_one_reason_only(fallo: Any) -> Any:
    reason = getattr(fallo.causa, "reason", None)
    if isinstance(fallo.causa, StockReservationRejected) and reason != "OUT_OF_STOCK":
        return "apartar"
    return decidir(fallo)


def retries_an_open_breaker(fallo: Any) -> Any:
    return "reintentar" if isinstance(fallo.causa, RejectedError) else decidir(fallo)


def compares_types(fallo: Any) -> Any:
    causa = type(fallo.causa)
    table = {
        StockReservationRejected: "responder_no",
        BreakerOpenError: "rechazar_ya",
        InvalidMessageError: "apartar",
    }
    return table.get(causa, "reintentar" if fallo.idempotente else "apartar")


def asks_for_harm_first(fallo: Any) -> Any:
    return decidir(fallo) if fallo.idempotente else "apartar"


def never_asks_for_harm(fallo: Any) -> Any:
    return decidir(replace(fallo, idempotente=True))


def sets_every_charge_aside(fallo: Any) -> Any:
    away = type(fallo.causa).__name__ == "ProviderAwayError"
    return "apartar" if away else decidir(fallo)


def answers_no_to_a_lost_charge(fallo: Any) -> Any:
    return decidir(fallo) if decidir(fallo) != "apartar" or fallo.idempotente else "responder_no"


def raises_it_again(fallo: Any) -> Any:
    raise fallo.causa


def writes_on_it(fallo: Any) -> Any:
    fallo.idempotente = True
    return "reintentar"


def forgets_a_way(fallo: Any) -> Any:
    if isinstance(fallo.causa, TransientError | OSError):
        return "reintentar"
    return None


def capitalizes(fallo: Any) -> Any:
    return decidir(fallo).upper()


seen: set[Any] = set()


def remembers_faults(fallo: Any) -> Any:
    if fallo.de in seen:
        return "apartar"
    seen.add(fallo.de)
    return decidir(fallo)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Answers that remember something begin each test without it."""
    yield
    seen.clear()


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        (
            "04-E1",
            doubles_without_chance,
            "100 clientes vuelven en el mismo instante 5 veces seguidas.",
        ),
        (
            "04-E1",
            doubles_up_to_the_cap,
            "100 clientes vuelven en el mismo instante 5 veces seguidas.",
        ),
        (
            "04-E1",
            begins_without_chance,
            "Tras el intento 1, 100 clientes vuelven en el mismo instante.",
        ),
        ("04-E1", adds_a_pinch, "1000 de 1000 clientes vuelven en el mismo segundo"),
        ("04-E1", caps_nothing, "El intento 60 esperaría millones de años: falta el tope."),
        ("04-E1", caps_elsewhere, "s: el tope es 30 s."),
        ("04-E1", caps_after_the_chance, "primero el tope, después `azar()`"),
        ("04-E1", caps_what_the_server_asked, "El servidor pidió 45 s. Vuelves a los 30 s."),
        ("04-E1", waits_always_the_same, "doblando en cada intento crece 16 veces"),
        ("04-E1", grows_in_steps, "doblando en cada intento crece 16 veces"),
        (
            "04-E1",
            ignores_the_deadline,
            "Esperas 8 s con 3 s de plazo: nadie leerá la respuesta.",
        ),
        (
            "04-E1",
            looks_at_the_deadline_too_early,
            "Esperas 8 s con 3 s de plazo: nadie leerá la respuesta.",
        ),
        (
            "04-E1",
            forgets_the_wish_in_the_sum,
            "Esperas 6 s con 3 s de plazo: nadie leerá la respuesta.",
        ),
        ("04-E1", clips_to_the_deadline, "Recortas la espera a los 3 s que quedan"),
        ("04-E1", gives_up_at_once, "Te rindes tras el intento 1 con 600 s por delante"),
        ("04-E1", forgets_a_return, "Te rindes tras el intento 1 con 600 s por delante"),
        ("04-E1", needs_half_a_minute, "Quedan 3 s de plazo y basta con esperar 1 s"),
        ("04-E1", ignores_the_server, "El servidor pidió 5 s."),
        ("04-E1", spreads_around_the_wish, "El servidor pidió 5 s."),
        ("04-E1", obeys_to_the_second, "suma tu espera a la que pidió"),
        ("04-E1", takes_the_larger, "suma tu espera a la que pidió"),
        ("04-E1", returns_milliseconds, "¿son milisegundos?"),
        ("04-E1", has_chances_of_its_own, "usa solo `azar()`"),
        ("04-E1", forgets_the_parentheses, "`azar` es una función"),
        ("04-E1", compares_none, "`retry_after_s` es `None` si el servidor no pide nada"),
        ("04-E1", returns_text, "se esperan segundos, o `None` para no seguir"),
        ("04-E1", returns_a_boolean, "Devolviste `True`: se esperan segundos"),
        ("04-E1", goes_back_in_time, "y nadie puede esperar eso"),
        ("04-E1", waits_for_ever, "Devolviste `inf`, y nadie puede esperar eso"),
        ("04-E1", asks_like_typescript, "`AttributeError`"),
        (
            "04-E2",
            retries_everything,
            "Reintentas `OUT_OF_STOCK`: la respuesta era un no, no un fallo.",
        ),
        ("04-E2", retries_every_error, 'Reintentas RES-18 con `qty: "dos"`'),
        ("04-E2", retries_what_is_unreadable, 'Reintentas RES-18 con `qty: "dos"`'),
        (
            "04-E2",
            sets_every_error_aside,
            "Veinte mensajes sanos murieron por una caída de 2 s.",
        ),
        ("04-E2", sets_os_errors_aside, "15 mensajes sanos murieron por una caída de 2 s."),
        (
            "04-E2",
            answers_no_to_every_error,
            "Rechazaste ORD-17 con 22 unidades en el almacén.",
        ),
        (
            "04-E2",
            answers_no_to_what_is_slow,
            "Rechazaste ORD-17 con 22 unidades en el almacén.",
        ),
        ("04-E2", answers_no_when_refused, "Rechazaste ORD-17 con 22 unidades en el almacén."),
        ("04-E2", answers_no_to_the_unreadable, "El almacén no ha dicho que no a RES-18"),
        ("04-E2", refuses_broken_connections, "Rechazas RES-104 por una conexión rota"),
        ("04-E2", sets_every_unknown_outcome_aside, "ORD-17 tardó más de 2 s y apartas"),
        ("04-E2", refuses_without_a_database, "La base de datos está llena y rechazas ORD-17"),
        ("04-E2", sets_aside_what_the_disk_refuses, "La base de datos está llena y apartas ORD-17"),
        ("04-E2", knows_one_reason_only, "Apartas `UNKNOWN_SKU` de RES-3"),
        ("04-E2", retries_an_open_breaker, "El cortacircuitos del inventario está abierto"),
        ("04-E2", compares_types, "El cortacircuitos del inventario está abierto"),
        ("04-E2", asks_for_harm_first, "El cobro de ORD-19 no llegó a salir"),
        ("04-E2", never_asks_for_harm, "Reintentas el cobro de ORD-19 sin clave"),
        ("04-E2", sets_every_charge_aside, "El cobro de ORD-20 lleva clave de idempotencia"),
        ("04-E2", raises_it_again, "Tu función se detuvo en la línea"),
        ("04-E2", writes_on_it, "`FrozenInstanceError`"),
        ("04-E2", forgets_a_way, "Tu función no devuelve nada"),
        ("04-E2", capitalizes, "Devolviste `'REINTENTAR'`: se espera una de `reintentar`"),
        ("04-E2", remembers_faults, "la segunda vez decides otra cosa"),
        ("04-E2", answers_no_to_a_lost_charge, "Dices que no a ORD-19 y quizá ya pagó"),
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
        ("04-E1", espera, "1000 clientes"),
        ("04-E1", stops_when_the_longest_does_not_fit, "1000 clientes"),
        ("04-E1", refuses_a_long_wish, "1000 clientes"),
        ("04-E2", decidir, "20 conexiones rotas"),
        ("04-E2", asks_by_the_tree, "20 conexiones rotas"),
    ],
)
def test_a_right_answer_passes_twice_in_a_row(exercise: str, answer: Answer, survived: str) -> None:
    first, again = (exercises.examine(exercise, answer) for _ in range(2))

    assert (first.state, survived in first.text) == ("passed", True), first.text
    assert first == again


@pytest.mark.parametrize(("exercise", "stub"), [("04-E1", waiting_stub), ("04-E2", deciding_stub)])
def test_a_stub_is_pending(exercise: str, stub: Answer) -> None:
    result = exercises.examine(exercise, stub)

    assert result.state == "pending"
    assert result.text.startswith(f"**{exercise} · Pendiente.**")


@pytest.mark.parametrize("exercise", ["04-E1", "04-E2"])
def test_the_hints_are_two(exercise: str) -> None:
    assert len(exercises.EXERCISES[exercise].hints) == 2


@pytest.mark.parametrize("answer", [loops, sleeps])
def test_a_function_that_does_not_end_is_ended(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_PATIENCE_S", 0.2)

    result = exercises.examine("04-E1", answer)

    assert "Tu función no terminó en 0,2 s" in result.text


def test_a_decision_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def ponders(fallo: Any) -> Any:
        while fallo:
            pass

    monkeypatch.setattr(deciding, "_PATIENCE_S", 0.2)

    assert "Tu función no terminó en 0,2 s" in exercises.examine("04-E2", ponders).text


def test_patience_that_was_not_needed_ends_nothing_later() -> None:
    with patience(0.05):
        pass

    time.sleep(0.1)


def test_patience_has_no_end_in_a_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with patience(0.01):
                time.sleep(0.05)
        except BaseException as error:  # noqa: BLE001 - none is expected
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert errors == []


def test_a_function_that_raises_is_not_kept_waiting() -> None:
    with pytest.raises(FlawError, match="no"), patience(5.0):
        raise FlawError("no")


def test_what_failed_is_shown_with_the_question_and_the_answer() -> None:
    pause = exercises.examine("04-E1", ignores_the_deadline).text
    verdict = exercises.examine("04-E2", sets_every_unknown_outcome_aside).text

    assert pause.endswith("`espera(4, 3, None, azar)` → `8`")
    assert verdict.endswith("ORD-17, `AttemptTimeoutError` → `apartar`")
