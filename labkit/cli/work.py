"""`labkit run MODULE:SERVICE`: a worker process.

Several may run at once; they share the partitions. SIGTERM or Ctrl-C drains: the batch in hand
is finished, the partitions are given back. A second one ends the process at once, which is safe
too, only slower for the others: they wait for the lease to end.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.logging import RichHandler
from sqlalchemy import Engine

from labkit import db
from labkit.cli import metrics
from labkit.errors import ConfigurationError, LabkitError
from labkit.lab.servers import Stack, stack
from labkit.lease import owner_name
from labkit.service import ROLES, Role, Service, Worker
from labkit.transports import redis_streams
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams

EXIT_KILLED_BY_SECOND_SIGNAL = 130
_CONNECTIONS = 10
# What the commands look at when no service is named.
SHOP = ("labkit.shop.fulfillment:service", "labkit.shop.inventory:service")


def load_service(path: str) -> Service:
    """Import a service.

    Args:
        path: `module:attribute`, such as `labkit.shop.inventory:service`.

    Raises:
        ConfigurationError: when there is no such service.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute or "service")
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"cannot import {path!r} ({error}): write module:service, and check your directory"
        raise ConfigurationError(msg) from error
    if not isinstance(found, Service):
        msg = f"{path} is a {type(found).__name__}, not a labkit Service"
        raise ConfigurationError(msg)
    return found


def run(
    path: Annotated[
        str,
        typer.Argument(metavar="MODULE:SERVICE", help="For example labkit.shop.inventory:service."),
    ],
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "all",
    database: Annotated[
        str | None, typer.Option(help="Database name; that of the service's context by default.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="This worker's place: restarted under the same name, it resumes at once "
            "instead of waiting for its own lease to end. No two alive may share a name."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before every key in Redis.")] = "",
    lease: Annotated[
        float, typer.Option(help="Seconds after which a silent worker is replaced.", min=0.5)
    ] = db.DEFAULT_LEASE_S,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve Prometheus metrics on 127.0.0.1 at this port; 0 takes a free one.",
            min=0,
            max=65535,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the final report as one line of JSON.")
    ] = False,
) -> None:
    """Run a worker of a service until SIGTERM or Ctrl-C.

    Tables are created when they are missing. Start the same command several times for more
    workers: they divide the partitions among themselves.
    """
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is none of {', '.join(ROLES)}", param_hint="--role")
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    stop = stop_on_signals()
    sys.path.insert(0, "")
    place = _Place(load_service(path), stack(), database, prefix)
    workers = _workers(place, role, lease, name)
    if metrics_port is not None:
        _serve_metrics(place, metrics_port, workers)
    if not as_json:
        typer.echo(f"{path} · {role} · pid {os.getpid()} · SIGTERM drains, a second one ends")
    reports = run_all(workers, stop)
    _print_reports(reports, as_json=as_json)


def stop_on_signals() -> threading.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second ends the process."""
    stop = threading.Event()

    def first(_signum: int, _frame: object) -> None:
        stop.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, second)

    def second(_signum: int, _frame: object) -> None:
        # Why not SystemExit: it would wait for the threads that do not want to stop.
        os._exit(EXIT_KILLED_BY_SECOND_SIGNAL)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, first)
    return stop


def as_ctrl_c(_signum: int, _frame: object) -> None:
    """Let SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


class _Place(NamedTuple):
    """A service, and where it runs."""

    service: Service
    servers: Stack
    database: str | None
    prefix: str

    def engine(self, lease_s: float, pool_size: int) -> Engine:
        url = self.servers.database(self.database or self.service.context.name)
        return db.connect(url, lease_s=lease_s, pool_size=pool_size)

    def transport(self) -> RedisStreams:
        return RedisStreams(redis_streams.connect(self.servers.redis_url), self.prefix)


def _workers(place: _Place, role: Role, lease_s: float, name: str | None) -> list[Worker]:
    engine = place.engine(lease_s, _CONNECTIONS)
    place.service.create_tables(engine)
    owner = name or owner_name()
    return place.service.workers(role, engine, place.transport(), owner=owner, lease_s=lease_s)


def _serve_metrics(place: _Place, port: int, workers: Sequence[Worker]) -> None:
    # Connections of its own: a scrape never waits for a worker's, nor a worker for a scrape.
    engine = place.engine(db.DEFAULT_LEASE_S, 1)
    inspection = RedisInspection(place.transport())
    port = metrics.serve(port, place.service, engine, inspection, workers)
    typer.echo(f"metrics at http://127.0.0.1:{port}/metrics", err=True)


def run_all(workers: Sequence[Worker], stop: threading.Event) -> dict[str, dict[str, int]]:
    """Run workers side by side, one thread each, until told to stop.

    Args:
        workers: what to run.
        stop: set it to end; an error in one worker sets it for all.

    Returns:
        The report of each worker by its name.

    Raises:
        LabkitError: the first error that ended a worker.
    """
    reports: dict[str, dict[str, int]] = {}
    errors: list[BaseException] = []

    def body(name: str, worker: Worker) -> None:
        try:
            reports[name] = asdict(worker.run(stop))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the process must end
            errors.append(error)
        stop.set()

    threads = [
        threading.Thread(target=body, args=(str(worker), worker), name=str(worker))
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0] if isinstance(errors[0], LabkitError) else LabkitError(repr(errors[0]))
    return reports


def _print_reports(reports: dict[str, dict[str, int]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(reports))
        return
    for name, report in sorted(reports.items()):
        facts: dict[str, Any] = {key: value for key, value in report.items() if value}
        typer.echo(f"{name}: {facts or 'nothing to do'}")
