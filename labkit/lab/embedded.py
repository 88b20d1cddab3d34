"""The life of the embedded servers: found, adopted, healed, stopped, erased.

The truth is the process table, not our record. A server is ours when its command line names this
home's data; the record only makes the usual case (all is well) cheap.

Guarantee: after `ensure` both servers answer, whatever was killed, frozen or deleted before, and
no process of an earlier attempt is left. Data survives everything but `erase`.
Not guaranteed: connections through a healed server survive; its port does, if it is still free.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from labkit.lab import leftovers
from labkit.lab.home import Home, read_json, write_private
from labkit.lab.postgres import Postgres
from labkit.lab.processes import Process, Pulse, find, inspect, wait_until
from labkit.lab.starting import (
    START_TIMEOUT_S,
    Running,
    Server,
    configured_port,
    halt,
    life_lock,
    start,
)
from labkit.lab.valkey import Valkey

# A busy machine is slow, a stopped process is silent: only the second is hurried.
PATIENCE_S = 10.0
PATIENCE_WHEN_STOPPED_S = 2.0


def servers_of(home: Home) -> tuple[Postgres, Valkey]:
    """Tell the two servers of a home.

    Args:
        home: the home; its passwords are empty when it has none yet.

    Returns:
        The servers, running or not.
    """
    known = read_json(home.state / "passwords.json")
    return (
        Postgres(home, str(known.get("postgres", ""))),
        Valkey(home, str(known.get("valkey", ""))),
    )


def ensure(home: Home) -> tuple[str, str]:
    """Have both servers answer.

    Args:
        home: the home.

    Returns:
        The URLs of PostgreSQL and of Valkey.

    Raises:
        ServerError: one of them cannot be started; with the end of its log.
    """
    with home.locked():
        servers = _with_passwords(home)
        record = read_json(home.state / "stack.json")
        running = {s.name: found for s in servers if (found := _survivor(s, record))}
        missing = [server for server in servers if server.name not in running]
        if missing:
            running |= _start_all(missing)
        _keep_record(home, running, record)
    postgres, valkey = (server.url(running[server.name].port) for server in servers)
    return postgres, valkey


def stop_all(home: Home, *, hastily: bool = False) -> None:
    """Stop both servers; data and passwords stay. Nothing happens when none runs.

    Args:
        home: the home.
        hastily: do not let them write their data down first: it will be deleted.
    """
    if not home.state.is_dir() and not home.servers.is_dir():
        return
    with home.locked():
        for server in servers_of(home):
            halt(server, hastily=hastily)
        (home.state / "stack.json").unlink(missing_ok=True)


def erase(home: Home) -> None:
    """Stop both servers and delete everything that they knew.

    Args:
        home: the home.
    """
    stop_all(home, hastily=True)
    with home.locked():
        for path in (*home.servers.iterdir(), *home.state.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":  # others may be waiting for it
                path.unlink(missing_ok=True)
        if home.servers != home.state:
            home.servers.rmdir()


def look(server: Server) -> tuple[Process, int] | None:
    """Look for a server of ours, without touching it.

    Args:
        server: the server.

    Returns:
        Its process and port, or None.
    """
    found = find(server.owns, server.home.owner)
    port = configured_port(server)
    return (found[0], port) if found and port else None


def is_healthy(server: Server, process: Process, port: int) -> bool:
    """Ask a server for a sign of life; one that is still loading gets the time for it.

    Args:
        server: the server.
        process: its process; a stopped one gets less time.
        port: where it listens.

    Returns:
        Whether it can be used.
    """
    patience_s = PATIENCE_WHEN_STOPPED_S if process.is_stopped else PATIENCE_S
    pulse = server.pulse(port, patience_s)

    def loaded() -> bool:
        nonlocal pulse
        pulse = server.pulse(port, patience_s)
        return pulse is not Pulse.BUSY

    if pulse is Pulse.BUSY:
        wait_until(loaded, START_TIMEOUT_S)
    return pulse is Pulse.READY


def _with_passwords(home: Home) -> tuple[Postgres, Valkey]:
    servers = servers_of(home)
    if all(server.password for server in servers):
        return servers
    # A first start, or lost passwords: the data is kept and PostgreSQL gets the new one first.
    fresh = {server.name: secrets.token_urlsafe(24) for server in servers}
    servers = (Postgres(home, fresh["postgres"]), Valkey(home, fresh["valkey"]))
    for server in servers:
        halt(server)
        with life_lock(server) as lock:
            server.change_password(lock)
    # Killed before this line, the next starter finds no passwords and does it again.
    write_private(home.state / "passwords.json", json.dumps(fresh))
    return servers


def _survivor(server: Server, record: dict[str, Any]) -> Running | None:
    process, port = _recorded(server, record) or look(server) or (None, 0)
    if process and is_healthy(server, process, port):
        return Running(process.pid, process.started, port)
    return None


def _recorded(server: Server, record: dict[str, Any]) -> tuple[Process, int] | None:
    match record.get(server.name):
        case {"pid": int(pid), "started": str(started), "port": int(port)}:
            process = inspect(pid)
            if process and process.started == started and server.owns(process.command):
                return process, port
    return None


def _start_all(servers: Sequence[Server]) -> dict[str, Running]:
    for server in servers:
        server.argv()  # a missing program is noticed before anything runs
    leftovers.sweep()
    with ThreadPoolExecutor(len(servers)) as pool:
        started = pool.map(start, servers)
        return {server.name: each for server, each in zip(servers, started, strict=True)}


def _keep_record(home: Home, running: dict[str, Running], record: dict[str, Any]) -> None:
    current = {name: asdict(each) for name, each in running.items()}
    if current != record:
        write_private(home.state / "stack.json", json.dumps(current, indent=1))
