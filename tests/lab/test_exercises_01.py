"""Notebook 01: each wrong answer fails with its own sentence, the solution passes, the stub waits.

The wrong answers are written as a student would write them, many of them coming from TypeScript.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import pytest

from labkit.lab import exercises
from labkit.lab.exercises.refactoring import renamed
from labkit.messages import Event, Message
from labkit.shop import domain_events
from labkit.shop.contracts import (
    Line,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.shop.domain_events import OrderPlaced
from labkit.shop.order_book import REJECTED, RESERVED, reservation_id_of, status_of

Answer = Callable[..., Any]
PRIVATE = ("OrderStarted", "LineAdded", "LinePriceAdjusted", "CouponApplied", "RiskAssessed")


def lines_of(evento: Any) -> tuple[Line, ...]:
    return tuple(Line(linea.sku, linea.qty) for linea in evento.lines)


def a_publico(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lines_of(evento))


def publishing_stub(evento: Any) -> Any:
    """Traduce."""
    raise NotImplementedError


def matches(evento: Any) -> Any:
    match evento:
        case OrderPlaced(reservation_id=reserva, lines=lineas):
            pedidas = tuple(Line(linea.sku, linea.qty) for linea in lineas)
            return ReserveStockRequested(reservation_id=reserva, lines=pedidas)
        case _:
            return None


def looks_up_the_class(evento: Any) -> Any:
    traductores = {OrderPlaced: a_publico}
    return traductores.get(type(evento), lambda _evento: None)(evento)


def asks_for_the_name(evento: Any) -> Any:
    return a_publico(evento) if type(evento).__name__ == "OrderPlaced" else None


def allows_fields(evento: Any) -> Any:
    """Right in another way: a list of what may leave."""
    if type(evento) is not OrderPlaced:
        return None
    publico = {campo: valor for campo, valor in vars(evento).items() if campo == "reservation_id"}
    return ReserveStockRequested(**publico, lines=lines_of(evento))


def copies_everything(evento: Any) -> Any:
    return asdict(evento)


def spreads_it(evento: Any) -> Any:
    return {**vars(evento)} if isinstance(evento, OrderPlaced) else None


def hands_out_the_domains_own(evento: Any) -> Any:
    return evento if isinstance(evento, OrderPlaced) else None


def writes_json(evento: Any) -> Any:
    return json.dumps(asdict(evento)) if isinstance(evento, OrderPlaced) else None


class PedidoPublico(Event, frozen=True):
    reservation_id: str
    lines: tuple[Line, ...]
    internal_margin: int


def has_an_event_of_its_own(evento: Any) -> Any:
    if isinstance(evento, OrderPlaced):
        return PedidoPublico(
            reservation_id=evento.reservation_id,
            lines=lines_of(evento),
            internal_margin=evento.internal_margin,
        )
    return None


class PedidoIgual(Event, frozen=True):
    reservation_id: str
    lines: tuple[Line, ...]


def has_a_twin_of_the_contract(evento: Any) -> Any:
    if isinstance(evento, OrderPlaced):
        return PedidoIgual(reservation_id=evento.reservation_id, lines=lines_of(evento))
    return None


def keeps_the_domains_lines(evento: Any) -> Any:
    if isinstance(evento, OrderPlaced):
        return ReserveStockRequested(
            reservation_id=evento.reservation_id,
            lines=evento.lines,  # type: ignore[arg-type]
        )
    return None


def writes_a_dict(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    lineas = [{"sku": linea.sku, "qty": linea.qty} for linea in evento.lines]
    return {"reservationId": evento.reservation_id, "lines": lineas}


def wraps_it(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    return {"type": "ReserveStockRequested", "payload": writes_a_dict(evento)}


def returns_a_list(evento: Any) -> Any:
    return [each for each in (a_publico(evento),) if each]


def envelops_it(evento: Any) -> Any:
    event = a_publico(evento)
    return event and Message(
        message_id="1",
        correlation_id=evento.reservation_id,
        event=event,
        occurred_at=datetime(2026, 2, 17, 16, tzinfo=UTC),
        key=evento.reservation_id,
        headers={},
    )


def edits_the_event(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    datos = vars(evento)
    datos["lines"] = lines_of(evento)
    return ReserveStockRequested(reservation_id=datos["reservation_id"], lines=datos["lines"])


def returns_the_class(evento: Any) -> Any:
    return ReserveStockRequested if isinstance(evento, OrderPlaced) else None


def forgets_to_return(evento: Any) -> Any:
    a_publico(evento)


def writes_a_list_of_lines(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    lineas: Any = [Line(linea.sku, linea.qty) for linea in evento.lines]
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lineas)


def writes_lines_as_dicts(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    lineas: Any = tuple({"sku": linea.sku, "qty": linea.qty} for linea in evento.lines)
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lineas)


def writes_quantities_as_text(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    lineas: Any = tuple(Line(linea.sku, str(linea.qty)) for linea in evento.lines)  # type: ignore[arg-type]
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lineas)


def asks_for_one_line(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lines_of(evento)[:1])


def translates_everything(evento: Any) -> Any:
    reserva = reservation_id_of(evento.order_id)
    lineas = getattr(evento, "lines", None)
    pedidas = lines_of(evento) if lineas else (Line("BOOK-DDD", 1),)
    return ReserveStockRequested(reservation_id=reserva, lines=pedidas)


def asks_nothing(evento: Any) -> Any:
    return ReserveStockRequested(reservation_id=evento.reservation_id, lines=lines_of(evento))


def takes_whatever_has_lines(evento: Any) -> Any:
    return asks_nothing(evento) if hasattr(evento, "lines") else None


def raises_on_private_events(evento: Any) -> Any:
    if type(evento).__name__ != "OrderPlaced":
        raise LookupError(evento)
    return a_publico(evento)


def asks_for_a_type_field(evento: Any) -> Any:
    return a_publico(evento) if evento.type == "OrderPlaced" else None


def returns_false(evento: Any) -> Any:
    return isinstance(evento, OrderPlaced) and a_publico(evento)


def correlates_by_the_order(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    return ReserveStockRequested(reservation_id=evento.order_id, lines=lines_of(evento))


def guesses_the_reservation(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    reserva = reservation_id_of(evento.order_id)
    return ReserveStockRequested(reservation_id=reserva, lines=lines_of(evento))


def knows_one_reservation(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    return ReserveStockRequested(reservation_id="RES-2", lines=lines_of(evento))


def forbids_fields(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    datos = {**vars(evento), "lines": lines_of(evento)}
    for privado in ("order_id", "internal_margin", "customer_email"):
        datos.pop(privado)
    return ReserveStockRequested(**datos)


def forbids_fields_gently(evento: Any) -> Any:
    if not isinstance(evento, OrderPlaced):
        return None
    privados = {"order_id", "internal_margin", "customer_email"}
    datos = {campo: valor for campo, valor in vars(evento).items() if campo not in privados}
    return ReserveStockRequested(**datos | {"lines": lines_of(evento)})


def hides_the_rename(evento: Any) -> Any:
    if not hasattr(evento, "internal_margin") or not hasattr(evento, "lines"):
        return None
    return asks_nothing(evento)


def forbids_events(evento: Any) -> Any:
    if type(evento).__name__ in {*PRIVATE, "PickingPlanned", "MarginReported"}:
        return None
    return asks_nothing(evento)


def names_every_event(evento: Any) -> Any:
    """A `switch` with every case, whose `default` raises."""
    if type(evento).__name__ in {*PRIVATE, "PickingPlanned", "MarginReported"}:
        return None
    if isinstance(evento, OrderPlaced):
        return a_publico(evento)
    raise TypeError(evento)


def result_of(mensaje: Any) -> str:
    return RESERVED if isinstance(mensaje.event, StockReserved) else REJECTED


def line_of(mensaje: Any) -> tuple[str, str]:
    return mensaje.event.reservation_id, mensaje.event.sku


def aplicar(lineas: Any, mensaje: Any) -> Any:
    linea = line_of(mensaje)
    if linea not in lineas or lineas[linea] is not None:
        return lineas
    return {**lineas, linea: result_of(mensaje)}


def applying_stub(lineas: Any, mensaje: Any) -> Any: ...


def rebuilds_the_lines(lineas: Any, mensaje: Any) -> Any:
    """Right in another way: every line anew."""
    return {
        linea: antes or (result_of(mensaje) if linea == line_of(mensaje) else None)
        for linea, antes in lineas.items()
    }


def counts_answers(lineas: Any, mensaje: Any) -> Any:
    """The first line without an answer gets this one: so many answers, so many lines."""
    for linea, resultado in lineas.items():
        if resultado is None:
            return {**lineas, linea: result_of(mensaje)}
    return lineas


def last_one_wins(lineas: Any, mensaje: Any) -> Any:
    return dict.fromkeys(lineas, result_of(mensaje))


def last_one_wins_its_line(lineas: Any, mensaje: Any) -> Any:
    return {**lineas, line_of(mensaje): result_of(mensaje)}


def rejection_wins_its_line(lineas: Any, mensaje: Any) -> Any:
    linea = line_of(mensaje)
    if linea not in lineas or lineas[linea] == REJECTED:
        return lineas
    return {**lineas, linea: result_of(mensaje)}


def dedups_by_correlation(lineas: Any, mensaje: Any) -> Any:
    contestadas = {reserva for (reserva, _), resultado in lineas.items() if resultado}
    return lineas if mensaje.correlation_id in contestadas else aplicar(lineas, mensaje)


conversations: set[str] = set()


def remembers_conversations(lineas: Any, mensaje: Any) -> Any:
    if mensaje.correlation_id in conversations:
        return lineas
    conversations.add(mensaje.correlation_id)
    return aplicar(lineas, mensaje)


handled: set[str] = set()


def remembers_messages(lineas: Any, mensaje: Any) -> Any:
    if mensaje.message_id in handled:
        return lineas
    handled.add(mensaje.message_id)
    return aplicar(lineas, mensaje)


def mutates(lineas: Any, mensaje: Any) -> Any:
    lineas[line_of(mensaje)] = result_of(mensaje)
    return lineas


def mutates_and_returns_nothing(lineas: Any, mensaje: Any) -> None:
    lineas[line_of(mensaje)] = result_of(mensaje)


def copies_and_returns_nothing(lineas: Any, mensaje: Any) -> None:
    aplicar(lineas, mensaje)


def returns_the_status(lineas: Any, mensaje: Any) -> Any:
    return status_of(aplicar(lineas, mensaje).values())


def returns_a_pair(lineas: Any, mensaje: Any) -> Any:
    return aplicar(lineas, mensaje), status_of(lineas.values())


def returns_one_line(lineas: Any, mensaje: Any) -> Any:
    return {line_of(mensaje): result_of(mensaje)}


def keys_by_sku(lineas: Any, mensaje: Any) -> Any:
    return {**lineas, mensaje.event.sku: result_of(mensaje)}


def keeps_the_reason(lineas: Any, mensaje: Any) -> Any:
    nuevas = aplicar(lineas, mensaje)
    motivo = getattr(mensaje.event, "reason", None)
    return nuevas if motivo is None else {**nuevas, line_of(mensaje): motivo}


def keeps_a_boolean(lineas: Any, mensaje: Any) -> Any:
    linea = line_of(mensaje)
    return {**lineas, linea: isinstance(mensaje.event, StockReserved)}


def closes_after_a_no(lineas: Any, mensaje: Any) -> Any:
    return lineas if REJECTED in lineas.values() else aplicar(lineas, mensaje)


def rejects_all_lines(lineas: Any, mensaje: Any) -> Any:
    if isinstance(mensaje.event, StockReservationRejected):
        return dict.fromkeys(lineas, REJECTED)
    return aplicar(lineas, mensaje)


def takes_every_answer_for_a_yes(lineas: Any, mensaje: Any) -> Any:
    linea = line_of(mensaje)
    return {**lineas, linea: lineas[linea] or RESERVED}


def answers_for_the_others(lineas: Any, mensaje: Any) -> Any:
    """Two reserved lines are enough for it."""
    nuevas = aplicar(lineas, mensaje)
    rest = [linea for linea, resultado in nuevas.items() if resultado is None]
    return {**nuevas, rest[0]: REJECTED} if len(nuevas) > 2 and len(rest) == 1 else nuevas


def maps_the_lines(lineas: Any, mensaje: Any) -> Any:
    return lineas.map(lambda linea: linea)


def changes_nothing(lineas: Any, mensaje: Any) -> Any:
    return dict(lineas)


def raises_on_a_repetition(lineas: Any, mensaje: Any) -> Any:
    if lineas[line_of(mensaje)] is not None:
        raise ValueError("ya contestó")
    return aplicar(lineas, mensaje)


def raises_on_a_stranger(lineas: Any, mensaje: Any) -> Any:
    return lineas if lineas[line_of(mensaje)] else {**lineas, line_of(mensaje): result_of(mensaje)}


def looks_at_the_sku_only(lineas: Any, mensaje: Any) -> Any:
    for reserva, sku in lineas:
        if sku == mensaje.event.sku and lineas[reserva, sku] is None:
            return {**lineas, (reserva, sku): result_of(mensaje)}
    return lineas


def adds_what_it_does_not_know(lineas: Any, mensaje: Any) -> Any:
    linea = line_of(mensaje)
    return lineas if lineas.get(linea) else {**lineas, linea: result_of(mensaje)}


def adds_unknown_articles(lineas: Any, mensaje: Any) -> Any:
    [propia] = {reserva for reserva, _ in lineas}
    mine = mensaje.event.reservation_id == propia
    return adds_what_it_does_not_know(lineas, mensaje) if mine else lineas


def believes_its_annotations(lineas: Any, mensaje: Any) -> Any:
    return {**lineas, mensaje.payload.sku: RESERVED}


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Answers that remember something begin each test without it."""
    yield
    conversations.clear()
    handled.clear()


