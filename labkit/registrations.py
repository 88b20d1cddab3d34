"""Registrations: which events a service handles, and which read models follow its own.

Guarantee: what could not run, or would miss messages, is refused when it is registered: an event
that cannot be read, a second handler of one event, a name that is taken.
Not guaranteed: that a source ever sends such an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy.orm import Session

from labkit import limits
from labkit.context import Context
from labkit.deadline import Late
from labkit.errors import ConfigurationError
from labkit.handlers import AnyHandler, BatchHandler, Handler
from labkit.messages import Event, Message, Registry
from labkit.partial_batches import BatchResponse
from labkit.ports import Stream
from labkit.projection import Projection
from labkit.roles import Subscribed

EventT = TypeVar("EventT", bound=Event)
Handle = Callable[[Session, Message[EventT]], None]
LockAll = Callable[[Session, Sequence[Message[EventT]]], None]
HandleAll = Callable[[Session, Sequence[Message[EventT]]], BatchResponse | None]


class Registrations:
    """The declaring half of a service.

    Args:
        name: the service's name; names its consumers too.
        registry: how to read the events it subscribes to.
        context: where it works.
    """

    def __init__(self, name: str, registry: Registry, context: Context) -> None:
        limits.name("the service's name", name)
        limits.kind("registry", registry, Registry)
        context.take_name("service", name)
        self.name = name
        self.registry = registry
        self.context = context
        self._handlers: dict[Stream, dict[type[Event], AnyHandler]] = {}
        self._projections: list[Projection] = []

    def on(
        self,
        event: type[EventT],
        *,
        source: Stream,
        lock_first: LockAll[EventT] | None = None,
        late: Late = "handle",
    ) -> Callable[[Handle[EventT]], Handle[EventT]]:
        """Register a handler.

        Args:
            event: the class of the event.
            source: the stream it comes from.
            lock_first: see `labkit.handlers.Handler`.
            late: likewise: what to do with a request that comes past half of its deadline.

        Raises:
            ConfigurationError: when the event has a handler already, or the service's registry
                cannot read it: then every message of it would become a dead letter.
        """
        self._refuse_unreadable(event, source)

        def register(handle: Handle[EventT]) -> Handle[EventT]:
            self._add_handler(event, source, Handler(handle, lock_first, late))
            return handle

        return register

    def on_batch(
        self,
        event: type[EventT],
        *,
        source: Stream,
        lock_first: LockAll[EventT] | None = None,
        late: Late = "handle",
    ) -> Callable[[HandleAll[EventT]], HandleAll[EventT]]:
        """Register a handler that gets many messages at once; see `labkit.handlers.BatchHandler`.

        Args:
            event: as in `on`, and so are the errors.
            source: the stream it comes from.
            lock_first: see `labkit.handlers.Handler`.
            late: likewise.
        """
        self._refuse_unreadable(event, source)

        def register(handle_all: HandleAll[EventT]) -> HandleAll[EventT]:
            self._add_handler(event, source, BatchHandler(handle_all, lock_first, late))
            return handle_all

        return register

    def _refuse_unreadable(self, event: type[Event], source: Stream) -> None:
        limits.kind("source", source, Stream)
        if event not in self.registry:
            name = getattr(event, "__name__", repr(event))
            raise ConfigurationError(
                f"{self.name} cannot read {name:.80}: register its event class"
            )

    def _add_handler(self, event: type[Event], source: Stream, handler: AnyHandler) -> None:
        handlers = self._handlers.setdefault(source, {})
        if event in handlers:
            raise ConfigurationError(
                f"{self.name} handles {event.event_type} twice: call both from one handler"
            )
        handlers[event] = handler

    def add_projection(self, projection: Projection) -> Projection:
        """Let a read model follow this service's own events.

        Raises:
            ConfigurationError: when another consumer of this context has its name.
        """
        limits.kind("projection", projection, Projection)
        self.context.take_name("projection", projection.name)
        self._projections.append(projection)
        return projection

    def subscribed(self) -> list[Subscribed]:
        """Return who reads what in this service, projections included."""
        readers: list[tuple[str, Stream, Mapping[type[Event], AnyHandler]]] = [
            (self.name, *each) for each in self._handlers.items()
        ]
        readers += [(each.name, self.context.stream, each.handlers) for each in self._projections]
        return [
            Subscribed(name, stream, frozenset(event.event_type for event in handlers))
            for name, stream, handlers in readers
        ]
