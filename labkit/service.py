"""Service: one consumer of a bounded context, its handlers and projections, ready for workers.

A service is a declaration. It opens nothing: engine and transport come from whoever runs it, so
that the same service works on embedded servers, in a container and in a test.

    service = Service("inventory", REGISTRY)

    @service.on(ReserveStockRequested, source=FULFILLMENT)
    def reserve(session, message): ...

    labkit run labkit.shop.inventory:service --role all
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from sqlalchemy import Engine

from labkit import db, limits
from labkit.cleaner import Cleaner
from labkit.consumer import Consumer
from labkit.context import Context
from labkit.errors import ConfigurationError
from labkit.handlers import AnyHandler
from labkit.held import Backoff
from labkit.messages import Event, Registry
from labkit.ports import Stream, Transport
from labkit.registrations import Registrations
from labkit.relay import Relay
from labkit.retention import Retention
from labkit.roles import (
    ROLES,
    ConsumerOptions,
    MakeWorker,
    Role,
    Subscribed,
    Worker,
    WorkerOptions,
)

# A context has one outbox and one stream, so these run for all of its services.
_ONCE = frozenset({"relay", "cleaner"})
__all__ = ["ROLES", "Role", "Service", "Subscribed", "Worker"]


class Service(Registrations):
    """One bounded context, or another consumer of one.

    Args:
        name: the context's name; names its consumers too.
        registry: how to read the events it subscribes to.
        stream: where its own events go; `<name>.events` by default.
        notify: see `labkit.outbox.Outbox`.
        retention: how long its tables and its stream keep what; two weeks by default.
        beside: a service in whose context this one works: it has a name, handlers and projections
            of its own, and shares stream, retention and tables with it. Their relay and cleaner
            are those of the service that has no `beside`.

    Raises:
        ConfigurationError: when the name cannot be one in Redis and PostgreSQL, or is taken in
            the context; when what is shared is given as well.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        *,
        stream: Stream | None = None,
        notify: bool = False,
        retention: Retention | None = None,
        beside: Service | None = None,
    ) -> None:
        if beside is None:
            context = Context(name, stream=stream, notify=notify, retention=retention)
        else:
            limits.kind("beside", beside, Service)
            _refuse_shared(beside.context, stream=stream, notify=notify, retention=retention)
            context = beside.context
        super().__init__(name, registry, context)
        self.is_beside = beside is not None
        self.stream = context.stream
        self.retention = context.retention
        self.metadata = context.metadata
        self.outbox = context.outbox
        self.inbox = context.inbox
        self.held = context.held
        self.dead_letters = context.dead_letters
        self._roles: list[tuple[Role, MakeWorker]] = []

    def add_role(self, role: Role, make: MakeWorker) -> None:
        """Give this service another worker, for a role and for `all`.

        Args:
            role: one of `ROLES`, such as saga.
            make: makes the worker, as `relay` and `cleaner` do; a class of one will do.

        Raises:
            ConfigurationError: when there is no such role, or it is `all`, which has everybody.
        """
        _refuse_unknown(role)
        if role == "all":
            raise ConfigurationError("all has every worker: name the role that this one is for")
        self._roles.append((role, make))

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
            role: one of `ROLES`; all is everybody that there is.
            engine: this service's database.
            transport: the broker.
            options: passed to every worker.

        Raises:
            ConfigurationError: when there is no such role, or another service runs it.
        """
        _refuse_unknown(role)
        if self.is_beside and role in _ONCE:
            raise ConfigurationError(
                f"{self.name} has no {role} of its own: run that of {self.context.name}"
            )
        found: list[Worker] = []
        if role in {"relay", "all"} and not self.is_beside:
            found.append(self.relay(engine, transport, **options))
        if role in {"consumer", "all"}:
            found += self.consumers(engine, transport, **options)
        if role in {"projection", "all"}:
            found += self.projections(engine, transport, **options)
        makers = [make for own, make in self._roles if role in {own, "all"}]
        found += [make(engine, transport, **options) for make in makers]
        if role in {"cleaner", "all"} and not self.is_beside:
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


def _refuse_unknown(role: str) -> None:
    if role not in ROLES:
        raise ConfigurationError(f"{role!r} is none of {', '.join(ROLES)}")


def _refuse_shared(context: Context, **given: object) -> None:
    for name, value in given.items():
        if value:
            raise ConfigurationError(
                f"a service beside {context.name} shares its {name}: leave {name}= out"
            )
