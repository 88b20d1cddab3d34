"""Line `saga_restart`: every worker is killed at 40 % of the checkouts; how long the others take.

All checkouts are begun before a worker runs. When two in five have ended, the processes of both
services die by SIGKILL, and new ones under the same names take their place. The time runs from the
moment at which these hold their partitions to the last row. Nobody by hand: the ceiling of the
other lines has no way back from a death.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from msgspec.structs import replace
from sqlalchemy.orm import Session

from benchmarks import sagas
from benchmarks.arena import expect
from benchmarks.checkout import SAGAS, Checkout, checkout, ordering, orders, stock
from benchmarks.latency import running, thread_event
from benchmarks.lines import Line, Target, lone_line, take_turns
from benchmarks.size import Size
from labkit.cli.work import run_all
from labkit.lab.servers import Stack
from labkit.service import Service

KILLED_AT = 0.4
BATCH = 100
FEW = 100
TARGET = Target("value", at_least=False, limit=1.0)
ENDED = "select count(*) from saga where status in ('COMPLETED', 'COMPENSATED')"


def measure(servers: Stack, size: Size) -> list[Line]:
    """Measure the seconds from the restart to the last end."""
    with checkout(servers) as place:
        (found,) = take_turns("saga_restart", size.runs, lambda: seconds(place, size.sagas))
    line = lone_line("saga_restart", "s", found)
    return [replace(line, target=str(TARGET), met=TARGET.is_met(line.value, 0.0))]


def seconds(place: Checkout, amount: int) -> float:
    """Return how long the sagas that a death has left take, after the restart."""
    place.begin_anew()
    with Session(place.engine) as session, session.begin():
        SAGAS.start_all(session, {order.id: order for order in orders(amount)})
    with killed(place):
        wait_for(place, int(amount * KILLED_AT))
    with running((run_ordering, run_stock), place.address, BATCH):
        began = time.perf_counter()
        left = amount - place.count(ENDED)
        wait_for(place, amount)
        took = time.perf_counter() - began
    # Few of them may all end between two looks at how many have.
    expect(left >= amount // 4 or amount < FEW, wanted=True, what="a quarter is left to do")
    place.check(amount, "saga")
    return took


@contextmanager
def killed(place: Checkout) -> Iterator[None]:
    """Run both services' workers, and kill them at the end of the block."""
    context = get_context("spawn")
    ready, never = context.Event(), context.Event()
    processes = [
        context.Process(target=work, args=(place.address, BATCH, ready, never))
        for work in (run_ordering, run_stock)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def wait_for(place: Checkout, ended: int) -> None:
    """Wait until so many sagas have ended."""
    end = time.perf_counter() + sagas.PATIENCE_S
    while place.count(ENDED) < ended:
        expect(time.perf_counter() < end, wanted=True, what="sagas end in time")
        time.sleep(sagas.LOOK_S)


def run_ordering(address: tuple[str, ...], batch: int, ready: Any, stop: Any) -> None:
    """Run relay, orchestrator and deadlines under names of their own until told to stop."""
    _run(Checkout(*address), ordering, batch, ready, stop)


def run_stock(address: tuple[str, ...], batch: int, ready: Any, stop: Any) -> None:
    """Run relay and consumer of the stock under names of their own until told to stop."""
    _run(Checkout(*address), stock, batch, ready, stop)


def _run(place: Checkout, service: Service, batch: int, ready: Any, stop: Any) -> None:
    workers = place.workers(service, batch, owner=service.name)
    ready.set()
    run_all(workers, thread_event(stop))
    place.close()
