"""Solutions: the seven functions that fill the six gaps, as a student could have written them."""

from __future__ import annotations

from typing import Any

from labkit.lab.workshop.pieces import (
    REJECTED,
    RESERVATION_PENDING,
    Line,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
    ask_once,
    lines_of,
    move_order,
    outbox,
    reserve_line,
    result_of,
    routing,
    save_order,
    status_of,
    view,
    write_result,
)


def colocar(session: Any, pedido: Any) -> None:
    """Pedido, ruta, primera fila de la vista y petición: una transacción, la de quien llama."""
    reserva = pedido.reservation_id
    save_order(session, pedido)
    routing.expect(session, reserva, {linea.sku: pedido.order_id for linea in pedido.lines})
    fila = (pedido.order_id, RESERVATION_PENDING, reserva, pedido.placed_at)
    view.show_first(session.connection(), *fila)
    peticion = ReserveStockRequested(reservation_id=reserva, lines=pedido.lines)
    outbox.add(session, peticion, key=reserva)


def publicar(service: Any, engine: Any, transport: Any, parar: Any) -> None:
    """Arranca el repetidor del servicio; publica hasta que se le diga que pare."""
    repetidor = service.relay(engine, transport)
    repetidor.run(parar)


def al_pedir_reserva(session: Any, mensaje: Any) -> None:
    """Una respuesta por línea; un fallo técnico sale como excepción y nadie dice que no."""
    reserva = mensaje.event.reservation_id
    for linea in mensaje.event.lines:
        motivo = reserve_line(session, reserva, linea)
        sobre = {"reservation_id": reserva, "sku": linea.sku}
        respuesta = (
            StockReserved(**sobre, qty=linea.qty)
            if motivo is None
            else StockReservationRejected(**sobre, reason=motivo)
        )
        outbox.add(session, respuesta, key=reserva, cause=mensaje)


def al_contestar(session: Any, mensaje: Any) -> None:
    """Apunta la respuesta en su línea; el estado sale de todas las respuestas."""
    evento = mensaje.event
    hallado = routing.answer(session, evento.reservation_id, evento.sku, result_of(evento))
    if hallado.new:
        write_result(session, hallado.target, evento)
    move_order(session, hallado.target, status_of(hallado.answers.values()), cause=mensaje)


def fila(mensaje: Any) -> dict[str, Any]:
    """La fila de la vista sale del evento, y de nada más."""
    cambio = mensaje.event
    ids = {"order_id": cambio.order_id, "reservation_id": cambio.reservation_id}
    estado = {"status": cambio.status, "updated_at": mensaje.occurred_at}
    return ids | estado | {"version": cambio.order_version}


def al_recibir_rechazo(session: Any, mensaje: Any) -> None:
    """Pide, una sola vez, que se libere toda línea que no se haya rechazado."""
    reserva = mensaje.event.reservation_id
    lineas = [linea for linea in lines_of(session, reserva) if linea.result != REJECTED]
    resto = tuple(Line(linea.sku, linea.qty) for linea in lineas)
    peticion = ReleaseReservationRequested(reservation_id=reserva, lines=resto)
    ask_once(session, peticion, message_id=f"{reserva}:liberar", cause=mensaje)