RENAMED = "Renombré `internal_margin` en el dominio (ahora es `net_margin`)"
NAME_IT = "nombra lo que sale, no lo que se queda."


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        (
            "01-E1",
            copies_everything,
            (
                "Sale `internalMargin`, que es privado: el contrato solo admite `reservationId` y "
                "`lines`."
            ),
        ),
        ("01-E1", spreads_it, "Sale `internalMargin`, que es privado"),
        ("01-E1", hands_out_the_domains_own, "Sale `internalMargin`, que es privado"),
        ("01-E1", writes_json, "Sale `internalMargin`, que es privado"),
        ("01-E1", has_an_event_of_its_own, "Sale `internalMargin`, que es privado"),
        (
            "01-E1",
            keeps_the_domains_lines,
            (
                "Sale `unitCost`, que es privado: de cada línea, el contrato solo admite `sku` y "
                "`qty`."
            ),
        ),
        ("01-E1", wraps_it, "Sale `type`, que sobra"),
        ("01-E1", writes_a_dict, "Devolviste `dict`: el evento de integración es un objeto"),
        ("01-E1", has_a_twin_of_the_contract, "Devolviste `PedidoIgual`: el evento de integración"),
        ("01-E1", returns_a_list, "Devolviste `list`: el evento de integración es un objeto"),
        ("01-E1", envelops_it, "Sale `messageId`, que sobra"),
        ("01-E1", edits_the_event, "Cambiaste el `OrderPlaced` que te dieron"),
        ("01-E1", returns_the_class, "Devolviste la clase `ReserveStockRequested`"),
        ("01-E1", forgets_to_return, "Del `OrderPlaced` de ORD-2 no sale nada"),
        ("01-E1", writes_a_list_of_lines, "`lines` es `list` y el contrato pide una tupla"),
        ("01-E1", writes_lines_as_dicts, "En `lines` hay `dict` y el contrato pide `Line(sku, qty"),
        ("01-E1", writes_quantities_as_text, "La bandeja de salida no admite tu evento."),
        ("01-E1", asks_for_one_line, "no pide lo mismo que el pedido: se esperan sus 2 líneas"),
        (
            "01-E1",
            translates_everything,
            (
                "`LinePriceAdjusted` no le importa a nadie fuera: salieron 10 mensajes, se "
                "esperaba 1."
            ),
        ),
        (
            "01-E1",
            takes_whatever_has_lines,
            "`PickingPlanned` no le importa a nadie fuera: salieron 2 mensajes, se esperaba 1.",
        ),
        (
            "01-E1",
            asks_nothing,
            "`OrderStarted` es privado, y tu función terminó con él en `AttributeError`",
        ),
        (
            "01-E1",
            raises_on_private_events,
            "`OrderStarted` es privado, y tu función terminó con él en `LookupError`",
        ),
        ("01-E1", asks_for_a_type_field, "'OrderPlaced' object has no attribute 'type'"),
        ("01-E1", returns_false, "Con `OrderStarted` devolviste `False`"),
        (
            "01-E1",
            correlates_by_the_order,
            "La respuesta de RES-2 no encuentra su conversación: `correlationId` es ORD-2.",
        ),
        (
            "01-E1",
            guesses_the_reservation,
            "La respuesta de RES-2001 no encuentra su conversación: `correlationId` es RES-1001.",
        ),
        (
            "01-E1",
            knows_one_reservation,
            "La respuesta de RES-2001 no encuentra su conversación: `correlationId` es RES-2.",
        ),
        ("01-E1", forbids_fields, f"{RENAMED} y tu función terminó en `KeyError`: {NAME_IT}"),
        (
            "01-E1",
            forbids_fields_gently,
            f"{RENAMED} y tu función terminó en `TypeError`: {NAME_IT}",
        ),
        ("01-E1", hides_the_rename, f"{RENAMED} y no sale nada: {NAME_IT}"),
        (
            "01-E1",
            forbids_events,
            f"El dominio estrena `GiftNoteWritten` y ya sale un mensaje: {NAME_IT}",
        ),
        (
            "01-E1",
            names_every_event,
            "El dominio estrena `GiftNoteWritten` y tu función terminó en `TypeError`",
        ),
        (
            "01-E2",
            counts_answers,
            "Con A, A otra vez y B das por completado el pedido y C no ha contestado.",
        ),
        (
            "01-E2",
            last_one_wins,
            "Tras el rechazo de C llega la reserva de B y el pedido vuelve a RESERVED.",
        ),
        (
            "01-E2",
            dedups_by_correlation,
            "Descartas la segunda línea de RES-2: comparte correlación, no identidad.",
        ),
        ("01-E2", remembers_conversations, "Descartas la segunda línea de RES-2"),
        ("01-E2", remembers_messages, "tu función recuerda algo fuera de `lineas`"),
        ("01-E2", mutates, "Cambiaste las líneas que te dieron"),
        ("01-E2", mutates_and_returns_nothing, "Cambiaste las líneas que te dieron"),
        ("01-E2", copies_and_returns_nothing, "no devuelve nada: falta un `return`"),
        ("01-E2", returns_the_status, "Devolviste `str`: se espera un diccionario como `lineas`"),
        ("01-E2", returns_a_pair, "Devolviste `tuple`: se espera un diccionario como `lineas`"),
        ("01-E2", returns_one_line, "Perdiste la línea `('RES-2', 'BOOK-EDA')`: devuelve todas"),
        ("01-E2", keys_by_sku, "`'BOOK-DDD'` no es una línea del pedido, y la añadiste"),
        ("01-E2", keeps_the_reason, "La línea C quedó en `'OUT_OF_STOCK'`: un resultado es"),
        ("01-E2", keeps_a_boolean, "La línea BOOK-DDD quedó en `True`: un resultado es"),
        (
            "01-E2",
            closes_after_a_no,
            "Tras el rechazo de C descartas la reserva de B: nadie sabrá que hay que devolver",
        ),
        ("01-E2", rejects_all_lines, "La línea A dice REJECTED y contestó RESERVED."),
        ("01-E2", takes_every_answer_for_a_yes, "C contestó REJECTED y su línea dice RESERVED"),
        ("01-E2", answers_for_the_others, "La línea C dice REJECTED y aún no ha contestado."),
        ("01-E2", maps_the_lines, "'dict' object has no attribute 'map'"),
        ("01-E2", changes_nothing, "RES-2 contestó por `BOOK-DDD` y su línea sigue sin resultado"),
        ("01-E2", raises_on_a_repetition, "Una repetición no es un error: tu función terminó en"),
        (
            "01-E2",
            last_one_wins_its_line,
            "Tras el rechazo de C llega su reserva y el pedido vuelve a RESERVED: cada línea",
        ),
        (
            "01-E2",
            rejection_wins_its_line,
            "Tras la reserva de B llega su rechazo y el pedido pasa a REJECTED: cada línea guarda",
        ),
        ("01-E2", raises_on_a_stranger, "El resultado de B en RES-1002 no es un error"),
        (
            "01-E2",
            looks_at_the_sku_only,
            "Aplicaste a RES-1001 el resultado de B en RES-1002",
        ),
        ("01-E2", adds_what_it_does_not_know, "`('RES-1002', 'B')` no es una línea del pedido"),
        ("01-E2", adds_unknown_articles, "`('RES-1001', 'X')` no es una línea del pedido"),
        ("01-E2", believes_its_annotations, "'Message' object has no attribute 'payload'"),
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
        ("01-E1", a_publico, "pasan 10 eventos dentro y sale 1"),
        ("01-E1", matches, "RES-2 y RES-2001"),
        ("01-E1", looks_up_the_class, "RES-2 y RES-2001"),
        ("01-E1", asks_for_the_name, "RES-2 y RES-2001"),
        ("01-E1", allows_fields, "RES-2 y RES-2001"),
        ("01-E2", aplicar, "36 órdenes de llegada"),
        ("01-E2", rebuilds_the_lines, "36 órdenes de llegada"),
    ],
)
def test_a_right_answer_passes_twice_in_a_row(exercise: str, answer: Answer, survived: str) -> None:
    first, again = (exercises.examine(exercise, answer) for _ in range(2))

    assert (first.state, survived in first.text) == ("passed", True), first.text
    assert first == again


