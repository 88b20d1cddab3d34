"""The gaps of the workshop that are no exercise of their own: 1, 2 and 5."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from labkit.lab import exercises
from labkit.lab.servers import Stack
from labkit.lab.workshop import solutions
from labkit.lab.workshop.pieces import (
    RESERVATION_PENDING,
    RESERVED,
    ReserveStockRequested,
    move_order,
    outbox,
    result_of,
    routing,
    save_order,
    status_of,
    view,
    write_result,
)

Answer = Callable[..., Any]


def saves(session: Session, pedido: Any, *, without: str = "", status: str = "") -> None:
    reserva = pedido.reservation_id
    save_order(session, pedido)
    if without != "ruta":
        routing.expect(session, reserva, {each.sku: pedido.order_id for each in pedido.lines})
    if without != "vista":
        first = (pedido.order_id, status or RESERVATION_PENDING, reserva, pedido.placed_at)
        view.show_first(session.connection(), *first)
    if without != "petición":
        peticion = ReserveStockRequested(reservation_id=reserva, lines=pedido.lines)
        outbox.add(session, peticion, key=None if without == "clave" else reserva)


def forgets_the_way(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="ruta")


def forgets_the_view(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="vista")


def forgets_the_request(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="petición")


def forgets_the_key(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="clave")


def promises_too_much(session: Session, pedido: Any) -> None:
    saves(session, pedido, status=RESERVED)


def commits(session: Session, pedido: Any) -> None:
    saves(session, pedido)
    session.commit()


def asks_in_another_transaction(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="petición")
    with Session(session.get_bind()) as otra, otra.begin():
        peticion = ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines)
        outbox.add(otra, peticion, key=pedido.reservation_id)


def asks_after_the_commit(session: Session, pedido: Any) -> None:
    saves(session, pedido, without="petición")
    session.commit()
    peticion = ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines)
    outbox.add(session, peticion, key=pedido.reservation_id)


def placing_stub(session: Session, pedido: Any) -> None:
    raise NotImplementedError


def by_hand(service: Any, engine: Any, transport: Any, parar: Any, *, marks_first: bool) -> None:
    table = service.outbox.table
    while not parar.is_set():
        with Session(engine) as session:
            waiting = select(table).where(table.c.published_at.is_(None)).order_by(table.c.seq)
            for row in session.execute(waiting).all():
                key = transport.stream_key(service.stream, row.partition)
                mark = update(table).where(table.c.seq == row.seq)
                if not marks_first:
                    transport.client.xadd(key, {"body": row.body})
                session.execute(mark.values(published_at=datetime.now(UTC)))
                session.commit()
                if marks_first:
                    transport.client.xadd(key, {"body": row.body})


def marks_first(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    by_hand(service, engine, transport, parar, marks_first=True)


def publishes_by_hand(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    """Right as long as nobody else publishes, which the workshop does not ask for."""
    by_hand(service, engine, transport, parar, marks_first=False)


def publishes_once(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    service.relay(engine, transport).run_once()


def waits_and_does_nothing(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    service.relay(engine, transport)


def relaying_stub(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    raise NotImplementedError


def last_one_wins(session: Session, mensaje: Any) -> None:
    evento = mensaje.event
    hallado = routing.answer(session, evento.reservation_id, evento.sku, result_of(evento))
    write_result(session, hallado.target, evento)
    every = all(hallado.answers.values())
    partly = "PARTIALLY_RESERVED" if result_of(evento) == RESERVED else result_of(evento)
    session.execute(
        update(view.table).where(view.table.c.order_id == hallado.target).values(version=1)
    )
    move_past_the_end(session, hallado.target, result_of(evento) if every else partly, mensaje)


def move_past_the_end(session: Session, order_id: str, status: str, cause: Any) -> None:
    from labkit.shop import fulfillment  # noqa: PLC0415 - a wrong answer's own way

    orders = fulfillment.orders
    mine = update(orders).where(orders.c.order_id == order_id)
    session.execute(mine.values(status=RESERVATION_PENDING))
    move_order(session, order_id, status, cause=cause)


def counts_answers(session: Session, mensaje: Any) -> None:
    evento = mensaje.event
    hallado = routing.answer(session, evento.reservation_id, evento.sku, result_of(evento))
    write_result(session, hallado.target, evento)
    if all(hallado.answers.values()):
        move_order(session, hallado.target, RESERVED, cause=mensaje)


def writes_no_line(session: Session, mensaje: Any) -> None:
    evento = mensaje.event
    hallado = routing.answer(session, evento.reservation_id, evento.sku, result_of(evento))
    move_order(session, hallado.target, status_of(hallado.answers.values()), cause=mensaje)


def answering_stub(session: Session, mensaje: Any) -> None:
    raise NotImplementedError


def shows_now(mensaje: Any) -> dict[str, Any]:
    return solutions.fila(mensaje) | {"updated_at": datetime.now(UTC)}


def has_one_version(mensaje: Any) -> dict[str, Any]:
    return solutions.fila(mensaje) | {"version": 2}


def lacks_a_column(mensaje: Any) -> dict[str, Any]:
    return {"order_id": mensaje.event.order_id, "status": mensaje.event.status}


def showing_stub(mensaje: Any) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("gap", "answer", "sentence"),
    [
        ("05-W1", forgets_the_way, "ORD-2 se confirmó sin la ruta"),
        ("05-W1", forgets_the_view, "ORD-2 se confirmó sin la fila de la vista"),
        ("05-W1", forgets_the_request, "ORD-2 se confirmó sin la petición"),
        ("05-W1", forgets_the_key, "La petición no lleva clave RES-2"),
        ("05-W1", promises_too_much, "La primera fila de la vista dice RESERVED"),
        ("05-W1", commits, "Deshice la transacción y sigue ahí el pedido de ORD-2"),
        ("05-W1", asks_in_another_transaction, "sigue ahí la petición de ORD-2"),
        ("05-W1", asks_after_the_commit, "Deshice la transacción y sigue ahí el pedido"),
        ("05-W2", marks_first, "lo marcaste antes de publicarlo y se perdió."),
        ("05-W2", publishes_once, "volvió antes de que se activara `parar`"),
        ("05-W2", waits_and_does_nothing, "volvió antes de que se activara `parar`"),
        ("05-W5", last_one_wins, "un rechazo no se olvida."),
        ("05-W5", counts_answers, "ORD-2 recibe tres reservas y pasa por RESERVATION_PENDING"),
        ("05-W5", writes_no_line, "sus líneas no dicen qué se contestó: `write_result`."),
        ("05-W5-vista", shows_now, "usa solo lo que dice el mensaje"),
        ("05-W5-vista", has_one_version, "con ella gana el más nuevo"),
        ("05-W5-vista", lacks_a_column, "La fila es un `dict` con `order_id`"),
    ],
)
def test_a_wrong_function_is_told_why(
    servers: Stack, gap: str, answer: Answer, sentence: str
) -> None:
    result = exercises.examine(gap, answer, servers=servers)

    assert (result.state, sentence in result.text) == ("failed", True), result.text


@pytest.mark.parametrize(
    ("gap", "answer", "survived"),
    [
        ("05-W1", solutions.colocar, "los cuatro o ninguno"),
        ("05-W2", solutions.publicar, "con el mismo id"),
        ("05-W2", publishes_by_hand, "todos en el stream, una vez y en orden"),
        ("05-W5", solutions.al_contestar, "24 órdenes de llegada"),
        ("05-W5-vista", solutions.fila, "las mismas filas"),
    ],
)
def test_a_right_function_survives(servers: Stack, gap: str, answer: Answer, survived: str) -> None:
    result = exercises.examine(gap, answer, servers=servers)

    assert (result.state, survived in result.text) == ("passed", True), result.text


@pytest.mark.parametrize(
    ("gap", "stub"),
    [
        ("05-W1", placing_stub),
        ("05-W2", relaying_stub),
        ("05-W5", answering_stub),
        ("05-W5-vista", showing_stub),
    ],
)
def test_a_stub_is_pending(servers: Stack, gap: str, stub: Answer) -> None:
    assert exercises.examine(gap, stub, servers=servers).state == "pending"
