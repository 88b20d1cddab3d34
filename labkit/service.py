"""Service: one bounded context's outbox, handlers and projections, ready for workers to run.

A service is a declaration. It opens nothing: engine and transport come from whoever runs it, so
that the same service works on embedded servers, in a container and in a test.

    service = Service("inventory", REGISTRY)

    @service.on(ReserveStockRequested, source=FULFILLMENT)
    def reserve(session, message): ...

    labkit run labkit.shop.inventory:service --role all
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, Unpack

from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import Session

from labkit import db, limits
from labkit.cleaner import Cleaner
from labkit.consumer import Consumer
from labkit.dead_letters import DeadLetters
from labkit.errors import ConfigurationError
from labkit.handlers import AnyHandler, BatchHandler, Handler
from labkit.held import Backoff, Held
from labkit.inbox import Inbox
from labkit.messages import Event, Message, Registry
from labkit.outbox import Outbox
from labkit.partitions import lease_tables
from labkit.ports import Stream, Transport
from labkit.projection import Projection
from labkit.readers import reader_table
from labkit.relay import Relay
from labkit.retention import Retention
from labkit.roles import ROLES, ConsumerOptions, Role, Subscribed, Worker, WorkerOptions

__all__ = ["ROLES", "Role", "Service", "Subscribed", "Worker"]

EventT = TypeVar("EventT", bound=Event)
Handle = Callable[[Session, Message[EventT]], None]
HandleAll = Callable[[Session, Sequence[Message[EventT]]], None]


class Service:
    """One bounded context.

    Args:
        name: the context's name; names its consumers too.
        registry: how to read the events it subscribes to.
        stream: where its own events go; `<name>.events` by default.
        notify: see `labkit.outbox.Outbox`.
        retention: how long its tables and its stream keep what; two weeks by default.

    Raises:
        ConfigurationError: when the name cannot be one in Redis and PostgreSQL.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        *,
        stream: Stream | None = None,
        notify: bool = False,
        retention: Retention | None = None,
    ) -> None:
        limits.name("the service's name", name)
        limits.kind("registry", registry, Registry)
        self.name = name
        self.registry = registry
        self.stream = stream or Stream(f"{name}.events")
        self.retention = retention or Retention()
        self.metadata = MetaData()
        self.outbox = Outbox(self.metadata, self.stream, notify=notify)
        self.inbox = Inbox(self.metadata)
        self.held = Held(self.metadata)
        self.dead_letters = DeadLetters(
            self.metadata, self.held, self.inbox, window_s=self.retention.dead_letters_s
        )
        lease_tables(self.metadata)
        reader_table(self.metadata)
        self._handlers: dict[Stream, dict[type[Event], AnyHandler]] = {}
        self._projections: list[Projection] = []

    def on(
        self,
        event: type[EventT],
        *,
        source: Stream,
        lock_first: HandleAll[EventT] | None = None,
    ) -> Callable[[Handle[EventT]], Handle[EventT]]:
        """Register a handler.

        Args:
            event: the class of the event.
            source: the stream it comes from.
            lock_first: see `labkit.handlers.Handler`.

        Raises:
            ConfigurationError: when the event has a handler already, or the service's registry
                cannot read it: then every message of it would become a dead letter.
        """
        self._refuse_unreadable(event, source)

        def register(handle: Handle[EventT]) -> Handle[EventT]:
            self._add_handler(event, source, Handler(handle, lock_first))
            return handle

        return register

    def on_batch(
        self,
        event: type[EventT],
        *,
        source: Stream,
        lock_first: HandleAll[EventT] | None = None,
    ) -> Callable[[HandleAll[EventT]], HandleAll[EventT]]:
        """Register a handler that gets many messages at once; see `labkit.handlers.BatchHandler`.

        Args:
            event: as in `on`, and so are the errors.
            source: the stream it comes from.
            lock_first: see `labkit.handlers.Handler`.
        """
        self._refuse_unreadable(event, source)

        def register(handle_all: HandleAll[EventT]) -> HandleAll[EventT]:
            self._add_handler(event, source, BatchHandler(handle_all, lock_first))
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
            ConfigurationError: when its name is taken: two consumers of one name share the
                messages, so each of them would miss some.
        """
        limits.kind("projection", projection, Projection)
        if projection.name in {self.name, *(each.name for each in self._projections)}:
            raise ConfigurationError(f"{projection.name} is taken: name the projection otherwise")
        self._projections.append(projection)
        return projection

    def subscribed(self) -> list[Subscribed]:
        """Return who reads what in this service, projections included."""
        readers: list[tuple[str, Stream, Mapping[type[Event], AnyHandler]]] = [
            (self.name, *each) for each in self._handlers.items()
        ]
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
        publisher = transport.publisher(self.stream)
        return Relay(engine, self.outbox, publisher, retention=self.retention, **options)

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

    def cleaner(
        self, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> Cleaner:
        """Return the worker that deletes what is older than the retention.

        Args:
            engine: this service's database.
            transport: the broker.
            options: passed to `Cleaner`, except `batch` and `poll_s`: it has a pace of its own.
        """
        return Cleaner(
            engine,
            self.outbox,
            self.inbox,
            transport.log(self.stream),
            name=self.name,
            retention=self.retention,
            owner=options.get("owner"),
            lease_s=options.get("lease_s", db.DEFAULT_LEASE_S),
            clock=options.get("clock"),
        )

    def workers(
        self, role: Role, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> list[Worker]:
        """Return the workers of a role.

        Args:
            role: relay, consumer, projection, cleaner or all.
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
        if role in {"cleaner", "all"}:
            found.append(self.cleaner(engine, transport, **options))
        return found

    def _consumer(
        self,
        engine: Engine,
        transport: Transport,
        source: Stream,
        handlers: Mapping[type[Event], AnyHandler],
        *,
        name: str,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer:
        self.retention.check_backoff(options.get("backoff") or Backoff())
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
