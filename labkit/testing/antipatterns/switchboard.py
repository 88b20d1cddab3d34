"""Runs a variant: processes that die as scheduled, then the audit."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
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
from labkit.testing.antipatterns import consumers, relays, writers
from labkit.testing.antipatterns.lab import Delivery, Lab, Place
from labkit.testing.antipatterns.schedule import lives
from labkit.testing.auditor import audit
from labkit.testing.findings import KINDS, Findings, Kind
from labkit.testing.ledgers import Received, Sent, read_entries
from labkit.testing.sample import OrderPlaced
from labkit.transports.redis_streams import RedisStreams, connect

_PATIENCE_S = 60.0
# Whoever sets up and audits is in no lease.
_WATCHER_S = 120.0
Stage = Literal["committed", "published", "applied"]


@dataclass(frozen=True)
class Variant:
    """One way to build the flow.

    Args:
        description: what it does, in a sentence.
        finds: the kind of finding that it must lead to; None when it must hold.
        write: places an order.
        relay: one pass from outbox to stream.
        consume: handles one delivery; None leaves it to labkit's consumer.
        keeps_inbox: whether it notes what was handled.
    """

    description: str
    finds: Kind | None
    write: Callable[[Lab, OrderPlaced], None] = writers.write_to_outbox
    relay: Callable[[Lab], bool] = relays.labkit_relay
    consume: Callable[[Lab, Delivery], None] | None = None
    keeps_inbox: bool = True

    @property
    def culprit(self) -> Callable[..., Any]:
        """Return the function that makes the difference; for labkit, its way to write."""
        if self.consume:
            return self.consume
        replaced = self.relay not in {relays.labkit_relay, relays.no_relay}
        return self.relay if replaced else self.write

    @property
    def has_frozen_relay(self) -> bool:
        """Say whether a second relay is frozen: where the relay is in question."""
        return self.finds is None or self.relay is relays.relay_without_owner


VARIANTS: dict[str, Variant] = {
    "dual_write": Variant(
        "Commits the order, then publishes the event.",
        "lost",
        write=writers.commit_then_publish,
        relay=relays.no_relay,
    ),
    "publish_before_commit": Variant(
        "Publishes the event, then commits the order.",
        "phantom",
        write=writers.publish_then_commit,
        relay=relays.no_relay,
    ),
    "cursor_relay": Variant(
        "Relays the rows behind the last one it saw.", "lost", relay=relays.relay_by_cursor
    ),
    "unfenced_relays": Variant(
        "Lets relays share the rows without owning them.",
        "reordered",
        relay=relays.relay_without_owner,
    ),
    "inbox_before_effect": Variant(
        "Notes the message in a transaction before its effect.",
        "lost",
        consume=consumers.inbox_then_effect,
    ),
    "inbox_after_effect": Variant(
        "Notes the message in a transaction after its effect.",
        "doubled",
        consume=consumers.effect_then_inbox,
    ),
    "ack_first": Variant(
        "Acknowledges the message before its effect.", "lost", consume=consumers.ack_first
    ),
    "no_inbox": Variant(
        "Applies every delivery.", "doubled", consume=consumers.no_inbox, keeps_inbox=False
    ),
    "labkit": Variant("Outbox, fenced relay, inbox in the transaction of the effect.", None),
}


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
        variant: its name.
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
    def counts(self) -> dict[Kind, int]:
        """Return the number of orders by kind of finding."""
        return {kind: self.findings.count(kind) for kind in KINDS}


def run(
    name: str, seed: int = 1, *, servers: Stack | None = None, databases: str = "antipatterns"
) -> Outcome:
    """Run a variant from empty databases, and audit what is left.

    Args:
        name: one of `VARIANTS`.
        seed: of the schedule.
        servers: where; `stack()` by default.
        databases: first part of the two databases' names; they are kept and emptied, so two
            runs at the same time need two names.

    Raises:
        LabkitError: when there is no such variant, or a process ends by itself.
    """
    if name not in VARIANTS:
        raise LabkitError(f"{name!r} is none of {', '.join(VARIANTS)}")
    started_s, servers = time.monotonic(), servers or stack()
    urls = [servers.database(f"{databases}_{side}") for side in ("source", "target")]
    place = Place(urls[0], urls[1], servers.redis_url, f"antipatterns-{uuid.uuid4().hex[:8]}:")
    source, target = _emptied(place.source, sample.sender), _emptied(place.target, sample.receiver)
    client = connect(servers.redis_url)
    try:
        killed, frozen = _live(name, seed, place)
        findings, events = _look(VARIANTS[name], source, target, RedisStreams(client, place.prefix))
    finally:
        for key in list(client.scan_iter(match=f"*{place.prefix}*", count=1000)):
            client.delete(key)
        client.close()
        source.dispose()
        target.dispose()
    took_s = round(time.monotonic() - started_s, 2)
    return Outcome(name, seed, findings, killed, frozen, events, took_s)


def be(name: str, seed: int, place: Place, owner: str, jobs: tuple[str, ...]) -> None:
    """Be one process of a run; the schedule may end it anywhere."""
    variant, lab = VARIANTS[name], Lab(place, seed, owner)
    if "write" in jobs:
        lab.write_all(variant.write, variant.relay)
    if "relay" in jobs:
        while variant.relay(lab):
            pass
    if "consume" in jobs and variant.consume:
        for delivery in lab.deliveries():
            variant.consume(lab, delivery)
    elif "consume" in jobs:
        lab.consume_with_labkit()


def _live(name: str, seed: int, place: Place) -> tuple[int, int]:
    """Run the processes one after the other; return how many were killed and frozen."""
    killed, sleeper, owner, what = 0, None, "relay-1", (name, seed, place)
    for number, life in enumerate(lives(seed)):
        if number == 2 and VARIANTS[name].has_frozen_relay:  # noqa: PLR2004 - rows are there now
            frozen = "relay.after_claim:pause:@1"
            sleeper = processes.start(be, *what, owner, ("relay",), faults=frozen)
            _wait_until_frozen(sleeper)
            owner = "relay-2"
        code = _ended(processes.start(be, *what, owner, life.jobs, faults=life.faults))
        killed += code == -signal.SIGKILL
        if code not in {0, -signal.SIGKILL}:
            raise LabkitError(f"{name}: a process ended by itself with {code}")
        if sleeper and sleeper.pid and number == 3:  # noqa: PLR2004 - others have gone on
            os.kill(sleeper.pid, signal.SIGCONT)
            _ended(sleeper)
    return killed, int(sleeper is not None)


def _ended(process: BaseProcess) -> int:
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise LabkitError(f"a process was still at work after {_PATIENCE_S} s")
    return process.exitcode


def _wait_until_frozen(process: BaseProcess) -> None:
    # Why not waitid: the process is the forkserver's child, not ours.
    deadline_s = time.monotonic() + _PATIENCE_S
    while not processes.is_frozen(process):
        if process.exitcode is not None or time.monotonic() > deadline_s:
            raise LabkitError("the second relay was not frozen")
        time.sleep(0.005)


def _emptied(url: str, service: Service) -> Engine:
    engine = db.connect(url, lease_s=_WATCHER_S)
    service.create_tables(engine)
    with engine.begin() as connection:
        for table in reversed(service.metadata.sorted_tables):
            connection.execute(delete(table))
    return engine


def _look(
    variant: Variant, source: Engine, target: Engine, transport: RedisStreams
) -> tuple[Findings, list[Seen]]:
    sent = Sent(source, sample.ORDERS, sample.placed)
    received = Received(
        "receiver",
        target,
        {sample.ORDERS.name: frozenset({OrderPlaced.event_type})},
        sample.receiver.inbox.table if variant.keeps_inbox else None,
        sample.receiver.held.table,
        effects=sample.applied,
    )
    return audit([sent], [received], transport), _events(source, target, transport)


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
