"""Deliveries: a message handed to a student's function as labkit's own consumer hands it over.

The inbox is labkit's, and so is the transaction: `Dispatcher` notes the id, calls the function in
a lent session and commits, or nothing has happened.

Guarantee: what a real consumer would refuse (a commit of one's own, a swallowed database error) is
refused here too, in words for the student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit.dispatch import Dispatcher
from labkit.errors import HandlerTransactionError, TransientError
from labkit.handlers import Handler
from labkit.inbox import Inbox
from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling
from labkit.messages import Event, Message, encode
from labkit.ports import Entry
from labkit.shop.contracts import REGISTRY
from labkit.wire import decode_envelope

STORY_TIME = datetime(2026, 2, 17, 16, tzinfo=UTC)


def message_of(message_id: str, event: Any) -> Message[Any]:
    """Return a message of the conversation that its reservation is."""
    return REGISTRY.message(decode_envelope(_body(message_id, event)))


class Consumer:
    """A consumer that gets what it is handed.

    Args:
        name: as the inbox knows it.
        inbox: the service's.
        function: the student's.
        handle: what is registered; the function itself by default.
    """

    def __init__(
        self,
        name: str,
        inbox: Inbox,
        function: StudentFunction,
        handle: Callable[[Session, Message[Any]], object] | None = None,
    ) -> None:
        self._name, self._inbox, self._function = name, inbox, function
        self._handle: Any = handle or function

    def deliver(self, engine: Engine, message: Message[Any]) -> int:
        """Hand a message over in a transaction of its own; return how often it was handled.

        Raises:
            FlawError: when the function raised, or did what labkit refuses.
        """
        handlers = {type(message.event): Handler(self._handle)}
        dispatcher = Dispatcher(engine, self._name, handlers, REGISTRY, self._inbox)
        body = _body(message.message_id, message.event).encode()
        delivery = dispatcher.read(Entry("0-1", body), "prueba")
        assert delivery is not None  # noqa: S101 - its type is the only one that is handled
        try:
            with telling(self._function), dispatcher.lend() as session:
                return dispatcher.handle(session, [delivery]).handled
        except RaisedError as raised:
            raise _in_words(raised, message) from None

    def deliver_all(self, engine: Engine, messages: Sequence[Message[Any]]) -> None:
        """Hand over one after the other."""
        for message in messages:
            self.deliver(engine, message)


def _in_words(raised: RaisedError, message: Message[Any]) -> FlawError:
    if isinstance(raised.error, HandlerTransactionError):
        return FlawError(
            f"Con {message.message_id}, tu función confirmó o deshizo la transacción que se le "
            "presta: es del consumidor, que la confirma con la bandeja de entrada."
        )
    if isinstance(raised.error, TransientError) and "swallowed" in str(raised.error):
        return FlawError(
            f"Con {message.message_id}, tu función se calló un error de la base de datos: déjalo "
            "salir, y el mensaje vuelve."
        )
    return raised


def _body(message_id: str, event: Any) -> str:
    key = event.reservation_id
    return encode(
        event, message_id=message_id, correlation_id=key, occurred_at=STORY_TIME, headers={}
    )


def event_in(body: str) -> Event:
    """Return the event of a stored message."""
    return REGISTRY.decode(decode_envelope(body))
