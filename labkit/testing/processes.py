"""Processes that are killed and frozen for good reason: what `labkit run` does, started fast.

A forkserver has labkit imported before it forks, so a process costs milliseconds, not a second.
Why not fork: the parent has threads. Why not spawn: importing takes longer than most runs.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from labkit import crash, db
from labkit.cli.work import load_service, run_all, stop_on_signals
from labkit.errors import LabkitError
from labkit.service import Role
from labkit.transports.redis_streams import RedisStreams, connect

_PRELOADED = [
    "labkit.testing.antipatterns",
    "labkit.testing.crash_runner",
    "labkit.lab.memory",
    "labkit.lab.pr_de_ayer",
    "labkit.lab.relaying",
    "labkit.lab.waves",
    "labkit.lab.working",
    "labkit.lab.workshop.crew",
    "labkit.lab.workshop.demo",
]


# Starting a process looks after all others, and whoever looks second at one that was killed is told
# another exit code: so that several threads may run processes, one at a time looks.
_looking = threading.Lock()


def start(target: Callable[..., None], *arguments: Any, faults: str = "") -> BaseProcess:
    """Start a process under faults of its own; wait for it with `wait`.

    Args:
        target: a function of a module.
        arguments: what to call it with.
        faults: as in `LABKIT_FAULTS`; names that are not labkit's own are allowed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_begin, args=(target, arguments, faults), daemon=True)
    with _looking:
        process.start()
    return process


def prepare() -> None:
    """Let the forkserver import what it needs, while we do something else."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with _looking:
        forkserver.ensure_running()


def has_ended(process: BaseProcess) -> bool:
    """Say whether a process has ended, without waiting."""
    with _looking:
        return process.exitcode is not None


def wait(process: BaseProcess, patience_s: float) -> int:
    """Wait for the end of a process; it is killed when that does not come, or on the way out.

    Args:
        process: from `start`.
        patience_s: how long, in seconds.

    Returns:
        0, 1 after an exception, or the negative number of the signal that killed it.

    Raises:
        LabkitError: when it was still at work.
    """
    try:
        multiprocessing.connection.wait([process.sentinel], patience_s)
        if not has_ended(process):
            raise LabkitError(f"a process was still at work after {patience_s:g} s")
        return int(process.exitcode or 0)
    finally:
        end(process)


def end(process: BaseProcess) -> None:
    """Kill a process unless it has ended, frozen ones too."""
    if not has_ended(process):
        process.kill()
        multiprocessing.connection.wait([process.sentinel])
        has_ended(process)


def _begin(target: Callable[..., None], arguments: tuple[Any, ...], faults: str) -> None:
    crash.configure({"LABKIT_FAULTS": faults})
    # A lost lease is part of the plan; in a notebook the warning would land in somebody's cell.
    logging.getLogger("labkit").addHandler(logging.NullHandler())
    target(*arguments)


class Where(NamedTuple):
    """Addresses: a database, a Redis, and the prefix of the streams' keys."""

    database: str
    redis_url: str
    prefix: str


def work(path: str, role: Role, where: Where, options: dict[str, Any]) -> None:
    """Be a worker until SIGTERM.

    Args:
        path: `module:service`.
        role: what to do for it.
        where: its database and the streams.
        options: passed to every worker, `lease_s` among them.
    """
    stop = stop_on_signals()
    engine = db.connect(where.database, lease_s=options["lease_s"])
    transport = RedisStreams(connect(where.redis_url), where.prefix)
    run_all(load_service(path).workers(role, engine, transport, **options), stop)


def call(function: Callable[..., object], where: Where, arguments: tuple[Any, ...]) -> None:
    """Call a function with an engine, a transport and the arguments, and end.

    Args:
        function: of a module.
        where: its database and the streams.
        arguments: what follows engine and transport.
    """
    transport = RedisStreams(connect(where.redis_url), where.prefix)
    function(db.connect(where.database), transport, *arguments)


def is_frozen(process: BaseProcess) -> bool:
    """Say whether a process is stopped (SIGSTOP), as the system's process table has it."""
    shown = subprocess.run(
        ["ps", "-o", "state=", "-p", str(process.pid)],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip().startswith("T")
