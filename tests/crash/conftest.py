"""Real worker processes for tests that kill and freeze them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
from sqlalchemy import Engine, make_url

from labkit import crash, db
from labkit.cli import work
from labkit.cli.work import load_service
from labkit.lab.servers import Stack
from labkit.transports.redis_streams import RedisStreams
from tests.conftest import NewDatabase

LEASE_S = 1.0
PATIENCE_S = 40.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail with a sentence when it does not come."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {PATIENCE_S} s in vain until {what}")
        time.sleep(0.02)


def _work(path: str, arguments: dict[str, Any], environment: dict[str, str]) -> None:
    """Be a worker process: what `labkit run` does, without starting Python anew."""
    os.environ.update(environment)
    crash.configure()
    work.run(path, **arguments)


# Why not fork: this process has threads. Why not spawn: importing takes longer than most tests.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["labkit.cli.work", "labkit.shop.checkout", "tests.toy"])


@dataclass
class Crew:
    """Starts worker processes on this test's databases and streams."""

    servers: Stack
    new_database: NewDatabase
    prefix: str
    lease_s: float = LEASE_S
    running: list[ForkServerProcess] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)

    def url_of(self, service: str) -> str:
        if service not in self.urls:
            self.urls[service] = self.new_database()
        return self.urls[service]

    def engine(self, service: str) -> Engine:
        # Who only looks is in no lease: a worker's limit would end it on a busy machine.
        return db.connect(self.url_of(service), lease_s=PATIENCE_S)

    def start(
        self, path: str, role: str = "all", faults: str = "", name: str | None = None
    ) -> ForkServerProcess:
        """Start a worker; `faults` are its own LABKIT_FAULTS, `name` is its place."""
        arguments = {
            "role": role,
            "name": name,
            "database": make_url(self.url_of(load_service(path).context.name)).database,
            "prefix": self.prefix,
            "lease": self.lease_s,
        }
        environment = {"LABKIT_HOME": str(self.servers.home), "LABKIT_FAULTS": faults}
        process = _processes.Process(target=_work, args=(path, arguments, environment))
        process.start()
        self.running.append(process)
        return process

    def end(self) -> None:
        """Drain everybody; every worker must end well."""
        alive = [process for process in self.running if process.exitcode is None]
        for process in alive:
            process.terminate()
        for process in alive:
            process.join(PATIENCE_S)
        assert [process.exitcode for process in alive] == [0] * len(alive)

    def send(self, process: ForkServerProcess, signum: int) -> None:
        assert process.pid is not None
        os.kill(process.pid, signum)


@pytest.fixture
def crew(servers: Stack, new_database: NewDatabase, transport: RedisStreams) -> Iterator[Crew]:
    made = Crew(servers, new_database, transport.prefix)
    yield made
    for process in made.running:
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()
