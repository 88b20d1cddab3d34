"""What workers are, what they can be told, and which roles a service has for them."""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple, Protocol, TypedDict, Unpack

from sqlalchemy import Engine

from labkit.clock import Clock
from labkit.held import Backoff
from labkit.ports import Stream, Transport
from labkit.reports import Report

Role = Literal["relay", "consumer", "projection", "saga", "cleaner", "all"]
ROLES: tuple[Role, ...] = ("relay", "consumer", "projection", "saga", "cleaner", "all")


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


class MakeWorker(Protocol):
    """Makes a worker that a service is given besides its own; see `Service.add_role`."""

    def __call__(
        self, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> Worker:
        """Return a worker on this database and broker."""
        ...
