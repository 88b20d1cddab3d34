"""What the variants stand on: connections, the schedule's hooks, a plain reader of streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from labkit import db
from labkit.consumer import Consumer
from labkit.errors import LabkitError
from labkit.held import Backoff
from labkit.messages import encode
from labkit.relay import Relay
from labkit.testing import sample
from labkit.testing.antipatterns.schedule import Step, schedule
from labkit.testing.sample import ORDERS, OrderPlaced
from labkit.transports.redis_streams import RedisStreams, connect
from labkit.wire import decode_envelope

# Who dies is followed by another under its name, so nobody waits for the end of such a lease. It is
# long, because half of it is all that a transaction has, also on a busy machine.
LEASE_S = 8.0
# The lease of a relay that is frozen: it has to end, and the others wait for that.
FROZEN_LEASE_S = 2.0
# Whoever sets up and audits is in no lease.
WATCHER_S = 120.0
GROUP = sample.receiver.name


class RolledBackError(LabkitError):
    """The order was given up: its transaction rolls back."""


class Delivery(NamedTuple):
    """An entry as read, with the order in it."""

    stream: str
    position: str
    order: OrderPlaced
    digest: bytes


class Setting(NamedTuple):
    """One run: its addresses, the prefix of its keys, and its schedule."""

    source: str
    target: str
    redis_url: str
    prefix: str
    seed: int
    orders: int


class Lab:
    """One process's view of a run.

    Args:
        setting: where, and by which schedule.
        owner: this process's relay; a second relay at the same time needs another name.
        lease_s: how long that relay keeps its partitions when it falls silent, in seconds.
    """

    def __init__(self, setting: Setting, owner: str, lease_s: float = LEASE_S) -> None:
        self.source = db.connect(setting.source, lease_s=lease_s)
        # Without labkit nobody ends the transaction of a process that is frozen.
        self.unlimited = db.connect(setting.source, lease_s=WATCHER_S)
        self.target = db.connect(setting.target, lease_s=LEASE_S)
        self.client: Any = connect(setting.redis_url)
        self.transport = RedisStreams(self.client, setting.prefix)
        # Batches grow with the orders, so that the number of passes does not.
        self.relay: Relay = sample.sender.relay(
            self.source,
            self.transport,
            owner=owner,
            lease_s=lease_s,
            batch=max(3, setting.orders // 13),
        )
        self.consumer: Consumer = sample.receiver.consumers(
            self.target,
            self.transport,
            owner="consumer",
            lease_s=LEASE_S,
            batch=max(5, setting.orders // 8),
            backoff=Backoff(first_s=0.02),
        )[0]
        self._prefix = setting.prefix
        self._steps = schedule(setting.seed, setting.orders)
        self._started: set[str] = set()

    def write_all(
        self, write: Callable[[Lab, OrderPlaced], None], relay: Callable[[Lab], bool]
    ) -> None:
        """Place every order that is not there yet: its customer has tried again."""
        self._write, self._relay = write, relay
        with self.source.connect() as connection:
            self._started = {fact.message_id for fact in sample.placed(connection)}
        for step in self._steps:
            self._place(step)

    def still_open(self, order: OrderPlaced) -> None:
        """Let happen what befalls this order's transaction while it is open."""
        step = self._steps[self._index(order)]
        if step.fate == "rolls back":
            raise RolledBackError(order.order_id)
        if step.fate == "commits late":
            self._place(self._steps[self._index(order) + 1])
            self._relay(self)

    def publish(self, order: OrderPlaced) -> None:
        """Send an event straight to its stream."""
        body = encode(
            order,
            message_id=order.order_id,
            correlation_id=order.customer,
            occurred_at=datetime.now(UTC),
            headers={},
        )
        self.publish_body(order.customer, body)

    def publish_body(self, key: str, body: str) -> None:
        """Append a message to the stream of its key."""
        stream = self.transport.stream_key(ORDERS, ORDERS.partition_of(key))
        self.client.xadd(stream, {"body": body})

    def cursor(self) -> int:
        """Return the last `seq` that was published."""
        return int(self.client.get(f"{self._prefix}cursor") or 0)

    def move_cursor(self, seq: int) -> None:
        """Remember the last `seq` that was published."""
        self.client.set(f"{self._prefix}cursor", seq)

    def waits_unpublished(self) -> bool:
        """Say whether the outbox holds unpublished rows."""
        with self.source.connect() as connection:
            query = text("select exists(select from outbox_messages where published_at is null)")
            return bool(connection.execute(query).scalar())

    def deliveries(self) -> Iterator[Delivery]:
        """Read every stream, first what is pending, one entry at a time."""
        for partition in range(ORDERS.partitions):
            stream = self.transport.stream_key(ORDERS, partition)
            self._have_group(stream)
            for start in ("0", ">"):
                while read := self._read(stream, start):
                    yield read

    def is_new(self, connection: Connection, delivery: Delivery) -> bool:
        """Insert the inbox row; say whether it was missing."""
        digests = {delivery.order.order_id: delivery.digest}
        return bool(sample.receiver.inbox.accept(connection, GROUP, digests).fresh)

    def is_known(self, connection: Connection, delivery: Delivery) -> bool:
        """Say whether the inbox row is there."""
        ids = [delivery.order.order_id]
        return bool(sample.receiver.inbox.handled(connection, GROUP, ids))

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge."""
        self.client.xack(delivery.stream, GROUP, delivery.position)

    def consume_with_labkit(self) -> None:
        """Let labkit's consumer work until nothing is left, retries included."""
        while self.consumer.run_once() or self._holds():
            pass

    def _holds(self) -> bool:
        with self.target.connect() as connection:
            query = text("select exists(select from held where state <> 'parked')")
            return bool(connection.execute(query).scalar())

    def _place(self, step: Step) -> None:
        if step.order.order_id in self._started:
            return
        self._started.add(step.order.order_id)
        with contextlib.suppress(RolledBackError):  # its customer gives up
            self._write(self, step.order)

    def _index(self, order: OrderPlaced) -> int:
        return int(order.order_id.removeprefix("ORD-")) - 1

    def _have_group(self, stream: str) -> None:
        if not self.client.exists(stream) or not self.client.xinfo_groups(stream):
            self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)

    def _read(self, stream: str, start: str) -> Delivery | None:
        reply = self.client.xreadgroup(GROUP, "owner", {stream: start}, count=1)
        entries = reply[0][1] if reply else []
        if not entries:
            return None
        position, fields = entries[0]
        envelope = decode_envelope(fields[b"body"])
        order = sample.REGISTRY.decode(envelope)
        assert isinstance(order, OrderPlaced)  # noqa: S101 - the registry knows no other
        return Delivery(stream, position.decode(), order, envelope.digest())
