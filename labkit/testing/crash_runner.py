"""Kill at every point: a worker process really dies in each crash window, and the books agree.

For each point and passage: new databases and streams, the workload is committed, a worker runs
with `LABKIT_FAULTS="point:kill:@n"` until it dies, healthy workers take its place, and when the
flow has come to rest the auditor reads all books.

    rows = CrashRunner(stack(), SAMPLE).run(crash.POINTS)
    print(table_of(rows))

Guarantee: there is a row only when the process was killed there, by SIGKILL, at that passage. A
point that no worker reaches is an error (`NeverReachedError`), never a pass.
Not guaranteed: other windows than the named ones; chances (`:0.02`) find those.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

from sqlalchemy import Engine, func, select

from labkit import db
from labkit.cli.work import load_service
from labkit.errors import LabkitError
from labkit.lab.servers import Stack
from labkit.service import Role
from labkit.testing import sample
from labkit.testing.auditor import audit
from labkit.testing.findings import Findings
from labkit.testing.ledgers import Effects, books_of
from labkit.testing.processes import Where, start, work
from labkit.transports.redis_streams import RedisStreams, connect

PASSAGES = (1, 7)
_LEASE_S = 1.0
_POLL_S = 0.02
# Who looks is in no lease: a worker's limit would end it on a busy machine.
_WATCHER_S = 120.0


class NeverReachedError(LabkitError):
    """Everything was done, and the worker that should have died had not passed the point."""


@dataclass(frozen=True)
class Scenario:
    """Two services and what happens between them.

    Args:
        sender: `module:service` whose relay publishes.
        receiver: `module:service` that handles the sender's events.
        workload: commits the events on the sender's database; enough for the highest passage.
        effects: see `labkit.testing.ledgers.books_of`, for the receiver.
        batch: rows and entries per batch; small, so that points are passed often.
    """

    sender: str
    receiver: str
    workload: Callable[[Engine], None]
    effects: Mapping[str, Effects]
    batch: int = 2


@dataclass(frozen=True)
class Row:
    """What one death led to.

    `repeated` counts entries published again, `redelivered` what was read and not acknowledged
    when the process died.
    """

    point: str
    passage: int
    repeated: int
    redelivered: int
    finding: str | None
    took_s: float


# Which worker passes the points of a module; the others come with scenarios of their own.
VICTIMS: Mapping[str, tuple[str, Role]] = {
    "lease": ("sender", "relay"),
    "relay": ("sender", "relay"),
    "consumer": ("receiver", "consumer"),
}


def place_orders(engine: Engine, count: int = 48, customers: int = 12) -> None:
    """Commit the sample's orders; every third one fails once, and is retried."""
    for n in range(1, count + 1):
        customer, fails = f"customer-{n % customers}", int(n % 3 == 0)
        order = sample.OrderPlaced(order_id=f"ORD-{n}", customer=customer, n=n, fails=fails)
        sample.place(engine, order)


SAMPLE = Scenario(
    "labkit.testing.sample:sender",
    "labkit.testing.sample:receiver",
    place_orders,
    {"receiver": sample.applied},
)