@pytest.mark.parametrize(
    ("exercise", "stub"), [("01-E1", publishing_stub), ("01-E2", applying_stub)]
)
def test_a_stub_is_pending(exercise: str, stub: Answer) -> None:
    result = exercises.examine(exercise, stub)

    assert result.state == "pending"
    assert result.text.startswith(f"**{exercise} · Pendiente.**")


@pytest.mark.parametrize("exercise", ["01-E1", "01-E2"])
def test_the_hints_are_two(exercise: str) -> None:
    assert len(exercises.EXERCISES[exercise].hints) == 2


def test_a_field_is_renamed_for_everyone_who_looks_and_only_meanwhile() -> None:
    with renamed(OrderPlaced, "internal_margin", "net_margin"):
        [placed] = [
            each
            for each in domain_events.history_of("ORD-1", [("BOOK-DDD", 2)])
            if type(each) is OrderPlaced
        ]
        copy = asdict(placed)

    assert "net_margin" in copy
    assert "internal_margin" not in copy
    assert "internal_margin" in {each.name for each in fields(OrderPlaced)}


def test_a_rename_ends_when_something_raises_inside() -> None:
    with pytest.raises(ZeroDivisionError), renamed(OrderPlaced, "lines", "items"):
        raise ZeroDivisionError

    assert "lines" in {each.name for each in fields(OrderPlaced)}
    assert OrderPlaced("ORD-1", "RES-1", (), 1, "a@example.org").lines == ()
