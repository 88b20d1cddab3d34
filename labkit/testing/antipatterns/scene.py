"""Where a run takes place: empty databases and streams, and what is found in them afterwards."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, delete, text

from labkit import db
from labkit.lab.servers import Stack
from labkit.service import Service
from labkit.testing import sample
from labkit.testing.antipatterns.lab import GROUP, WATCHER_S, Setting
from labkit.testing.antipatterns.variants import Variant
from labkit.testing.auditor import audit
from labkit.testing.findings import Findings
from labkit.testing.ledgers import Received, Sent, read_entries
from labkit.testing.sample import OrderPlaced
from labkit.transports.redis_streams import RedisStreams, connect

Stage = Literal["committed", "published", "applied"]


class Seen(NamedTuple):
    """One thing that happened, for a chart: what, to which order, when."""

    stage: Stage
    order_id: str
    customer: str
    at: datetime


class Scene(NamedTuple):
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
def scene(servers: Stack, databases: str, seed: int, orders: int) -> Iterator[Scene]:
    """Yield empty databases and streams; leave no key and no connection behind."""
    urls = [servers.database(f"{databases}_{side}") for side in ("source", "target")]
    prefix = f"antipatterns-{uuid.uuid4().hex[:8]}:"
    setting = Setting(urls[0], urls[1], servers.redis_url, prefix, seed, orders)
    source, target = (db.connect(url, lease_s=WATCHER_S) for url in urls)
    client = connect(servers.redis_url)
    try:
        with source.connect() as alone:
            # Who comes second under the same names waits: emptying would end the other's run.
            lock = text("select pg_advisory_lock(hashtext(:name))")
            alone.execute(lock, {"name": databases})
            alone.commit()
            _empty(source, sample.sender)
            yield Scene(setting, source, target, RedisStreams(client, prefix))
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
