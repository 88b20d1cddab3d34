"""Jobs on a database and a stream of their own, for whoever counts how they are handled.

Guarantee: what an earlier one of the same name left is gone when this one opens.
Not guaranteed: that an earlier one of the same name still works; its connections were ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from sqlalchemy import func, insert, select

from labkit.lab.bench import emptied
from labkit.lab.scaling.jobs import SKU, Asked, service, shared
from labkit.lab.servers import Stack
from labkit.outbox import Outgoing
from labkit.ports import Stream
from labkit.testing.processes import Where
from labkit.transports.redis_streams import RedisStreams, connect


class Jobs:
    """Jobs on a database and a stream of their own; what an earlier one left there is deleted.

    Args:
        name: names database and keys; lower case.
        servers: where.
    """

    def __init__(self, name: str, servers: Stack) -> None:
        self.engine = emptied(servers, name, service)
        self.transport = RedisStreams(connect(servers.redis_url), f"{name}:")
        self._lose_stream()
        url = self.engine.url.render_as_string(hide_password=False)
        self.where = Where(url, servers.redis_url, self.transport.prefix)
        self._relay = service.relay(self.engine, self.transport, owner="repetidor")
        self._numbers = count(1)
        with self.engine.begin() as connection:
            connection.execute(insert(shared).values(sku=SKU, taken=0))

    def publish(self, many: int) -> None:
        """Ask for jobs, spread evenly over the partitions, and relay what was asked for."""
        if not many:
            return
        asked = [Asked(n=next(self._numbers)) for _ in range(many)]
        with self.engine.begin() as connection:
            service.outbox.add_all(
                connection, [Outgoing(each, _KEYS[each.n % len(_KEYS)]) for each in asked]
            )
        while self._relay.run_once():
            pass

    def handled(self, group: str) -> int:
        """Return how many jobs a group has noted in its inbox, each with its effect."""
        inbox = service.inbox.table
        found = select(func.count()).select_from(inbox).where(inbox.c.consumer == group)
        with self.engine.connect() as connection:
            return int(connection.execute(found).scalar_one())

    def to_try_again(self, group: str) -> int:
        """Return how many jobs failed and wait for another attempt; the stream forgot them."""
        held = service.held.table
        due = select(func.count()).where(held.c.consumer == group, held.c.state == "retry")
        with self.engine.connect() as connection:
            return int(connection.execute(due).scalar_one())

    def taken(self) -> int:
        """Return what the shared row says."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(shared.c.taken)).scalar_one())

    def close(self) -> None:
        """Delete the stream and close all connections; the database stays."""
        self._lose_stream()
        self.engine.dispose()
        self.transport.client.close()

    def _lose_stream(self) -> None:
        client = self.transport.client
        if found := list(client.scan_iter(match=f"*{{{self.transport.prefix}*", count=1000)):
            client.delete(*found)


def _key_of_each(stream: Stream) -> Sequence[str]:
    """Return one key for each partition, so that none has more to do than another."""
    found: dict[int, str] = {}
    for n in count():
        found.setdefault(stream.partition_of(f"job-{n}"), f"job-{n}")
        if len(found) == stream.partitions:
            return [found[partition] for partition in sorted(found)]
    raise AssertionError("there are more keys than partitions")


_KEYS = _key_of_each(service.stream)
