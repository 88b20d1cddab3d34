"""Runs variants: processes that die as scheduled, then the audit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, delete

from labkit import db
from labkit.errors import LabkitError
from labkit.lab.servers import Stack, stack
from labkit.service import Service
from labkit.testing import processes, sample
from labkit.testing.antipatterns.lab import GROUP, Lab, Setting
from labkit.testing.antipatterns.schedule import ORDERS, Life, receiving, sending
from labkit.testing.antipatterns.variants import VARIANTS, Variant
from labkit.testing.auditor import audit
from labkit.testing.findings import KINDS, Findings, Kind
from labkit.testing.ledgers import Received, Sent, read_entries
from labkit.testing.sample import OrderPlaced
from labkit.transports.redis_streams import RedisStreams, connect

_PATIENCE_S = 60.0
# Whoever sets up and audits is in no lease.
_WATCHER_S = 120.0
Stage = Literal["committed", "published", "applied"]


class Seen(NamedTuple):
    """One thing that happened, for a chart: what, to which order, when."""

    stage: Stage
    order_id: str
    customer: str
    at: datetime


@dataclass(frozen=True)
class Outcome:
    """What a variant led to.

    Args:
        variant: its name; sender and receiver, where they are two.
        seed: of the schedule.
        findings: the audit's.
        killed: processes that ended by SIGKILL.
        frozen: processes that were frozen and woken.
        events: everything that happened, by time.
        took_s: how long it took, in seconds.
    """

    variant: str
    seed: int
    findings: Findings
    killed: int
    frozen: int
    events: list[Seen]
    took_s: float

    @property
    def right(self) -> int:
        """Return how many committed orders had their effect exactly once, and in order."""
        wrong = {finding.message_id for finding in self.findings.all}
        committed = {seen.order_id for seen in self.events if seen.stage == "committed"}
        return len(committed - wrong)

    @property
    def counts(self) -> dict[Kind, int]:
        """Return the number of orders by kind of finding."""
        return {kind: self.findings.count(kind) for kind in KINDS}


def run(
    name: str,
    seed: int = 1,
    *,
    orders: int = ORDERS,
    servers: Stack | None = None,
    databases: str = "antipatterns",
) -> Outcome:
    """Run a variant from empty databases, and audit what is left.

    Args:
        name: one of `VARIANTS`.
        seed: of the schedule.
        orders: how many; more orders, more deaths between commit and publication.
        servers: where; `stack()` by default.
        databases: first part of the two databases' names; they are kept and emptied, so two
            runs at the same time need two names.

    Raises:
        LabkitError: when there is no such variant, or a process ends by itself.
    """
    found = cross([name], [name], seed, orders=orders, servers=servers, databases=databases)
    return found[name, name]


def cross(
    senders: Sequence[str],
    receivers: Sequence[str],
    seed: int = 1,
    *,
    orders: int = ORDERS,
    servers: Stack | None = None,
    databases: str = "antipatterns",
) -> dict[tuple[str, str], Outcome]:
    """Run each sender once, and let each receiver read what it sent, all by one schedule.

    Args:
        senders: variants whose way to write and relay counts.
        receivers: variants whose way to consume counts.
        seed: of the schedule.
        orders: how many.
        servers: where; `stack()` by default.
        databases: as in `run`.

    Raises:
        LabkitError: when there is no such variant, or a process ends by itself.
    """
    for name in [*senders, *receivers]:
        if name not in VARIANTS:
            raise LabkitError(f"{name!r} is none of {', '.join(VARIANTS)}")
    found: dict[tuple[str, str], Outcome] = {}
    for sender in senders:
        with _stage(servers or stack(), databases, seed, orders) as stage:
            started_s = time.monotonic()
            dead, frozen = _send(sender, stage.setting)
            for receiver in receivers:
                stage.forget_the_receiver()
                killed = dead + _receive(receiver, stage.setting)
                findings, events = stage.look(VARIANTS[receiver])
                took_s = round(time.monotonic() - started_s, 2)
                name = sender if sender == receiver else f"{sender} + {receiver}"
                outcome = Outcome(name, seed, findings, killed, frozen, events, took_s)
                found[sender, receiver] = outcome
                started_s = time.monotonic()
    return found


def send(name: str, setting: Setting, owner: str, jobs: tuple[str, ...]) -> None:
    """Be one process that writes and relays; the schedule may end it anywhere."""
    variant, lab = VARIANTS[name], Lab(setting, owner)
    if "write" in jobs:
        lab.write_all(variant.write, variant.relay)
    if "relay" in jobs:
        while variant.relay(lab):
            pass


def receive(name: str, setting: Setting) -> None:
    """Be one process that consumes; the schedule may end it anywhere."""
    variant, lab = VARIANTS[name], Lab(setting, "relay-1")
    if variant.consume is None:
        lab.consume_with_labkit()
        return
    for delivery in lab.deliveries():
        variant.consume(lab, delivery)


def _send(name: str, setting: Setting) -> tuple[int, int]:
    """Run the sending processes in turn; return how many were killed and frozen."""
    *dying, last = sending(setting.seed, setting.orders)
    killed, owner, sleeper = 0, "relay-1", None
    for life in dying:
        if "relay" in life.jobs and VARIANTS[name].has_frozen_relay:  # there are rows by now
            frozen = "relay.after_claim:pause:@1"
            sleeper = processes.start(send, name, setting, owner, ("relay",), faults=frozen)
            _wait_until_frozen(sleeper)
            owner = "relay-2"
        killed += _die(processes.start(send, name, setting, owner, life.jobs, faults=life.faults))
    killed += _die(processes.start(send, name, setting, owner, last.jobs))
    if sleeper and sleeper.pid:  # the others have gone on without it
        os.kill(sleeper.pid, signal.SIGCONT)
        _die(sleeper)
    return killed, int(sleeper is not None)


def _receive(name: str, setting: Setting) -> int:
    lives: Iterable[Life] = receiving(setting.seed)
    return sum(_die(processes.start(receive, name, setting, faults=x.faults)) for x in lives)


def _die(process: BaseProcess) -> bool:
    """Wait for the end of a process; say whether it was killed."""
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise LabkitError(f"a process was still at work after {_PATIENCE_S} s")
    if process.exitcode not in {0, -signal.SIGKILL}:
        raise LabkitError(f"a process ended by itself with {process.exitcode}")
    return process.exitcode == -signal.SIGKILL


def _wait_until_frozen(process: BaseProcess) -> None:
    # Why not waitid: the process is the forkserver's child, not ours.
    deadline_s = time.monotonic() + _PATIENCE_S
    while not processes.is_frozen(process):
        if process.exitcode is not None or time.monotonic() > deadline_s:
            raise LabkitError("the second relay was not frozen")
        time.sleep(0.005)


class _Stage(NamedTuple):
    """The databases and streams of a run, as whoever sets it up and audits it sees them."""

    setting: Setting
    source: Engine
    target: Engine
    transport: RedisStreams

    def forget_the_receiver(self) -> None:
        """Empty the receiver's database, and let its group begin anew."""
        _empty(self.target, sample.receiver)
        client: Any = self.transport.client
        for partition in range(sample.ORDERS.partitions):
            key = self.transport.stream_key(sample.ORDERS, partition)
            if client.exists(key):
                client.xgroup_destroy(key, GROUP)

    def look(self, receiver: Variant) -> tuple[Findings, list[Seen]]:
        """Audit what is left, and tell what happened."""
        sent = Sent(self.source, sample.ORDERS, sample.placed)
        received = Received(
            GROUP,
            self.target,
            {sample.ORDERS.name: frozenset({OrderPlaced.event_type})},
            sample.receiver.inbox.table if receiver.keeps_inbox else None,
            sample.receiver.held.table,
            effects=sample.applied,
        )
        events = _events(self.source, self.target, self.transport)
        return audit([sent], [received], self.transport), events


