"""Chaos run: servers and workers are killed and frozen at random under load, and nothing breaks.

    make chaos SEED=7 DURATION=60        (python -m labkit.cli.chaos --seed 7 --duration 60)

Real servers and workers of its own in a temporary home. Customers order and cancel throughout
(`labkit.testing.customers`), the strikes follow from the seed (`labkit.testing.strikes`), and
workers besides die at crash points now and then. When the last strike is healed the flow must
come to rest with every invariant of `labkit.testing.audit` in force, and with every order that a
customer was told of; or the first counter-example is printed, with the seed.

Guarantee: what ran is gone afterwards, also after Ctrl-C. Not guaranteed: that the same seed hits
the same instruction again; the strikes are the same, the scheduling of processes is not.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import redis
from rich.console import Console
from sqlalchemy import Engine, select

from labkit import crash, db
from labkit.shop import fulfillment, inventory
from labkit.shop.order_book import CANCELLED
from labkit.testing.audit import audit, progress
from labkit.testing.chaos_result import Result
from labkit.testing.crew import Workers
from labkit.testing.customers import Customers
from labkit.testing.strikes import Strike, plan
from labkit.testing.victims import Servers
from labkit.transports.redis_streams import RedisStreams, connect

LEASE_S = 1.0
OPENING = {"BOOK-DDD": 100, "BOOK-HEX": 1_000_000, "BOOK-EDA": 400}
# Rare, or nothing else would ever happen: a worker passes each some ten times a second. Two are
# for sleepers: whoever wakes there holds a batch or a transaction that is not its own any more.
_SLEEPERS = {"relay.after_claim", "consumer.before_commit"}
FAULTS = ",".join(
    f"{point}:{'pause' if point in _SLEEPERS else 'kill'}:0.004"
    for point in sorted(crash.POINTS)
    if point.startswith(("relay.", "consumer.", "lease."))
)
_LOOK_EVERY_S = 0.02
_REST_WITHIN_S = 40.0
# Whoever places and audits orders is in no lease, and an audit is one long transaction.
_PATIENCE_S = 60.0


class Chaos:
    """One run.

    Args:
        seed: decides the strikes.
        duration_s: over how many seconds they come.
        console: where a line per second goes.
        faults: the workers' LABKIT_FAULTS.
        lease_s: the workers' lease.
    """

    def __init__(
        self,
        seed: int,
        duration_s: float,
        console: Console,
        *,
        faults: str = FAULTS,
        lease_s: float = LEASE_S,
    ) -> None:
        self.strikes = plan(seed, duration_s, lease_s)
        self.struck: Counter[str] = Counter()
        self._seed, self._duration_s, self._lease_s = seed, duration_s, lease_s
        self._console = console
        self._faults = faults
        self._published = 0
        self._in_streams = 0

    def run(self) -> Result:
        """Start everything, strike, heal, let the flow come to rest, audit, clean up."""
        with tempfile.TemporaryDirectory(prefix="labkit-chaos-") as home:
            self._servers = Servers(Path(home))
            try:
                with self._databases() as (orders, stock):
                    return self._run(orders, stock, Path(home))
            finally:
                self._servers.end()

    def _run(self, orders: Engine, stock: Engine, logs: Path) -> Result:
        self._transport = RedisStreams(connect(self._servers.stack.redis_url), "chaos:")
        self._customers = Customers(orders, self._seed)
        environment = self._servers.environment
        self._workers = Workers(
            _commands(self._lease_s),
            environment,
            logs,
            self._seed,
            self._faults,
            wake_after_s=1.5 * self._lease_s,
        )
        try:
            self._workers.wait_until_at_work(_PATIENCE_S)
            self._strike_under_load()
            healed_s = time.monotonic()
            self._customers.finish(_PATIENCE_S)
            for engine in (orders, stock):
                engine.dispose()  # its connections were cut, and this is no customer who retries
            invariants = self._come_to_rest(orders, stock)
            return self._result(orders, stock, time.monotonic() - healed_s, invariants)
        finally:
            self._workers.stop()
            self._transport.client.close()

    @contextmanager
    def _databases(self) -> Iterator[tuple[Engine, Engine]]:
        orders, stock = (
            db.connect(self._servers.stack.database(service.name), lease_s=_PATIENCE_S)
            for service in (fulfillment.service, inventory.service)
        )
        fulfillment.service.create_tables(orders)
        inventory.service.create_tables(stock)
        inventory.stock_up(stock, OPENING)
        try:
            yield orders, stock
        finally:
            orders.dispose()
            stock.dispose()

    def _strike_under_load(self) -> None:
        due: list[tuple[float, bool, Strike]] = []
        for strike in self.strikes:
            due.append((strike.at_s, False, strike))
            if strike.action != "cut":
                due.append((strike.at_s + strike.lasts_s, True, strike))
        due.sort(key=lambda item: item[0])
        self._customers.start()
        started_s = time.monotonic()
        next_line_s = 0.0
        while due or time.monotonic() - started_s < self._duration_s:
            now_s = time.monotonic() - started_s
            while due and due[0][0] <= now_s:
                _, healing, strike = due.pop(0)
                self._heal(strike) if healing else self._strike(strike, now_s)
            self._workers.tend()
            if now_s >= next_line_s:
                next_line_s = now_s + 1.0
                self._look(f"{now_s:3.0f} s")
            time.sleep(_LOOK_EVERY_S)
        self._servers.wait_until_healed()

    def _strike(self, strike: Strike, now_s: float) -> None:
        self._console.print(
            f"{now_s:5.1f} s  {strike.action} {strike.victim}"
            + (f" for {strike.lasts_s:.1f} s" if strike.lasts_s else "")
        )
        if strike.kind in {"relay", "consumer"}:
            self._workers.strike(strike.victim, strike.action, strike.lasts_s)
        else:
            self._servers.strike(strike.victim, strike.action)
        self.struck[f"{strike.kind} {strike.action}"] += 1

    def _heal(self, strike: Strike) -> None:
        if strike.kind in {"relay", "consumer"}:
            self._workers.heal(strike.victim)
        else:
            self._servers.heal(strike.victim)

    def _look(self, when: str) -> None:
        """Count what is in the streams, and say how far everything is."""
        try:
            found = self._entries()
        except redis.RedisError:
            pass  # it is away: that is the point of all this
        else:
            # What was lost is published again, and counts again.
            more = found - self._in_streams
            self._published += more if more >= 0 else found
            self._in_streams = found
            self._servers.sample()
        self._console.print(
            f"{when:>6} · placed {len(self._customers.placed)}, "
            f"cancelled {len(self._customers.cancelled)} · published {self._published} · "
            f"struck {self.struck.total()} of {len(self.strikes)}, "
            f"at crash points killed {self._workers.killed_by_faults}, "
            f"frozen {self._workers.frozen_by_faults}",
            highlight=False,
            soft_wrap=True,
        )

    def _entries(self) -> int:
        url = self._servers.stack.redis_url
        with redis.Redis.from_url(url, socket_timeout=0.3, socket_connect_timeout=0.3) as client:
            pipeline = client.pipeline(transaction=False)
            for stream in (fulfillment.service.stream, inventory.service.stream):
                for partition in range(stream.partitions):
                    pipeline.xlen(self._transport.stream_key(stream, partition))
            return sum(pipeline.execute())

    def _come_to_rest(self, orders: Engine, stock: Engine) -> dict[str, str | None]:
        """Return the invariants when all hold, or when one does not and nothing moves any more."""
        seen: object = None
        moved_s = time.monotonic()
        while True:
            self._workers.tend()
            far = progress(orders, stock)
            self._look(f"settling, {far.under_way} under way")
            found = self._invariants(orders, stock) if far.under_way == 0 else {}
            if found and not any(found.values()):
                return found
            if (far, found) != seen:
                seen, moved_s = (far, found), time.monotonic()
            if time.monotonic() - moved_s > _REST_WITHIN_S:
                stuck = f"{far.under_way} of {far.settled} settled orders' events stopped moving"
                return {"the flow comes to rest": stuck, **self._invariants(orders, stock)}
            time.sleep(0.25)

    def _invariants(self, orders: Engine, stock: Engine) -> dict[str, str | None]:
        found = audit(orders, stock, self._transport, OPENING)
        found["every order is what its customer was told"] = self._first_lie(orders)
        found["no worker gives up"] = next(iter(self._workers.gave_up), None)
        return found

    def _first_lie(self, orders: Engine) -> str | None:
        columns = fulfillment.orders.c
        with orders.connect() as connection:
            rows = connection.execute(select(columns.order_id, columns.status))
            status = {row.order_id: row.status for row in rows}
        customers = self._customers
        if missing := sorted(customers.placed - status.keys()):
            return f"{missing[0]} was placed, and is not there"
        if invented := sorted(status.keys() - customers.placed):
            return f"{invented[0]} is there, and nobody was told that it was placed"
        for order_id in sorted(customers.cancelled):
            if status[order_id] != CANCELLED:
                return f"{order_id} was cancelled, and is {status[order_id]}"
        return None

    def _result(
        self, orders: Engine, stock: Engine, settling_s: float, invariants: dict[str, str | None]
    ) -> Result:
        events = 0
        for engine, service in ((orders, fulfillment.service), (stock, inventory.service)):
            with engine.connect() as connection:
                events += len(connection.execute(select(service.outbox.table.c.seq)).all())
        return Result(
            seed=self._seed,
            duration_s=self._duration_s,
            schedule=[asdict(strike) for strike in self.strikes],
            struck=dict(sorted(self.struck.items())),
            killed_at_crash_points=self._workers.killed_by_faults,
            frozen_at_crash_points=self._workers.frozen_by_faults,
            orders=len(self._customers.placed),
            cancelled=len(self._customers.cancelled),
            client_retries=self._customers.retried,
            commits_in_doubt=self._customers.doubts,
            events=events,
            published=self._published,
            duplicates=self._published - events,
            settling_s=round(settling_s, 1),
            invariants=invariants,
        )


def _commands(lease_s: float) -> dict[str, list[str]]:
    roles = {
        "fulfillment": ("relay", "consumer", "projection", "all"),
        "inventory": ("relay", "consumer", "all"),
    }
    return {
        f"{service}-{role}": [
            f"labkit.shop.{service}:service",
            f"--role={role}",
            f"--lease={lease_s}",
            f"--name={service}-{role}",
            "--prefix=chaos:",
        ]
        for service, names in roles.items()
        for role in names
    }
