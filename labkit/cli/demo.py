"""`labkit demo`: orders from service to service on real servers, and proof that nothing got lost.

Each run has its own databases and streams. Orders are placed in `fulfillment` while worker
processes of both services carry the events; then every order must be settled and every
invariant of `labkit.testing.audit` must hold. With `LABKIT_FAULTS` set, the workers (and only
they) are killed and frozen on the way, and the end is the same.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import crash, db
from labkit.cli.processes import WorkerEndedError, WorkerProcesses
from labkit.cli.work import as_ctrl_c
from labkit.lab.servers import Stack, stack
from labkit.shop import fulfillment, inventory
from labkit.testing import audit
from labkit.transports.redis_connection import connect, naming_errors
from labkit.transports.redis_streams import RedisStreams

_PLACERS = 4
_TEND_EVERY_S = 0.05
_AUDIT_WITHIN_S = 600.0
_SERVICES = {
    "fulfillment": "labkit.shop.fulfillment:service",
    "inventory": "labkit.shop.inventory:service",
}


@dataclass
class Result:
    """What a run ended with."""

    orders: int
    statuses: dict[str, int]
    invariants: dict[str, str | None]
    placing_s: float
    settling_s: float
    killed: int
    frozen: int
    settled: bool
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        """Sum up."""
        self.holds = self.settled and not any(self.invariants.values())


@dataclass(frozen=True)
class _Run:
    """The databases and the stream prefix of one run."""

    name: str
    servers: Stack
    lease_s: float

    def engine(self, service: str) -> Engine:
        # Why not the workers' limits: whoever places and audits orders is in no lease, and the
        # audit of many orders is one long transaction.
        url = self.servers.database(self.database(service))
        return db.connect(url, lease_s=_AUDIT_WITHIN_S)

    def database(self, service: str) -> str:
        return f"{self.name}_{service}"

    @property
    def prefix(self) -> str:
        return f"{self.name}:"


def demo(
    orders: Annotated[int, typer.Option(help="How many orders to place.", min=1)] = 200,
    out_of_stock: Annotated[
        float, typer.Option(help="Share of the orders that stock is missing for.", min=0, max=1)
    ] = 0.2,
    workers: Annotated[int, typer.Option(help="Processes of each service.", min=1, max=16)] = 1,
    lease: Annotated[
        float, typer.Option(help="Seconds after which a silent worker is replaced.", min=0.5)
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds without any progress after which it gives up.", min=0)
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep databases and streams to look at.")
    ] = False,
) -> None:
    """Carry orders through both services and check that nothing was lost, doubled or reordered.

    Set LABKIT_FAULTS to kill workers on the way, for example
    LABKIT_FAULTS="relay.after_publish:kill:0.05,consumer.before_commit:kill:0.02".
    Exits with 1 when an invariant does not hold.
    """
    crash.configure({})  # the faults are for the workers, not for who checks them
    run = _Run(f"demo_{uuid.uuid4().hex[:8]}", stack(), lease)
    with naming_errors():  # before anything is created: does it answer at all?
        connect(run.servers.redis_url).ping()
    signal.signal(signal.SIGTERM, as_ctrl_c)
    console = Console(stderr=True, quiet=as_json)
    if not as_json:
        console.print(run.servers.describe(), highlight=False, soft_wrap=True)
    try:
        result = _carry_out(run, orders, out_of_stock, workers, timeout, console)
    finally:
        if keep:
            names = ", ".join(run.database(service) for service in _SERVICES)
            console.print(f"kept: databases {names}; streams with prefix {run.prefix}")
        else:
            _clean_up(run)
    _print(result, as_json=as_json)
    raise typer.Exit(0 if result.holds else 1)


def _carry_out(
    run: _Run, orders: int, out_of_stock: float, workers: int, timeout_s: float, console: Console
) -> Result:
    engines = {service: run.engine(service) for service in _SERVICES}
    fulfillment.service.create_tables(engines["fulfillment"])
    inventory.service.create_tables(engines["inventory"])
    scarce = orders - round(orders * out_of_stock)
    opening = {"BOOK-DDD": scarce, "BOOK-HEX": orders}
    inventory.stock_up(engines["inventory"], opening)
    commands = _commands(run, workers)
    with tempfile.TemporaryFile() as log, _progress(console, orders) as tick:
        processes = WorkerProcesses(commands, wake_after_s=run.lease_s * 1.5, log=log)
        processes.start()
        try:
            started_s = time.monotonic()
            _place(engines["fulfillment"], orders, processes, tick)
            placed_s = time.monotonic()
            settled = _settle(engines, orders, processes, tick, timeout_s)
            done_s = time.monotonic()
        except WorkerEndedError as error:
            raise WorkerEndedError(f"{error}\n{_tail(log)}") from error
        finally:
            processes.stop()
    client = connect(run.servers.redis_url)
    broken = audit.audit(
        engines["fulfillment"], engines["inventory"], RedisStreams(client, run.prefix), opening
    )
    with engines["fulfillment"].connect() as connection:
        statuses = fulfillment.view.count_by_status(connection)
    for engine in engines.values():
        engine.dispose()
    return Result(
        orders=orders,
        statuses=statuses,
        invariants=broken,
        placing_s=round(placed_s - started_s, 3),
        settling_s=round(done_s - placed_s, 3),
        killed=processes.killed,
        frozen=processes.frozen,
        settled=settled,
    )


def _tail(log: IO[bytes]) -> str:
    """Return the last lines that the workers wrote."""
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-10:])


def _commands(run: _Run, workers: int) -> list[list[str]]:
    return [
        [
            path,
            f"--database={run.database(service)}",
            f"--prefix={run.prefix}",
            f"--lease={run.lease_s}",
            f"--name={service}-{place}",
        ]
        for service, path in _SERVICES.items()
        for place in range(workers)
    ]


def _place(engine: Engine, orders: int, processes: WorkerProcesses, tick: Any) -> None:
    def place(number: int) -> None:
        lines = [("BOOK-DDD", 1)] + ([("BOOK-HEX", 1)] if number % 3 == 0 else [])
        with Session(engine) as session, session.begin():
            fulfillment.place_order(session, f"ORD-{number}", lines)

    pool = ThreadPoolExecutor(_PLACERS)
    try:
        for number, _ in enumerate(pool.map(place, range(1, orders + 1)), start=1):
            tick(placed=number)
            if number % 50 == 0:
                processes.tend()
    finally:
        # Why not `with`: interrupted, it would place all the other orders first.
        pool.shutdown(cancel_futures=True)


def _settle(
    engines: dict[str, Engine],
    orders: int,
    processes: WorkerProcesses,
    tick: Any,
    timeout_s: float,
) -> bool:
    """Wait until every order is settled and both outboxes are empty, or nothing moves any more."""
    seen, seen_at_s = -1, time.monotonic()
    while True:
        processes.tend()
        progress = audit.progress(engines["fulfillment"], engines["inventory"])
        tick(settled=progress.settled)
        if progress.settled == orders and progress.under_way == 0:
            return True
        moved = progress.settled * 1_000_000 - progress.under_way
        if moved != seen:
            seen, seen_at_s = moved, time.monotonic()
        if time.monotonic() - seen_at_s > timeout_s:
            return False
        time.sleep(_TEND_EVERY_S)


@contextmanager
def _progress(console: Console, orders: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        placed = bars.add_task("placed ", total=orders)
        settled = bars.add_task("settled", total=orders)

        def tick(**done: int) -> None:
            for name, task in (("placed", placed), ("settled", settled)):
                if name in done:
                    bars.update(task, completed=done[name])

        yield tick


def _clean_up(run: _Run) -> None:
    for service in _SERVICES:
        run.servers.drop_database(run.database(service))
    with naming_errors(), connect(run.servers.redis_url) as client:
        for key in client.scan_iter(match=f"*{run.prefix}*", count=1000):
            client.delete(key)


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.__dict__))
        return
    table = Table(title=f"{result.orders} orders", title_justify="left")
    table.add_column("what must hold")
    table.add_column("")
    table.add_row("every order is settled", _mark(None if result.settled else "it stopped moving"))
    for name, counterexample in result.invariants.items():
        table.add_row(name, _mark(counterexample))
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
    console = Console()
    console.print(table)
    console.print(f"{statuses}", highlight=False)
    rate = result.orders / (result.placing_s + result.settling_s)
    console.print(
        f"placed in {result.placing_s:.1f} s, settled {result.settling_s:.1f} s later "
        f"({rate:.0f} orders/s) · workers killed {result.killed}, frozen {result.frozen}",
        highlight=False,
    )


def _mark(counterexample: str | None) -> str:
    return "[green]yes[/green]" if counterexample is None else f"[red]no[/red]: {counterexample}"
