"""What a chaos run strikes: two servers and some workers, all of them its own.

Guarantee: only processes that were started here are signalled, by number and start time. The
servers live in a home of their own, whatever the environment names; what `heal` leaves behind
runs. Not guaranteed: anything after a SIGKILL of the run itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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

_STOP_WITHIN_S = 15.0
_DIES_WITHIN_S = 10.0
# A worker that ended by itself found no server at its start: a supervisor waits a little.
_RESTART_AFTER_S = 0.3
_READY = b"SIGTERM drains"


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


@dataclass
class _Worker:
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts_at_s: float = 0.0


@dataclass
class Workers:
    """`labkit run` processes, kept alive as a supervisor does.

    Args:
        commands: the arguments of each, by name.
        environment: what they are told besides our own environment.
        logs: directory for what they say.
        seed: of their LABKIT_FAULTS; each process gets another one.
    """

    commands: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    logs: Path
    seed: int
    faults: str = ""
    killed_by_faults: int = 0
    gave_up: list[str] = field(default_factory=list)
    _spawned: int = 0

    def __post_init__(self) -> None:
        """Nothing runs yet; `tend` starts everybody."""
        self._workers = {
            name: _Worker(command, self.logs / f"{name}.log")
            for name, command in self.commands.items()
        }

    def tend(self) -> None:
        """Start who does not run; call it now and then."""
        for name, worker in self._workers.items():
            if worker.process is not None and worker.process.poll() is not None:
                self._note_end(name, worker, worker.process.returncode)
            if worker.process is None and worker.starts_at_s <= time.monotonic():
                worker.process = self._spawn(worker)

    def wait_until_at_work(self, within_s: float) -> None:
        """Start everybody, and wait until all of them are at work.

        Args:
            within_s: how long that may take, in seconds.

        Raises:
            TimeoutError: one of them does not get to it.
        """
        deadline_s = time.monotonic() + within_s
        self.tend()
        for name, worker in self._workers.items():
            while _READY not in worker.log.read_bytes():
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"{name} does not get to work in {within_s:.0f} s")
                time.sleep(0.05)
                self.tend()

    def strike(self, name: str, action: Action, lasts_s: float) -> None:
        """Kill a worker, to be started again after `lasts_s`, or freeze it until `heal`."""
        worker = self._workers[name]
        while worker.process is None or worker.process.poll() is not None:
            self.tend()
            time.sleep(0.01)
        if action == "freeze":
            worker.process.send_signal(signal.SIGSTOP)
            return
        worker.process.kill()
        worker.process.wait()
        worker.process = None
        worker.starts_at_s = time.monotonic() + lasts_s

    def heal(self, name: str) -> None:
        """Wake a worker."""
        process = self._workers[name].process
        if process is not None:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Drain everybody; end who does not drain in time."""
        running = [w.process for w in self._workers.values() if w.process is not None]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline_s = time.monotonic() + _STOP_WITHIN_S
        for process in running:
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in self._workers.values():
            worker.process = None

    def _note_end(self, name: str, worker: _Worker, code: int) -> None:
        said = worker.log.read_bytes()
        if code < 0:
            self.killed_by_faults += 1
        elif _READY in said:
            # A worker that was at work waits for better times and never ends by itself.
            tail = "\n".join(said.decode(errors="replace").splitlines()[-5:])
            self.gave_up.append(f"{name} ended with code {code}: {tail}")
        worker.process = None
        worker.starts_at_s = time.monotonic() + (0.0 if code < 0 else _RESTART_AFTER_S)

    def _spawn(self, worker: _Worker) -> subprocess.Popen[bytes]:
        self._spawned += 1
        faults = {
            "LABKIT_FAULTS": self.faults,
            "LABKIT_FAULTS_SEED": f"{self.seed} {self._spawned}",
        }
        with worker.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "labkit", "run", *worker.command],
                env=os.environ | dict(self.environment) | faults,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the whole group: the workers are drained by us.
                start_new_session=True,
            )
