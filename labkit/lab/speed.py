"""Speed: small measurements on the machine's own clock, for curves and not for records.

Guarantee: every event that was committed was seen before a number is returned.
Not guaranteed: the numbers; another machine, or the same one a minute later, gives others. What
is claimed of them in a notebook is asserted with wide bounds. `make bench` measures for real.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import msgspec
from sqlalchemy import MetaData

from labkit import db
from labkit.errors import LabkitError
from labkit.lab.bench import Bench
from labkit.lease import lease_tables
from labkit.messages import Event
from labkit.outbox import Outbox, Outgoing
from labkit.ports import Stream
from labkit.relay import Relay

_PATIENCE_S = 30.0
_PAUSE_S = 0.004
_POLL_S = (0.05, 0.05)
_MS = 1000
# Short enough to notice that there is nothing more to wait for.
_BLOCK_MS = 200


class Tick(Event, frozen=True):
    """An event that only says which one it is."""

    topic: ClassVar[str] = "lab.tick.v1"

    n: int


class _Setup(NamedTuple):
    engine: Any
    outbox: Outbox
    relay: Relay
    bench: Bench


def latencies_ms(bench: Bench, *, notify: bool, events: int = 100) -> list[float]:
    """Return how long each event took from its commit to a reader that blocks on the stream, in ms.

    Args:
        bench: whose databases and streams are used.
        notify: wake the relay at each commit; without, it asks every 50 ms.
        events: how many, a few milliseconds apart.
    """
    with _setup(bench, notify=notify) as setup:
        stop, seen = threading.Event(), dict[int, float]()
        setup.relay.leases.tick()
        working = threading.Thread(target=setup.relay.run, args=(stop,))
        reading = threading.Thread(target=_read, args=(setup, events, seen, stop))
        working.start()
        reading.start()
        try:
            committed = _commit_slowly(setup, events)
            reading.join()
        finally:
            stop.set()
            working.join()
            reading.join()
    if len(seen) < events:
        raise LabkitError(f"solo se vieron {len(seen)} de {events} eventos")
    return [max(0.0, seen[n] - committed[n]) * _MS for n in range(events)]


def drained_per_second(bench: Bench, batches: Sequence[int], *, events: int) -> list[float]:
    """Return how many events a second one relay publishes, by size of its batch.

    Args:
        bench: whose databases and streams are used.
        batches: rows per batch.
        events: how many wait each time.
    """
    found = []
    for batch in batches:
        with _setup(bench, batch=batch) as setup:
            _commit_at_once(setup, events)
            setup.relay.leases.tick()
            started_s = time.perf_counter()
            while setup.relay.total.published < events:
                setup.relay.run_once()
                if time.perf_counter() - started_s > _PATIENCE_S:
                    raise LabkitError(f"lotes de {batch}: no salió todo en {_PATIENCE_S:g} s")
            found.append(events / (time.perf_counter() - started_s))
            setup.relay.leases.release()
    return found


@contextmanager
def _setup(bench: Bench, *, notify: bool = False, batch: int = 1000) -> Iterator[_Setup]:
    """Yield an outbox of its own with its relay; leave nothing behind."""
    metadata = MetaData()
    outbox = Outbox(metadata, Stream("lab.ticks", 1), table="lab_ticks", notify=notify)
    lease_tables(metadata)
    engine = db.connect(bench.orders.url)
    db.create_all(engine, metadata)
    publisher = bench.transport.publisher(outbox.stream)
    relay = Relay(engine, outbox, publisher, batch=batch, poll_s=_POLL_S)
    try:
        yield _Setup(engine, outbox, relay, bench)
    finally:
        with engine.begin() as connection:
            outbox.table.drop(connection)
            connection.exec_driver_sql("delete from lease where name = 'lab.ticks'")
        engine.dispose()
        client: Any = bench.transport.client
        for key in list(client.scan_iter(match=f"*{bench.transport.prefix}lab.ticks*")):
            client.delete(key)


def _commit_slowly(setup: _Setup, events: int) -> dict[int, float]:
    committed = {}
    for n in range(events):
        time.sleep(_PAUSE_S)
        with setup.engine.begin() as connection:
            setup.outbox.add(connection, Tick(n=n), key=None)
        committed[n] = time.perf_counter()
    return committed


def _commit_at_once(setup: _Setup, events: int) -> None:
    with setup.engine.begin() as connection:
        setup.outbox.add_all(connection, [Outgoing(Tick(n=n), None) for n in range(events)])


def _read(setup: _Setup, events: int, seen: dict[int, float], stop: threading.Event) -> None:
    """Block on the stream until every event was seen, or for so long that it never will."""
    client: Any = setup.bench.transport.client
    key, after = setup.bench.transport.stream_key(setup.outbox.stream, 0), "0"
    end = time.perf_counter() + _PATIENCE_S
    while len(seen) < events and time.perf_counter() < end and not stop.is_set():
        for _, entries in client.xread({key: after}, block=_BLOCK_MS) or []:
            now = time.perf_counter()
            for _, fields in entries:
                seen[msgspec.json.decode(fields[b"body"])["event"]["payload"]["n"]] = now
            after = entries[-1][0]
