"""Notebook 02: each wrong answer fails with its own sentence, the solution passes, the stub waits.

The wrong answers are written as a student would write them, with the pieces of the notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from labkit.lab import exercises
from labkit.lab.exercises.pieces import (
    PayloadMismatchError,
    ReserveStockRequested,
    digest_of,
    inbox,
    outbox,
    publish,
    save_order,
    take_stock,
)
from labkit.lab.servers import Stack

Answer = Callable[..., Any]


def request_of(pedido: Any) -> ReserveStockRequested:
    return ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines)


def colocar_pedido(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    outbox.add(session, request_of(pedido), key=pedido.reservation_id)


def placing_stub(session: Session, pedido: Any) -> None:
    """Guarda el pedido y su evento."""
    raise NotImplementedError


def commits_inside(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    session.commit()
    outbox.add(session, request_of(pedido), key=pedido.reservation_id)


def publishes(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    publish(request_of(pedido), key=pedido.reservation_id)


def opens_another_session(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    with Session(session.get_bind()) as otra:
        outbox.add(otra, request_of(pedido), key=pedido.reservation_id)
        otra.commit()


def adds_after_the_commit(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    engine = session.get_bind()

    def add(_session: Session) -> None:
        with Session(engine) as otra:
            outbox.add(otra, request_of(pedido), key=pedido.reservation_id)
            otra.commit()

    event.listen(session, "after_commit", add, once=True)


def forgets_the_event(session: Session, pedido: Any) -> None:
    save_order(session, pedido)


def forgets_the_order(session: Session, pedido: Any) -> None:
    outbox.add(session, request_of(pedido), key=pedido.reservation_id)


def adds_twice(session: Session, pedido: Any) -> None:
    colocar_pedido(session, pedido)
    outbox.add(session, request_of(pedido), key=pedido.reservation_id)


def sends_it_too(session: Session, pedido: Any) -> None:
    colocar_pedido(session, pedido)
    event.listen(
        session,
        "after_commit",
        lambda _session: publish(request_of(pedido), key=pedido.reservation_id),
    )


def waits_for_itself(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    with Session(session.get_bind()) as otra:
        save_order(otra, pedido)


open_sessions: list[Session] = []


def leaves_a_session_open(session: Session, pedido: Any) -> None:
    otra = Session(session.get_bind())
    open_sessions.append(otra)
    otra.execute(text("lock table outbox_messages"))
    commits_inside(session, pedido)


def has_no_key(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    outbox.add(session, request_of(pedido), key=None)


def asks_for_one_line(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    request = ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines[:1])
    outbox.add(session, request, key=pedido.reservation_id)


def atender(session: Session, mensaje: Any) -> None:
    noted = {mensaje.message_id: digest_of(mensaje)}
    accepted = inbox.accept(session.connection(), "inventory", noted)
    if accepted.mismatched:
        raise PayloadMismatchError(mensaje.message_id)
    if accepted.fresh:
        take_stock(session, mensaje)


def handling_stub(session: Session, mensaje: Any) -> None: ...


def selects_then_inserts(session: Session, mensaje: Any) -> None:
    if inbox.handled(session.connection(), "inventory", [mensaje.message_id]):
        return
    inbox.accept(session.connection(), "inventory", {mensaje.message_id: digest_of(mensaje)})
    take_stock(session, mensaje)


def notes_first(session: Session, mensaje: Any) -> None:
    with Session(session.get_bind()) as otra:
        noted = {mensaje.message_id: digest_of(mensaje)}
        accepted = inbox.accept(otra.connection(), "inventory", noted)
        otra.commit()
    if accepted.fresh:
        take_stock(session, mensaje)


def notes_afterwards(session: Session, mensaje: Any) -> None:
    if inbox.handled(session.connection(), "inventory", [mensaje.message_id]):
        return
    take_stock(session, mensaje)
    session.commit()
    inbox.accept(session.connection(), "inventory", {mensaje.message_id: digest_of(mensaje)})


def has_no_inbox(session: Session, mensaje: Any) -> None:
    take_stock(session, mensaje)


def notes_the_conversation(session: Session, mensaje: Any) -> None:
    noted = {mensaje.correlation_id: digest_of(mensaje)}
    if inbox.accept(session.connection(), "inventory", noted).fresh:
        take_stock(session, mensaje)


def raises_on_a_repetition(session: Session, mensaje: Any) -> None:
    noted = {mensaje.message_id: digest_of(mensaje)}
    if not inbox.accept(session.connection(), "inventory", noted).fresh:
        raise ValueError("repetido")
    take_stock(session, mensaje)


def ignores_other_content(session: Session, mensaje: Any) -> None:
    noted = {mensaje.message_id: digest_of(mensaje)}
    if inbox.accept(session.connection(), "inventory", noted).fresh:
        take_stock(session, mensaje)


def inserts_strictly(session: Session, mensaje: Any) -> None:
    """Right in another way: the second INSERT fails, and its message comes again."""
    digest = digest_of(mensaje)
    known = inbox.handled(session.connection(), "inventory", [mensaje.message_id])
    if known.get(mensaje.message_id, digest) != digest:
        raise PayloadMismatchError(mensaje.message_id)
    if known:
        return
    row = {"consumer": "inventory", "message_id": mensaje.message_id, "digest": digest}
    session.execute(inbox.table.insert().values(row))
    take_stock(session, mensaje)


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        (
            "02-E1",
            commits_inside,
            (
                "Deshice la transacción y ORD-5 sigue ahí: no confirmes tú, es la transacción de "
                "quien llama."
            ),
        ),
        ("02-E1", publishes, "ORD-5 salió al stream y su pedido no existe."),
        (
            "02-E1",
            opens_another_session,
            "El pedido ORD-5 se deshizo y su evento no: son dos transacciones.",
        ),
        (
            "02-E1",
            adds_after_the_commit,
            "ORD-4 se confirmó, el proceso murió y su evento no está en la bandeja de salida.",
        ),
        ("02-E1", sends_it_too, "ORD-1 salió al stream desde tu función"),
        ("02-E1", waits_for_itself, "esperó demasiado a un bloqueo"),
        ("02-E1", leaves_a_session_open, "Deshice la transacción y ORD-5 sigue ahí"),
        ("02-E1", forgets_the_event, "ORD-1 está guardado y su evento no está en la bandeja"),
        ("02-E1", forgets_the_order, "ORD-1 no está en la tabla `orders`"),
        ("02-E1", adds_twice, "ORD-1 dejó 2 eventos en la bandeja de salida; se espera uno."),
        ("02-E1", has_no_key, "El evento de ORD-1 no lleva clave"),
        ("02-E1", asks_for_one_line, "no pide lo mismo que el pedido"),
        (
            "02-E2",
            selects_then_inserts,
            "Dos entregas a la vez pasaron la pregunta y reservaron 4 en lugar de 2.",
        ),
        (
            "02-E2",
            notes_first,
            "Caída tras anotarlo: la repetición se descartó y la reserva no existe.",
        ),
        (
            "02-E2",
            notes_afterwards,
            "Caída antes de anotarlo: la reserva se hizo dos veces.",
        ),
        ("02-E2", has_no_inbox, "RES-1-a llegó 3 veces"),
        ("02-E2", notes_the_conversation, "comparte correlación, no identidad"),
        ("02-E2", raises_on_a_repetition, "Una repetición no es un error"),
        ("02-E2", ignores_other_content, "mismo id y otro contenido no es una repetición"),
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
        ("02-E1", colocar_pedido, "4 muertes del proceso"),
        ("02-E2", atender, "3 muertes del proceso"),
        ("02-E2", inserts_strictly, "4 muertes del proceso"),
    ],
)
def test_a_right_answer_passes_twice_in_a_row(
    servers: Stack, exercise: str, answer: Answer, survived: str
) -> None:
    first, again = (exercises.examine(exercise, answer, servers=servers) for _ in range(2))

    assert (first.state, survived in first.text) == ("passed", True), first.text
    assert first == again


@pytest.mark.parametrize(("exercise", "stub"), [("02-E1", placing_stub), ("02-E2", handling_stub)])
def test_a_stub_is_pending(servers: Stack, exercise: str, stub: Answer) -> None:
    result = exercises.examine(exercise, stub, servers=servers)

    assert result.state == "pending"
    assert result.text.startswith(f"**{exercise} · Pendiente.**")
