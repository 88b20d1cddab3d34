"""Chaos: 200 orders through the student's functions while their processes are killed.

Five processes work: a relay and a consumer of each service, and the projection. Each is killed
once where it hurts most (published and not marked; committed and not acknowledged), and then the
seed says who dies when. Who dies is started again under its name, as a supervisor does.

Guarantee: the numbers come from both databases and both streams when nothing moves any more, or
when patience is at its end: what is under way then is stuck. Every process is gone afterwards.
Not guaranteed: that the same seed hits the same instruction again.
"""

from __future__ import annotations

import multiprocessing.connection
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd

from labkit.lab.servers import Stack
from labkit.lab.workshop import crew
from labkit.lab.workshop.assembly import Functions
from labkit.lab.workshop.counting import Count, count, standing
from labkit.lab.workshop.shop import Workshop
from labkit.service import Role
from labkit.testing import processes

SEED, ORDERS, STRIKES = 7, 200, 10
STOCK = {"BOOK-DDD": 120, "BOOK-HEX": 1_000, "BOOK-EDA": 60}
# At most so many orders are under way: the strikes shall hit the middle of something.
_AHEAD = 150
_LOOK_S = 0.05
_PATIENCE_S = 30.0
# A relay of one's own may not pass the crash point at which it was to die.
_FIRST_LIFE_S = 2.0
# What a process is, in which file's service, and where its first life ends.
_CREW: dict[str, tuple[str, Role, str]] = {
    "repetidor de fulfillment": ("service", "relay", "relay.after_publish"),
    "consumidor de fulfillment": ("service", "consumer", "consumer.after_commit"),
    "proyección de fulfillment": ("service", "projection", "consumer.after_commit"),
    "repetidor de inventory": ("inventario", "relay", "relay.after_publish"),
    "consumidor de inventory": ("inventario", "consumer", "consumer.after_commit"),
}


@dataclass(frozen=True)
class Report:
    """What a run ended with.

    Args:
        orders: how many were placed.
        killed: how often each process was killed.
        count: what was found afterwards.
    """

    orders: int
    killed: dict[str, int]
    count: Count

    def frame(self) -> pd.DataFrame:
        """Return the report as a table of one row."""
        return pd.DataFrame(
            [
                {
                    "pedidos": self.orders,
                    "procesos muertos": sum(self.killed.values()),
                    "perdidos": self.count.lost,
                    "repetidos": self.count.doubled,
                    "desordenados": self.count.reordered,
                    "atascados": self.count.stuck,
                }
            ]
        )


@dataclass
class _Crew:
    """Five processes, kept alive."""

    home: Path
    bench: Workshop
    killed: Counter[str] = field(default_factory=Counter)
    _running: dict[str, BaseProcess] = field(default_factory=dict)
    _first_lives: set[str] = field(default_factory=lambda: set(_CREW))

    def begin(self) -> None:
        """Start everybody; each first life ends at a crash point."""
        for name, (_, _, point) in _CREW.items():
            self._running[name] = self._start(name, f"{point}:kill:@1")

    def kill(self, name: str) -> None:
        """Kill a process, and start it again; a first life ends where it was to end."""
        if name in self._first_lives:
            multiprocessing.connection.wait([self._running[name].sentinel], _FIRST_LIFE_S)
            self._replace(name)
        self._replace(name)

    def tend(self) -> None:
        """Start who died by itself."""
        for name, process in self._running.items():
            if processes.has_ended(process):
                self._replace(name)

    def _replace(self, name: str) -> None:
        self._bury(name)
        self._first_lives.discard(name)
        self._running[name] = self._start(name)

    def end(self) -> None:
        """End everybody."""
        for process in self._running.values():
            processes.end(process)

    def _bury(self, name: str) -> None:
        process = self._running[name]
        processes.end(process)
        # Another end, such as an error of the student's function, is no kill.
        self.killed[name] += process.exitcode == -signal.SIGKILL

    def _start(self, name: str, faults: str = "") -> BaseProcess:
        attribute, role, _ = _CREW[name]
        engine = self.bench.orders if attribute == "service" else self.bench.stock
        where = processes.Where(
            engine.url.render_as_string(hide_password=False),
            self.bench.servers.redis_url,
            self.bench.transport.prefix,
        )
        return crew.start(self.home, attribute, role, where, name, faults=faults)


def run(
    functions: Functions,
    home: Path,
    *,
    servers: Stack | None = None,
    seed: int = SEED,
    orders: int = ORDERS,
    strikes: int = STRIKES,
) -> Report:
    """Let orders through while processes die.

    Args:
        functions: what fills the gaps, for what this process does: placing.
        home: the directory that holds `entrega/mi_checkout.py`, for what the others do.
        servers: where; `stack()` by default.
        seed: decides the orders and the strikes.
        orders: how many.
        strikes: how many kills besides the first of each process.
    """
    bench = Workshop(functions, name="cuaderno_05_caos", servers=servers, stock=STOCK)
    workers = _Crew(home, bench)
    try:
        workers.begin()
        found = _under_fire(bench, workers, random.Random(seed), orders, strikes)
        return Report(orders, {name: workers.killed[name] for name in _CREW}, found)
    finally:
        workers.end()
        bench.close()


def _under_fire(
    bench: Workshop, workers: _Crew, rng: random.Random, orders: int, strikes: int
) -> Count:
    """Place, strike and look until all is at rest, or nothing moves any more; then count."""
    due = sorted(rng.sample(range(orders // 10, orders - orders // 10), strikes))
    victims = [rng.choice(list(_CREW)) for _ in due]
    placed, seen, moved_s = 0, None, time.monotonic()
    while True:
        workers.tend()
        far = standing(bench)
        while due and far.settled >= due[0]:
            workers.kill(victims[-len(due)])
            due.pop(0)
        for number in range(placed, min(orders, far.settled + _AHEAD)):
            bench.place(f"ORD-{1001 + number}", *_some_lines(rng))
            placed = number + 1
        rests = placed == orders and not due and not far.moving
        found = count(bench, STOCK) if rests else None
        if found and not found.wrong:
            return found
        if (far, placed) != seen:
            seen, moved_s = (far, placed), time.monotonic()
        if time.monotonic() - moved_s > _PATIENCE_S:
            return found or count(bench, STOCK)
        time.sleep(_LOOK_S)


def _some_lines(rng: random.Random) -> Sequence[tuple[str, int]]:
    skus = rng.sample(sorted(STOCK), rng.choice([1, 1, 1, 2]))
    return [(sku, rng.choice([1, 1, 2])) for sku in skus]
