"""Service: one bounded context's outbox, handlers and projections, ready for workers to run.

A service is a declaration. It opens nothing: engine and transport come from whoever runs it, so
that the same service works on embedded servers, in a container and in a test.

    service = Service("inventory", REGISTRY)

    @service.on(ReserveStockRequested, source=FULFILLMENT)
    def reserve(session, message): ...

    labkit run labkit.shop.inventory:service --role all
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import Clock
from labkit.consumer import Consumer
from labkit.dispatch import Handler
from labkit.errors import ConfigurationError
from labkit.held import Backoff, Held
from labkit.inbox import Inbox
from labkit.lease import lease_tables
from labkit.messages import Event, Message, Registry
from labkit.outbox import Outbox
from labkit.ports import Stream, Transport
from labkit.projection import Projection
from labkit.relay import Relay
from labkit.reports import Report

Role = Literal["relay", "consumer", "projection", "all"]
ROLES: tuple[Role, ...] = ("relay", "consumer", "projection", "all")
EventT = TypeVar("EventT", bound=Event)
Handle = Callable[[Session, Message[EventT]], None]


class WorkerOptions(TypedDict, total=False):
    """What every worker can be told; see `labkit.relay.Relay` for the words."""

    owner: str | None
    batch: int
    lease_s: float
    poll_s: tuple[float, float]
    clock: Clock | None


class ConsumerOptions(WorkerOptions, total=False):
    """What a consumer can be told besides; see `labkit.consumer.Consumer`."""

    on_poison: Literal["park_key", "skip"]
    backoff: Backoff | None


class Subscribed(NamedTuple):
    """A consumer of a service: its name, which stream it reads, which event types it handles."""

    consumer: str
    stream: Stream
    types: frozenset[str]


class Worker(Protocol):
    """Something that works in passes."""

    def run_once(self) -> Report:
        """Do one pass; return a report, which is false when nothing was done."""
        ...

    def run(self, stop: threading.Event) -> Report:
        """Do passes until told to stop; return the sum of the reports."""
        ...


class Service:
    """One bounded context.

    Args:
        name: the context's name; names its consumers too.
        registry: how to read the events it subscribes to.
        stream: where its own events go; `<name>.events` by default.
        notify: see `labkit.outbox.Outbox`.
    """

    def __init__(
        self, name: str, registry: Registry, *, stream: Stream | None = None, notify: bool = False
    ) -> None:
        self.name = name
        self.registry = registry
        self.stream = stream or Stream(f"{name}.events")
        self.metadata = MetaData()
        self.outbox = Outbox(self.metadata, self.stream, notify=notify)
        self.inbox = Inbox(self.metadata)
        self.held = Held(self.metadata)
        lease_tables(self.metadata)
        self._handlers: dict[Stream, dict[type[Event], Handler]] = {}
        self._projections: list[Projection] = []

    def on(
        self,
        event: type[EventT],
        *,
        source: Stream,
        lock_first: Callable[[Session, Sequence[Message[EventT]]], None] | None = None,
    ) -> Callable[[Handle[EventT]], Handle[EventT]]:
        """Register a handler.

        Args:
            event: the class of the event.
            source: the stream it comes from.
            lock_first: see `labkit.dispatch.Handler`.

        Raises:
            ConfigurationError: when the event has a handler already, or the service's registry
                cannot read it: then every message of it would become a dead letter.
        """
        if event not in self.registry:
            raise ConfigurationError(f"{self.name} cannot read {event.event_type}: register it")

        def register(handle: Handle[EventT]) -> Handle[EventT]:
            handlers = self._handlers.setdefault(source, {})
            if event in handlers:
                raise ConfigurationError(
                    f"{self.name} handles {event.event_type} twice: call both from one handler"
                )
            handlers[event] = Handler(handle, lock_first)
            return handle

        return register

    def add_projection(self, projection: Projection) -> Projection:
        """Let a read model follow this service's own events.

        Raises:
            ConfigurationError: when its name is taken: two consumers of one name share the
                messages, so each of them would miss some.
        """
        if projection.name in {self.name, *(each.name for each in self._projections)}:
            raise ConfigurationError(f"{projection.name} is taken: name the projection otherwise")
        self._projections.append(projection)
        return projection

    def subscribed(self) -> list[Subscribed]:
        """Return who reads what in this service, projections included."""
        readers = [(self.name, *each) for each in self._handlers.items()]
        readers += [(each.name, self.stream, each.handlers) for each in self._projections]
        return [
            Subscribed(name, stream, frozenset(event.event_type for event in handlers))
            for name, stream, handlers in readers
        ]

    def create_tables(self, engine: Engine) -> None:
        """Create what is missing; several processes may call it at once."""
        db.create_all(engine, self.metadata)

    def relay(
        self, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> Relay:
        """Return the worker that publishes this service's events.

        Args:
            engine: this service's database.
            transport: the broker.
            options: passed to `Relay`.
        """
        return Relay(engine, self.outbox, transport.publisher(self.stream), **options)

    def consumers(
        self, engine: Engine, transport: Transport, **options: Unpack[ConsumerOptions]
    ) -> list[Consumer]:
        """Return the workers that handle other services' events, one per source.

        Args:
            engine: this service's database.
            transport: the broker.
            options: passed to each `Consumer`.
        """
        return [
            self._consumer(engine, transport, source, handlers, name=self.name, **options)
            for source, handlers in self._handlers.items()
        ]

    def projections(
        self, engine: Engine, transport: Transport, **options: Unpack[ConsumerOptions]
    ) -> list[Consumer]:
        """Return the workers that keep this service's read models.

        Args:
            engine: this service's database.
            transport: the broker.
            options: passed to each `Consumer`.
        """
        return [
            self._consumer(engine, transport, self.stream, each.handlers, name=each.name, **options)
            for each in self._projections
        ]

    def workers(
        self, role: Role, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> list[Worker]:
        """Return the workers of a role.

        Args:
            role: relay, consumer, projection or all.
            engine: this service's database.
            transport: the broker.
            options: passed to every worker.

        Raises:
            ConfigurationError: when there is no such role.
        """
        if role not in ROLES:
            raise ConfigurationError(f"{role!r} is none of {', '.join(ROLES)}")
        found: list[Worker] = []
        if role in {"relay", "all"}:
            found.append(self.relay(engine, transport, **options))
        if role in {"consumer", "all"}:
            found += self.consumers(engine, transport, **options)
        if role in {"projection", "all"}:
            found += self.projections(engine, transport, **options)
        return found

    def _consumer(
        self,
        engine: Engine,
        transport: Transport,
        source: Stream,
        handlers: Mapping[type[Event], Handler],
        *,
        name: str,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer:
        return Consumer(
            engine,
            transport.subscription(source, name, "0"),
            source,
            name=name,
            handlers=handlers,
            registry=self.registry,
            inbox=self.inbox,
            held=self.held,
            **options,
        )