@contextlib.contextmanager
def _stage(servers: Stack, databases: str, seed: int, orders: int) -> Iterator[_Stage]:
    """Yield empty databases and streams; leave no key and no connection behind."""
    urls = [servers.database(f"{databases}_{side}") for side in ("source", "target")]
    prefix = f"antipatterns-{uuid.uuid4().hex[:8]}:"
    setting = Setting(urls[0], urls[1], servers.redis_url, prefix, seed, orders)
    source, target = (db.connect(url, lease_s=_WATCHER_S) for url in urls)
    client = connect(servers.redis_url)
    try:
        _empty(source, sample.sender)
        yield _Stage(setting, source, target, RedisStreams(client, prefix))
    finally:
        for key in list(client.scan_iter(match=f"*{prefix}*", count=1000)):
            client.delete(key)
        client.close()
        source.dispose()
        target.dispose()


def _empty(engine: Engine, service: Service) -> None:
    service.create_tables(engine)
    with engine.begin() as connection:
        for table in reversed(service.metadata.sorted_tables):
            connection.execute(delete(table))


def _events(source: Engine, target: Engine, transport: RedisStreams) -> list[Seen]:
    with source.connect() as connection:
        facts = list(sample.placed(connection))
    with target.connect() as connection:
        applied = list(sample.applied(connection))
    seen = [Seen("committed", f.message_id, f.key or "", f.at) for f in facts if f.at]
    for partition in range(sample.ORDERS.partitions):
        entries = read_entries(transport, sample.ORDERS, partition)
        seen += [Seen("published", e.message_id or "", e.key, e.at) for e in entries]
    seen += [Seen("applied", e.id, e.key or "", e.at) for e in applied if e.at]
    return sorted(seen, key=lambda each: each.at)