class CrashRunner:
    """Runs a scenario once per death.

    Args:
        servers: where databases and streams are made, and deleted afterwards.
        scenario: what happens.
        patience_s: how long to wait for anything, in seconds, before giving up.
    """

    def __init__(self, servers: Stack, scenario: Scenario, *, patience_s: float = 60.0) -> None:
        self._servers = servers
        self._scenario = scenario
        self._patience_s = patience_s

    def run(self, points: Iterable[str], passages: Sequence[int] = PASSAGES) -> list[Row]:
        """Kill at every passage of every point; return a row for each."""
        return [self.kill_at(point, n) for point in sorted(points) for n in passages]

    def kill_at(self, point: str, passage: int) -> Row:
        """Kill once.

        Args:
            point: one of `crash.POINTS`.
            passage: at which passage, from 1.

        Raises:
            NeverReachedError: when the point was not passed so often.
            LabkitError: when a worker ended otherwise, or the flow does not come to rest.
        """
        if (module := point.partition(".")[0]) not in VICTIMS:
            raise NeverReachedError(f"no worker of the scenario passes {point}")
        started_s = time.monotonic()
        with self._flow() as flow:
            side, role = VICTIMS[module]
            if side == "receiver":
                flow.publish_all()
            victim = flow.start(side, role, f"{point}:kill:@{passage}")
            self._wait_for_death(flow, victim, f"{point}, passage {passage}", role)
            redelivered = flow.pending()
            healthy = [flow.start("sender", "relay"), flow.start("receiver", "consumer")]
            self._until(flow.is_at_rest, "the flow comes to rest")
            _drain(healthy, self._patience_s)
            found = flow.audit()
        said = None if found.first is None else str(found.first)
        took_s = round(time.monotonic() - started_s, 2)
        return Row(point, passage, found.repeated, redelivered, said, took_s)

    def _wait_for_death(self, flow: _Flow, victim: BaseProcess, what: str, role: str) -> None:
        done = flow.is_published if role == "relay" else flow.is_at_rest
        self._until(lambda: victim.exitcode is not None or done(), f"{what} is reached")
        victim.join(2.0)  # it may be about to die
        if victim.exitcode is None:
            raise NeverReachedError(f"{what} was never reached: commit more, or smaller batches")
        if victim.exitcode != -signal.SIGKILL:
            raise LabkitError(f"{what}: the worker ended by itself with {victim.exitcode}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + self._patience_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise LabkitError(f"waited {self._patience_s} s in vain until {what}")
            time.sleep(_POLL_S)

    @contextmanager
    def _flow(self) -> Iterator[_Flow]:
        flow = _Flow(self._servers, self._scenario, f"crash_{uuid.uuid4().hex[:10]}")
        try:
            yield flow
        finally:
            flow.close()


class _Flow:
    """One run of a scenario: its databases, streams and processes."""

    def __init__(self, servers: Stack, scenario: Scenario, name: str) -> None:
        self._servers = servers
        self._scenario = scenario
        self._paths = {"sender": scenario.sender, "receiver": scenario.receiver}
        self._names = {side: f"{name}_{side}" for side in self._paths}
        self._urls = {side: servers.database(each) for side, each in self._names.items()}
        self._engines = {s: db.connect(url, lease_s=_WATCHER_S) for s, url in self._urls.items()}
        self._services = {side: load_service(path) for side, path in self._paths.items()}
        self._transport = RedisStreams(connect(servers.redis_url), f"{name}:")
        self._started: list[BaseProcess] = []
        for side, service in self._services.items():
            service.create_tables(self._engines[side])
        scenario.workload(self._engines["sender"])

    def start(self, side: str, role: Role, faults: str = "") -> BaseProcess:
        """Start a worker; a later one takes the place of an earlier one of its role."""
        options = {"owner": role, "lease_s": _LEASE_S, "batch": self._scenario.batch}
        where = Where(self._urls[side], self._servers.redis_url, self._transport.prefix)
        process = start(work, self._paths[side], role, where, options, faults=faults)
        self._started.append(process)
        return process

    def publish_all(self) -> None:
        """Publish everything in this process, where no fault is configured."""
        relay = self._services["sender"].relay(
            self._engines["sender"], self._transport, owner="relay", lease_s=_WATCHER_S
        )
        while not self.is_published():
            relay.run_once()
        relay.leases.release()

    def is_published(self) -> bool:
        table = self._services["sender"].outbox.table
        query = select(func.count()).where(table.c.published_at.is_(None))
        with self._engines["sender"].connect() as connection:
            return connection.execute(query).scalar() == 0

    def is_at_rest(self) -> bool:
        """Say whether all is published, read and acknowledged, and nothing waits for a retry."""
        held = self._services["receiver"].held.table
        query = select(func.count()).where(held.c.state != "parked")
        if not self.is_published() or not all(self._is_read(key) for key in self._keys()):
            return False
        with self._engines["receiver"].connect() as connection:
            return connection.execute(query).scalar() == 0

    def pending(self) -> int:
        """Return how many entries were read and not acknowledged."""
        return sum(group["pending"] for key in self._keys() for group in self._groups(key))

    def audit(self) -> Findings:
        services, engines = self._services, self._engines
        sent, _ = books_of(services["sender"], engines["sender"])
        _, received = books_of(services["receiver"], engines["receiver"], self._scenario.effects)
        return audit([sent], received, self._transport)

    def close(self) -> None:
        """End what was started, and delete what was made."""
        for process in self._started:
            if process.exitcode is None:
                process.kill()
            process.join()
        for side, engine in self._engines.items():
            engine.dispose()
            self._servers.drop_database(self._names[side])
        client = self._transport.client
        for key in list(client.scan_iter(match=f"*{self._transport.prefix}*", count=1000)):
            client.delete(key)
        client.close()

    def _keys(self) -> Iterator[str]:
        stream = self._services["sender"].stream
        keys = map(partial(self._transport.stream_key, stream), range(stream.partitions))
        return (key for key in keys if self._transport.client.exists(key))

    def _groups(self, key: str) -> list[dict[str, Any]]:
        client: Any = self._transport.client
        name = self._services["receiver"].name.encode()
        return [group for group in client.xinfo_groups(key) if group["name"] == name]

    def _is_read(self, key: str) -> bool:
        client: Any = self._transport.client
        last = client.xinfo_stream(key)["last-generated-id"]
        groups = self._groups(key)
        return [(g["pending"], g["last-delivered-id"]) for g in groups] == [(0, last)]


def _drain(workers: Sequence[BaseProcess], patience_s: float) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(patience_s)
        if worker.exitcode != 0:
            raise LabkitError(f"a healthy worker ended with {worker.exitcode}")


def table_of(rows: Iterable[Row]) -> str:
    """Return the rows as text, one line each."""
    lines = [f"{'point':26}{'passage':>8}{'again':>7}{'redelivered':>13}{'s':>7}  finding"]
    for r in rows:
        counts = f"{r.passage:8}{r.repeated:7}{r.redelivered:13}{r.took_s:7.2f}"
        lines.append(f"{r.point:26}{counts}  {r.finding or '-'}")
    return "\n".join(lines)
