"""One real PostgreSQL of a home: its data directory, its settings, its health.

Guarantee: `fsync` and `synchronous_commit` stay on, so what the workbook shows is what production
does; it listens on 127.0.0.1 only, and asks for a password (scram). Data that exists is never
deleted here, not even when the password was lost.
"""

from __future__ import annotations

import secrets
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psycopg

from labkit.lab.binaries import postgres_programs
from labkit.lab.home import Home, write_private
from labkit.lab.processes import Pulse, find, run, stop

USER = "labkit"

_SETTINGS = """\
# Written by labkit at every start; your own settings survive in `alter system`.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''    # a socket's path is refused from 108 bytes
max_connections = 200
shared_buffers = '128MB'
fsync = on
synchronous_commit = on
track_commit_timestamp = on      # so that a trace can tell when something committed
min_wal_size = '80MB'
max_wal_size = '1GB'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %d '
"""


@dataclass(frozen=True)
class Postgres:
    """PostgreSQL in one home.

    Args:
        home: the home.
        password: of the user `labkit`, who is superuser.
    """

    home: Home
    password: str = field(repr=False)
    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL"

    @property
    def signals(self) -> list[tuple[signal.Signals, float]]:
        """How it ends: fast, else immediate, which kills children that do not listen."""
        return [(signal.SIGINT, 10.0), (signal.SIGQUIT, 8.0)]

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home.servers / "postgres"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home.servers / "postgres.log"

    @property
    def settings(self) -> Path:
        """Our settings; the data directory includes them."""
        return self.home.servers / "postgres.conf"

    def url(self, port: int) -> str:
        """Tell how to reach it.

        Args:
            port: where it listens.

        Returns:
            The SQLAlchemy URL of the maintenance database.
        """
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{port}/postgres"

    def argv(self) -> list[str]:
        """Tell its command line, by which it is recognised as well."""
        return [str(postgres_programs(self.home) / "postgres"), "-D", str(self.data)]

    def owns(self, command: str) -> bool:
        """Recognise our server by its command line, wherever its program came from."""
        return command.endswith(f"/postgres -D {self.data}")

    def prepare(self, port: int) -> None:
        """Make the next start possible: settings written, data directory there.

        Args:
            port: where it shall listen.
        """
        if not self.data.is_dir():
            self._create()
        write_private(self.settings, _SETTINGS.format(port=port), self.home.owner)
        # Nobody runs on this data, and a zombie or a reused number would make it refuse.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def pulse(self, port: int, timeout_s: float) -> Pulse:
        """Look whether it lives, without logging in: a full server is a healthy one.

        Args:
            port: where it listens.
            timeout_s: how long an answer may take; libpq waits two seconds at least.

        Returns:
            What it shows.
        """
        where = f"host=127.0.0.1 port={port} connect_timeout={max(2, round(timeout_s))}"
        match psycopg.pq.PGconn.ping(where.encode()):
            case psycopg.pq.Ping.OK:
                return Pulse.READY
            case psycopg.pq.Ping.REJECT:
                return Pulse.BUSY
        return Pulse.SILENT

    def login(self, port: int) -> None:
        """Prove that the server at this port is ours and serves queries.

        Args:
            port: where it listens.

        Raises:
            psycopg.Error: it is not ours, or not ready.
        """
        url = f"postgresql://{USER}:{self.password}@127.0.0.1:{port}/postgres"
        psycopg.connect(url, connect_timeout=2).close()

    def sweep(self) -> None:
        """Remove what a killed starter left half-made."""
        half_made = f"{self.home.servers}/initdb-"
        for process in find(lambda command: half_made in command, self.home.owner):
            stop(process, [(signal.SIGTERM, 2.0)])
        for leftover in self.home.servers.glob("initdb-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def change_password(self, lock: int) -> None:
        """Give the stopped server this object's password: the old one was lost, the data not.

        Args:
            lock: descriptor of the lock on the data.
        """
        if not self.data.is_dir():
            return
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        program, *options = self.argv()
        statement = f"alter role {USER} password '{self.password}'\n"
        argv = [program, "--single", *options, "postgres"]
        run(argv, owner=self.home.owner, keep=(lock,), text=statement)

    def _create(self) -> None:
        # When we are killed, initdb may be killed too, or go on without us. It works in a
        # directory of its own, which becomes ours by one rename.
        draft = self.home.servers / f"initdb-{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        _give(draft, self.home.owner)
        password_file = draft.with_suffix(".pw")
        write_private(password_file, self.password, self.home.owner)
        try:
            self._initdb(draft, password_file)
        finally:
            password_file.unlink(missing_ok=True)
        with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude_if_exists '../postgres.conf'\n")
        draft.rename(self.data)

    def _initdb(self, draft: Path, password_file: Path) -> None:
        program = postgres_programs(self.home) / "initdb"
        options = ["--username", USER, "--pwfile", str(password_file), "--auth=scram-sha-256"]
        # The builtin provider sorts and folds the same on every operating system.
        options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", "--no-instructions"]
        run([str(program), *options, "-D", str(draft)], owner=self.home.owner)


def _give(path: Path, owner: int | None) -> None:
    if owner is not None:
        shutil.chown(path, owner, owner)
