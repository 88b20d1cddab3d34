"""A Valkey of a test's own, which it may freeze, end and start again on the same port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from types import TracebackType
from typing import Self

import redis

from labkit.lab.binaries import valkey_program
from labkit.lab.home import find_home
from tests.waiting import eventually


class OwnValkey:
    """Runs from the beginning to the end of a with block; it keeps nothing when it ends."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._place = tempfile.mkdtemp(prefix="labkit-valkey-")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        shutil.rmtree(self._place, ignore_errors=True)

    def start(self) -> None:
        program = str(valkey_program(find_home(self._place)))
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [program, *arguments, "--dir", self._place], stdout=subprocess.DEVNULL
        )
        eventually(self._answers, wanted=True)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
