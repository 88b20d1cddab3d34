"""Lines `saga_*`: checkouts per second, and from the start of one to its last row.

Each service is a process of its own with its relay and its consumer, and with labkit the one
that orchestrates has its deadlines too. Those who order are threads of this process. A saga that
is rejected counts as one that is done: one in ten is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import psycopg
from sqlalchemy.orm import Session

from benchmarks import checkout_by_hand
from benchmarks.arena import expect, raw_connection
from benchmarks.checkout import (
    SAGAS,
    Checkout,
    Order,
    checkout,
    ordering,
    orders,
    stock,
)
from benchmarks.latency import Percentiles, percentiles, running, thread_event
from benchmarks.lines import Line, Target, line_of, seconds_of, take_turns
from benchmarks.size import Size
from labkit.cli.work import run_all
from labkit.lab.servers import Stack
from labkit.service import Service

SUBMITTERS = 8
TOGETHER = 50
BATCH = 500
WARM = 50
PER_SECOND = 20
LATENCY = (15.0, 60.0)
PATIENCE_S = 60.0
LOOK_S = 0.005
Start = Callable[[Sequence[Order]], object]


class Side(NamedTuple):
    """Who does the work: its two processes, how it begins sagas, and where it keeps them."""

    processes: tuple[Callable[..., None], Callable[..., None]]
    starter: Callable[[Checkout, ExitStack], Start]
    table: str


def measure(servers: Stack, size: Size, *, together: int) -> list[Line]:
    """Let both sides do as many sagas in turns, `together` in each transaction that begins some."""
    name, limit = ("saga_one", 500.0) if together == 1 else ("saga_batch", 3000.0)
    amount = size.sagas if together == 1 else size.sagas * 5
    with checkout(servers) as place:
        sides = [partial(throughput, place, side, amount, together) for side in (LABKIT, BY_HAND)]
        ours, ceiling = take_turns(name, size.runs, *sides)
    return [line_of(name, "sagas/s", ours, ceiling, Target("value", at_least=True, limit=limit))]


def measure_latency(servers: Stack, size: Size) -> list[Line]:
    """Measure both percentiles of both sides in turns."""
    count = max(10, size.sagas // 10)
    found: dict[str, list[Percentiles]] = {LABKIT.table: [], BY_HAND.table: []}

    def turn(place: Checkout, side: Side) -> float:
        found[side.table].append(percentiles(latencies(place, side, count)))
        return 0.0

    with checkout(servers) as place:
        sides = [partial(turn, place, side) for side in (LABKIT, BY_HAND)]
        take_turns("saga_latency", size.runs, *sides)
    return [
        line_of(
            f"saga_latency_{percentile}",
            "ms",
            # The first round warmed up.
            [each[index] for each in found[LABKIT.table][1:]],
            [each[index] for each in found[BY_HAND.table][1:]],
            Target("value", at_least=False, limit=LATENCY[index]),
        )
        for index, percentile in enumerate(("p50", "p99"))
    ]


def throughput(place: Checkout, side: Side, amount: int, together: int) -> float:
    """Return how many sagas a second a side does, from the first start to the last end."""
    with at_work(place, side) as starts:
        wanted = orders(amount)
        chunks = [wanted[n : n + together] for n in range(0, amount, together)]
        seconds = seconds_of(lambda: do_all(place, side, starts, chunks))
    place.check(amount + WARM, side.table)
    return amount / seconds


@contextmanager
def at_work(place: Checkout, side: Side) -> Iterator[list[Start]]:
    """Run a side's processes on empty tables; yield a way to begin sagas for each submitter."""
    place.begin_anew()
    with ExitStack() as opened:
        opened.enter_context(running(side.processes, place.address, BATCH))
        starts = [side.starter(place, opened) for _ in range(SUBMITTERS)]
        do_all(place, side, starts, [[order] for order in orders(WARM)])
        yield starts


def do_all(
    place: Checkout, side: Side, starts: Sequence[Start], chunks: Sequence[Sequence[Order]]
) -> None:
    """Begin sagas from all submitters, and wait until every one has ended."""

    def submit(index: int) -> None:
        for chunk in chunks[index :: len(starts)]:
            starts[index](chunk)

    with ThreadPoolExecutor(len(starts)) as pool:
        list(pool.map(submit, range(len(starts))))
    end = time.perf_counter() + PATIENCE_S
    left = f"select count(*) from {side.table} where status not in ('COMPLETED', 'COMPENSATED')"
    while place.count(left):
        expect(time.perf_counter() < end, wanted=True, what="sagas end in time")
        time.sleep(LOOK_S)


def latencies(place: Checkout, side: Side, count: int) -> list[float]:
    """Begin sagas at the rate; return the seconds from before the start to the news of its end."""
    began: dict[str, float] = {}
    with at_work(place, side) as starts, raw_connection(place.address[0]) as listener:
        listener.execute("listen ended")
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(listen, listener, count)
            first = time.perf_counter()
            for n, order in enumerate(orders(count)):
                time.sleep(max(0.0, first + n / PER_SECOND - time.perf_counter()))
                began[order.id] = time.perf_counter()
                starts[0]([order])
            seen = ended.result()
    place.check(count + WARM, side.table)
    return [seen[id_] - at for id_, at in began.items()]


def listen(listener: psycopg.Connection[Any], count: int) -> dict[str, float]:
    """Return when each saga was told to have ended."""
    seen: dict[str, float] = {}
    for told in listener.notifies(timeout=PATIENCE_S):
        seen[told.payload] = time.perf_counter()
        if len(seen) == count:
            break
    expect(len(seen), count, "sagas told to have ended")
    return seen


def start_by_labkit(place: Checkout, _opened: ExitStack) -> Start:
    """Return what begins sagas as a service with labkit does."""

    def start(chunk: Sequence[Order]) -> None:
        with Session(place.engine) as session, session.begin():
            SAGAS.start_all(session, {order.id: order for order in chunk})

    return start


def start_by_hand(place: Checkout, opened: ExitStack) -> Start:
    """Return what begins sagas by hand."""
    connection = opened.enter_context(raw_connection(place.address[0]))
    return partial(checkout_by_hand.start, connection)


def run_ordering(address: Sequence[str], batch: int, ready: Any, stop: Any) -> None:
    """Run labkit's relay, orchestrator and deadlines until told to stop."""
    _run(Checkout(*address), ordering, batch, ready, stop)


def run_stock(address: Sequence[str], batch: int, ready: Any, stop: Any) -> None:
    """Run labkit's relay and consumer of the stock until told to stop."""
    _run(Checkout(*address), stock, batch, ready, stop)


def _run(place: Checkout, service: Service, batch: int, ready: Any, stop: Any) -> None:
    workers = place.workers(service, batch)
    ready.set()
    run_all(workers, thread_event(stop))
    place.close()


LABKIT = Side((run_ordering, run_stock), start_by_labkit, "saga")
BY_HAND = Side(
    (checkout_by_hand.run_ordering, checkout_by_hand.run_stock), start_by_hand, "saga_by_hand"
)
