"""One start of one server: a free port, a lock for its life, its log, proof that it is ours.

Guarantee: a start either ends with a server that accepted our password, or with an error that shows
the end of its log and leaves no process. Two servers never share one data directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import redis

from labkit.lab.home import ServerError, wait_for_lock, write_private
from labkit.lab.postgres import Postgres
from labkit.lab.processes import Process, find, spawn, stop, wait_until
from labkit.lab.valkey import Valkey

START_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 5
# Long enough for the children of a killed PostgreSQL to notice and end.
_LIFE_LOCK_TIMEOUT_S = 15.0

Server = Postgres | Valkey


@dataclass(frozen=True)
class Running:
    """A server that was seen alive.

    Args:
        pid: its process.
        started: that process' start, because numbers are used again.
        port: where it listens.
    """

    pid: int
    started: str
    port: int


def start(server: Server) -> Running:
    """Start a server; whatever runs on its data already is ended first.

    Args:
        server: the server.

    Returns:
        Where it runs.

    Raises:
        ServerError: it does not start; with the end of its log.
    """
    halt(server)
    server.sweep()
    with life_lock(server) as lock:
        for attempt in range(_PORT_ATTEMPTS):
            # The old port first, so that the clients of a healed server find it again.
            port = _free_port(configured_port(server) if attempt == 0 else None)
            running = _try_port(server, port, lock)
            if running:
                return running
    raise ServerError(f"{server.title} found no free port in {_PORT_ATTEMPTS} attempts: try again")


def halt(server: Server, *, hastily: bool = False) -> None:
    """End every process that runs on a server's data.

    Args:
        server: the server.
        hastily: do not let it write its data down first: it will be deleted.
    """
    for process in find(server.owns, server.home.owner):
        stop(process, server.signals[-1:] if hastily else server.signals)


@contextmanager
def life_lock(server: Server) -> Iterator[int]:
    """Hold the lock that the server will inherit and keep as long as one of its processes lives.

    Two servers on the same data would destroy it, and we do not see the processes of another
    container; the lock, we see.

    Args:
        server: the server.

    Yields:
        The descriptor to be inherited.

    Raises:
        ServerError: a process that we cannot see still has it.
    """
    path = server.home.servers / f"{server.name}.life"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not wait_for_lock(handle, _LIFE_LOCK_TIMEOUT_S):
            raise ServerError(
                f"{server.title} already runs on {server.data}, perhaps in a container: "
                "stop it there, or set LABKIT_HOME to another directory"
            )
        yield handle
    finally:
        os.close(handle)


def configured_port(server: Server) -> int | None:
    """Tell the port of the last start.

    Args:
        server: the server.

    Returns:
        The port, or None before the first start.
    """
    try:
        text = server.settings.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^port\s*=?\s*(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _try_port(server: Server, port: int, lock: int) -> Running | None:
    server.prepare(port)
    _new_log(server)
    # Killed after this line, the server runs unrecorded; it is found by its command.
    process = spawn(server.argv(), log=server.log, owner=server.home.owner, lock=lock)
    if process and _becomes_ours(server, process, port):
        return Running(process.pid, process.started, port)
    if process:
        stop(process, server.signals)
    tail = _log_tail(server)
    if "already in use" in tail:
        return None
    raise ServerError(
        f"{server.title} did not start. If its data is damaged, `labkit reset` starts over "
        f"without it. The end of {server.log}:\n{tail}"
    )


def _becomes_ours(server: Server, process: Process, port: int) -> bool:
    def settled() -> bool:
        return not process.is_alive() or _lets_us_in(server, port)

    return wait_until(settled, START_TIMEOUT_S) and process.is_alive()


def _lets_us_in(server: Server, port: int) -> bool:
    # Why not the pulse: a stranger may have taken the port, and would answer it as well.
    try:
        server.login(port)
    except (psycopg.Error, redis.RedisError):
        return False
    return True


def _free_port(wanted: int | None) -> int:
    for port in (wanted or 0, 0):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(("127.0.0.1", port))
            return int(candidate.getsockname()[1])
    raise ServerError("no free port on 127.0.0.1: end some programs and try again")


def _new_log(server: Server) -> None:
    if server.log.exists():
        server.log.replace(server.log.with_suffix(".log.old"))
    write_private(server.log, "", server.home.owner)


def _log_tail(server: Server, lines: int = 12) -> str:
    text = server.log.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
