"""The servers that a chaos run strikes: a PostgreSQL and a Valkey of its own.

Guarantee: only processes that were started here are signalled, by number and start time. The
servers live in a home of their own, whatever the environment names; what `heal` leaves behind
runs. Not guaranteed: anything after a SIGKILL of the run itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import redis
from sqlalchemy.engine import make_url

from labkit.lab import embedded
from labkit.lab.environment import DATABASE, REDIS, with_password
from labkit.lab.home import Home, ServerError
from labkit.lab.processes import Process, children, wait_until
from labkit.lab.servers import Stack
from labkit.lab.starting import Server, configured_port, start
from labkit.testing.strikes import Action

_DIES_WITHIN_S = 10.0


class Servers:
    """PostgreSQL and Valkey of a new home.

    Args:
        root: the home; it must be nobody else's.
    """

    def __init__(self, root: Path) -> None:
        self.home = Home(root.resolve())
        # Why not `stack()`: it would take the servers that the environment names.
        self.stack = Stack(*embedded.ensure(self.home), "embedded", self.home.root)
        self._named: dict[str, Server] = {s.name: s for s in embedded.servers_of(self.home)}
        self._bytes_a_second_ago = 0
        self._healers = ThreadPoolExecutor(len(self._named))
        self._healing: dict[str, Future[None]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a worker is told, so that it looks for servers and never starts or heals one."""
        urls = {DATABASE: self.stack.database_url, REDIS: self.stack.redis_url}
        return urls | {"LABKIT_HOME": str(self.home.root)}

    def strike(self, name: str, action: Action) -> None:
        """Kill, freeze, cut or empty a server; it stays so until `heal`.

        Raises:
            ServerError: the last heal failed, or the kernel does not let it die.
        """
        self._healed(name)
        server = self._named[name]
        if action == "cut":
            self._cut(name)
            return
        frozen = _freeze(server)
        if action == "freeze":
            return
        for process in frozen:
            _send(process, signal.SIGKILL)
        # The kernel takes its time, and a dying process would pass for one that lives.
        if not wait_until(lambda: not any(p.is_alive() for p in frozen), _DIES_WITHIN_S):
            raise ServerError(f"{server.title} survived SIGKILL for {_DIES_WITHIN_S:.0f} s")
        if action == "empty":
            shutil.rmtree(server.data)
        elif name == "valkey":
            self._lose_the_last_second()

    def heal(self, name: str) -> None:
        """Wake a frozen server, start a dead one where it was; it takes its time in a thread."""
        self._healing[name] = self._healers.submit(self._heal, self._named[name])

    def wait_until_healed(self) -> None:
        """Wait until every server answers.

        Raises:
            ServerError: one does not start, or somebody took its port.
        """
        for name in self._named:
            self._healed(name)

    def sample(self) -> None:
        """Note how long Valkey's log is; call it once per second."""
        self._bytes_a_second_ago = sum(file.stat().st_size for file in self._appended())

    def end(self) -> None:
        """Stop both servers and delete everything."""
        self._healers.shutdown()
        for server in self._named.values():
            _wake(server)
        embedded.erase(self.home)
        shutil.rmtree(self.home.root, ignore_errors=True)

    def _healed(self, name: str) -> None:
        if name in self._healing:
            self._healing.pop(name).result()

    @staticmethod
    def _heal(server: Server) -> None:
        if _wake(server):
            return
        port = configured_port(server)
        if start(server).port != port:
            raise ServerError(f"somebody took port {port} of {server.title}: run it again")

    def _appended(self) -> list[Path]:
        return sorted(self._named["valkey"].data.glob("appendonlydir/*.incr.aof"))

    def _lose_the_last_second(self) -> None:
        """Cut the log to what a power cut leaves under `appendfsync everysec`.

        A killed process loses less than that: the kernel writes its pages down without it.
        """
        for file in self._appended()[-1:]:
            if file.stat().st_size > self._bytes_a_second_ago:
                os.truncate(file, self._bytes_a_second_ago)

    def _cut(self, name: str) -> None:
        if name == "valkey":
            with redis.Redis.from_url(self.stack.redis_url, socket_timeout=2.0) as client:
                client.client_kill_filter(_type="normal", skipme=True)
            return
        plain = with_password(make_url(self.stack.database_url).set(drivername="postgresql"))
        with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid()"
            )


def _family(server: Server) -> list[Process]:
    """Return a server's process and those it made; the parent comes first."""
    seen = embedded.look(server)
    return [seen[0], *children(seen[0])] if seen else []


def _wake(server: Server) -> bool:
    """Let a server go on, children first; return whether there is one."""
    family = _family(server)
    for process in reversed(family):
        _send(process, signal.SIGCONT)
    return bool(family)


def _freeze(server: Server) -> list[Process]:
    family = _family(server)
    for process in family[:1]:
        _send(process, signal.SIGSTOP)
    # Again: a stopped parent makes no more.
    family = _family(server)
    for process in family[1:]:
        _send(process, signal.SIGSTOP)
    return family


def _send(process: Process, number: signal.Signals) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
