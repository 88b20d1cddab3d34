"""Notebook 05: each wrong answer fails with its own sentence, the solution passes, the stub waits.

The wrong answers are written as a student would write them, with the pieces of the notebook.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from labkit.lab import exercises
from labkit.lab.servers import Stack
from labkit.lab.workshop import solutions
from labkit.lab.workshop.pieces import (
    OUT_OF_STOCK,
    REJECTED,
    RESERVED,
    Line,
    ReleaseReservationRequested,
    StockReservationRejected,
    StockReserved,
    ask_once,
    give_back,
    in_inventory,
    lines_of,
    outbox,
    reserve_line,
    stock_of,
    write_stock,
)

Answer = Callable[..., Any]


def say(session: Session, mensaje: Any, linea: Any, motivo: str | None) -> None:
    reserva = mensaje.event.reservation_id
    if motivo is None:
        respuesta: Any = StockReserved(reservation_id=reserva, sku=linea.sku, qty=linea.qty)
    else:
        respuesta = StockReservationRejected(reservation_id=reserva, sku=linea.sku, reason=motivo)
    outbox.add(session, respuesta, key=reserva, cause=mensaje)


def reads_then_writes(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        hay = stock_of(session, linea.sku)
        if hay >= linea.qty:
            write_stock(session, mensaje.event.reservation_id, linea, hay - linea.qty)
        say(session, mensaje, linea, None if hay >= linea.qty else OUT_OF_STOCK)


def answers_the_whole(session: Session, mensaje: Any) -> None:
    motivos = [
        reserve_line(session, mensaje.event.reservation_id, linea) for linea in mensaje.event.lines
    ]
    say(session, mensaje, mensaje.event.lines[-1], next(filter(None, motivos), None))


def takes_a_failure_for_a_no(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        try:
            motivo = reserve_line(session, mensaje.event.reservation_id, linea)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            motivo = OUT_OF_STOCK
        say(session, mensaje, linea, motivo)


def takes_it_for_a_no_in_a_savepoint(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        try:
            with session.begin_nested():
                motivo = reserve_line(session, mensaje.event.reservation_id, linea)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            motivo = OUT_OF_STOCK
        say(session, mensaje, linea, motivo)


def commits_each_line(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        say(session, mensaje, linea, reserve_line(session, mensaje.event.reservation_id, linea))
        session.commit()


def opens_another_session(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        with Session(session.get_bind()) as otra, otra.begin():
            motivo = reserve_line(otra, mensaje.event.reservation_id, linea)
            say(otra, mensaje, linea, motivo)


def reserves_and_says_nothing(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        reserve_line(session, mensaje.event.reservation_id, linea)


def says_yes_without_reserving(session: Session, mensaje: Any) -> None:
    for linea in mensaje.event.lines:
        hay = stock_of(session, linea.sku) >= linea.qty
        say(session, mensaje, linea, None if hay else OUT_OF_STOCK)


def has_no_key(session: Session, mensaje: Any) -> None:
    reserva = mensaje.event.reservation_id
    for linea in mensaje.event.lines:
        reserve_line(session, reserva, linea)
        respuesta = StockReserved(reservation_id=reserva, sku=linea.sku, qty=linea.qty)
        outbox.add(session, respuesta, key=None, cause=mensaje)


def reserving_stub(session: Session, mensaje: Any) -> None:
    """Reserva cada línea."""
    raise NotImplementedError


def rest_of(session: Session, mensaje: Any) -> tuple[Line, ...]:
    lineas = lines_of(session, mensaje.event.reservation_id)
    return tuple(Line(each.sku, each.qty) for each in lineas if each.result != REJECTED)


def release_of(mensaje: Any, lineas: tuple[Line, ...]) -> ReleaseReservationRequested:
    return ReleaseReservationRequested(reservation_id=mensaje.event.reservation_id, lines=lineas)


def id_of(mensaje: Any) -> str:
    return f"{mensaje.event.reservation_id}:liberar"


def releases_what_is_reserved(session: Session, mensaje: Any) -> None:
    lineas = lines_of(session, mensaje.event.reservation_id)
    ya = tuple(Line(each.sku, each.qty) for each in lineas if each.result == RESERVED)
    if ya:
        ask_once(session, release_of(mensaje, ya), message_id=id_of(mensaje), cause=mensaje)


def releases_what_comes_later(session: Session, mensaje: Any) -> None:
    lineas = lines_of(session, mensaje.event.reservation_id)
    luego = tuple(Line(each.sku, each.qty) for each in lineas if each.result is None)
    ask_once(session, release_of(mensaje, luego), message_id=id_of(mensaje), cause=mensaje)


def adds_the_stock_itself(session: Session, mensaje: Any) -> None:
    with in_inventory() as otra:
        for linea in lines_of(session, mensaje.event.reservation_id):
            if linea.result == RESERVED:
                give_back(otra, linea)


def adds_it_in_its_own_database(session: Session, mensaje: Any) -> None:
    for linea in lines_of(session, mensaje.event.reservation_id):
        give_back(session, linea)


def takes_a_new_id(session: Session, mensaje: Any) -> None:
    pedido = release_of(mensaje, rest_of(session, mensaje))
    ask_once(session, pedido, message_id=str(uuid.uuid4()), cause=mensaje)


def adds_the_same_id_twice(session: Session, mensaje: Any) -> None:
    pedido = release_of(mensaje, rest_of(session, mensaje))
    outbox.add(session, pedido, key=pedido.reservation_id, message_id=id_of(mensaje), cause=mensaje)


def releases_the_rejected_too(session: Session, mensaje: Any) -> None:
    lineas = lines_of(session, mensaje.event.reservation_id)
    todas = tuple(Line(each.sku, each.qty) for each in lineas)
    ask_once(session, release_of(mensaje, todas), message_id=id_of(mensaje), cause=mensaje)


def does_nothing(session: Session, mensaje: Any) -> None:
    lines_of(session, mensaje.event.reservation_id)


def compensating_stub(session: Session, mensaje: Any) -> None: ...


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("05-E1", reads_then_writes, "Dos pedidos, una unidad, dos `StockReserved`."),
        (
            "05-E1",
            answers_the_whole,
            "RES-3: falta la respuesta de `BOOK-HEX`; el pedido espera para siempre.",
        ),
        (
            "05-E1",
            takes_a_failure_for_a_no,
            "La base de datos cayó y dijiste `OUT_OF_STOCK`: F3 sigue abierta.",
        ),
        ("05-E1", takes_it_for_a_no_in_a_savepoint, "F3 sigue abierta."),
        ("05-E1", commits_each_line, "tu función confirmó o deshizo la transacción"),
        ("05-E1", opens_another_session, "Tras el corte volvió RES-2 y `BOOK-DDD` tiene 2"),
        ("05-E1", reserves_and_says_nothing, "RES-3: falta la respuesta de `BOOK-HEX`"),
        ("05-E1", says_yes_without_reserving, "hay 0 retenidas; se esperan 9 y 1"),
        ("05-E1", has_no_key, "no lleva su reserva por clave"),
        (
            "05-E2",
            releases_what_is_reserved,
            "`BOOK-HEX` se reservó después de tu compensación y nadie la liberó.",
        ),
        (
            "05-E2",
            releases_what_comes_later,
            "`BOOK-DDD` estaba reservada cuando llegó el rechazo y no pediste liberarla.",
        ),
        (
            "05-E2",
            adds_the_stock_itself,
            "fulfillment escribió en la base de datos de inventory.",
        ),
        ("05-E2", adds_it_in_its_own_database, "Quisiste escribir en una tabla de inventory"),
        (
            "05-E2",
            takes_a_new_id,
            (
                "Dos rechazos, dos órdenes de liberación distintas para RES-30: el id debe salir "
                "de la reserva."
            ),
        ),
        ("05-E2", adds_the_same_id_twice, "guardas otra vez el mismo id"),
        ("05-E2", releases_the_rejected_too, "Pides liberar `BOOK-EDA`"),
        ("05-E2", does_nothing, "RES-3 está rechazado y nadie pidió liberar sus otras líneas."),
    ],
)
def test_a_wrong_answer_fails_for_its_own_reason(
    servers: Stack, exercise: str, answer: Answer, sentence: str
) -> None:
    result = exercises.examine(exercise, answer, servers=servers)

    assert (result.state, sentence in result.text) == ("failed", True), result.text
    assert result.text.startswith(f"**{exercise} · Todavía no.**")


@pytest.mark.parametrize(
    ("exercise", "answer", "survived"),
    [
        ("05-E1", solutions.al_pedir_reserva, "corta la conexión tras cada paso"),
        ("05-E2", solutions.al_recibir_rechazo, "la liberación adelanta a la reserva"),
    ],
)
def test_a_right_answer_passes_twice_in_a_row(
    servers: Stack, exercise: str, answer: Answer, survived: str
) -> None:
    first, again = (exercises.examine(exercise, answer, servers=servers) for _ in range(2))

    assert (first.state, survived in first.text) == ("passed", True), first.text
    assert first == again


@pytest.mark.parametrize(
    ("exercise", "stub"), [("05-E1", reserving_stub), ("05-E2", compensating_stub)]
)
def test_a_stub_is_pending(servers: Stack, exercise: str, stub: Answer) -> None:
    result = exercises.examine(exercise, stub, servers=servers)

    assert result.state == "pending"
    assert result.text.startswith(f"**{exercise} · Pendiente.**")
