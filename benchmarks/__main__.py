"""Run the benchmarks: `python -m benchmarks [LINE...]`, or `make bench BENCH="LINE..."`.

Servers are those of the environment, else real ones of the bench's own, started beside this file
and deleted afterwards.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import psycopg
import redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import __version__ as sqlalchemy_version
from sqlalchemy.engine import make_url

from benchmarks import (
    appending,
    breaker,
    consuming,
    growth,
    latency,
    relaying,
    restarting,
    retrying,
    sagas,
)
from benchmarks.lines import LATEST, Line, say, store
from benchmarks.size import FULL, Size
from labkit.lab.servers import Stack, stack

Measure = Callable[[Stack, Size], list[Line]]
LINES: dict[str, Measure] = {
    "relay": relaying.measure,
    "latency_wakeup": partial(latency.measure, notify=True),
    "latency_poll": partial(latency.measure, notify=False),
    "append": appending.measure_append,
    "notify": appending.measure_notify,
    **{c.name: partial(consuming.measure, contest=c) for c in consuming.CONTESTS},
    "saga_one": partial(sagas.measure, together=1),
    "saga_batch": partial(sagas.measure, together=sagas.TOGETHER),
    "saga_latency": sagas.measure_latency,
    "saga_restart": restarting.measure,
    "retry": retrying.measure_retry,
    "policy": retrying.measure_policy,
    "breaker_cached": breaker.measure_cached,
    "breaker_strict": breaker.measure_strict,
    "breaker_local": breaker.measure_local,
}
# Takes minutes, so it runs only when it is named.
GROWTH: dict[str, Measure] = {"growth": growth.measure}


def main(names: Sequence[str], size: Size = FULL, path: Path = LATEST) -> int:
    """Measure the named lines, or all but `growth`; store and show them."""
    known = LINES | GROWTH
    if unknown := set(names) - known.keys():
        say(f"no such line: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    measured: list[Line] = []
    with servers() as running:
        on = where(running)
        say(on)
        for name in names or LINES:
            found = [msgspec.structs.replace(each, on=on) for each in known[name](running, size)]
            measured += found
            # At once: an interrupted run keeps what it has.
            store(found, path)
    show(measured, on)
    return 0


@contextmanager
def servers() -> Iterator[Stack]:
    """Yield the servers of the environment, or start some; those are erased afterwards."""
    running = stack(home=Path(__file__).parent)
    try:
        yield running
    finally:
        running.down(erase=True)


def where(running: Stack) -> str:
    """Say what was measured on, without names or places."""
    address = make_url(running.database_url).set(drivername="postgresql")
    with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
        found = connection.execute("show server_version").fetchone()
    with redis.Redis.from_url(running.redis_url) as client:
        server = client.info("server")
    valkey = server.get("valkey_version")
    broker = f"Valkey {valkey}" if valkey else f"Redis {server['redis_version']}"
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, PostgreSQL {found[0].split()[0] if found else '?'}, "
        f"{broker}, SQLAlchemy {sqlalchemy_version}, psycopg {psycopg.__version__}, "
        f"redis-py {redis.__version__}"
    )


def show(lines: Sequence[Line], on: str) -> None:
    """Print lines as a table."""
    table = Table(title="labkit beside hand-written code", caption=on)
    table.add_column("line")
    for name in ("value", "ceiling", "ratio"):
        table.add_column(name, justify="right")
    for name in ("unit", "target", "met"):
        table.add_column(name)
    for each in lines:
        numbers = ["" if x is None else f"{x:,.6g}" for x in (each.value, each.ceiling, each.ratio)]
        met = {True: "yes", False: "NO", None: ""}[each.met]
        table.add_row(each.line, *numbers, each.unit, each.target or "", met)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
