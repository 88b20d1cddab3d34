"""One real Valkey of a home: its data directory, its settings, its health.

Guarantee: every write is in the append-only file within a second, nothing is evicted, it listens
on 127.0.0.1 only and asks for a password. A crash of the machine may lose the last second: the
relay's reconcile publishes it again.
"""

from __future__ import annotations

import shutil
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import redis

from labkit.lab.binaries import valkey_program
from labkit.lab.home import Home, write_private
from labkit.lab.processes import Pulse

_SETTINGS = """\
# Written by labkit at every start.
bind 127.0.0.1
protected-mode yes
port {port}
requirepass {password}
dir {data}
pidfile {pidfile}
logfile ""
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
set-proc-title no
"""


@dataclass(frozen=True)
class Valkey:
    """Valkey in one home.

    Args:
        home: the home.
        password: of the default user.
    """

    home: Home
    password: str = field(repr=False)
    name: ClassVar[str] = "valkey"
    title: ClassVar[str] = "Valkey"

    @property
    def signals(self) -> list[tuple[signal.Signals, float]]:
        """How it ends: writing what it still holds."""
        return [(signal.SIGTERM, 10.0)]

    @property
    def data(self) -> Path:
        """The directory of the append-only file."""
        return self.home.servers / "valkey"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home.servers / "valkey.log"

    @property
    def settings(self) -> Path:
        """All of its settings, password included."""
        return self.home.servers / "valkey.conf"

    def url(self, port: int) -> str:
        """Tell how to reach it.

        Args:
            port: where it listens.

        Returns:
            The URL for redis-py.
        """
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def argv(self) -> list[str]:
        """Tell its command line, by which it is recognised as well."""
        return [str(valkey_program(self.home)), str(self.settings)]

    def owns(self, command: str) -> bool:
        """Recognise our server by its command line, wherever its program came from."""
        return command.endswith(f"/valkey-server {self.settings}")

    def prepare(self, port: int) -> None:
        """Make the next start possible: settings written, data directory there.

        Args:
            port: where it shall listen.
        """
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self.home.owner is not None:
            shutil.chown(self.data, self.home.owner, self.home.owner)
        text = _SETTINGS.format(
            port=port,
            password=self.password,
            data=_quoted(self.data),
            pidfile=_quoted(self.data / "valkey.pid"),
        )
        write_private(self.settings, text, self.home.owner)

    def pulse(self, port: int, timeout_s: float) -> Pulse:
        """Look whether it lives: any answer, a refusal too, is a sign of life.

        Args:
            port: where it listens.
            timeout_s: how long an answer may take.

        Returns:
            What it shows.
        """
        question = f"AUTH {self.password}\r\nPING\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout_s) as conn:
                conn.settimeout(timeout_s)
                conn.sendall(question)
                answer = conn.recv(1024)
                while answer.count(b"\n") < 2 and (more := conn.recv(1024)):  # noqa: PLR2004
                    answer += more
        except OSError:
            return Pulse.SILENT
        if not answer:
            return Pulse.SILENT
        return Pulse.BUSY if b"LOADING" in answer else Pulse.READY

    def login(self, port: int) -> None:
        """Prove that the server at this port is ours and serves commands.

        Args:
            port: where it listens.

        Raises:
            redis.RedisError: it is not ours, or not ready.
        """
        with redis.Redis.from_url(self.url(port), socket_timeout=2.0, retry=None) as client:
            client.ping()

    def sweep(self) -> None:
        """Remove what a killed starter left half-made: nothing, one file at a time is written."""

    def change_password(self, lock: int) -> None:
        """Nothing to do: the password is in the settings, and they are written at every start."""


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
