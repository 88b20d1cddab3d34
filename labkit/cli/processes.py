"""Worker processes of the demonstration: started, replaced when killed, woken when frozen.

What a supervisor (systemd, Kubernetes) does in production, in one small class.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_STOP_WITHIN_S = 10.0


class WorkerProcesses:
    """Keeps `labkit run` processes alive.

    Args:
        commands: the arguments of each `labkit run`.
        wake_after_s: how long a frozen process (SIGSTOP) stays so before SIGCONT, in seconds.
    """

    def __init__(self, commands: Sequence[Sequence[str]], wake_after_s: float) -> None:
        self.killed = 0
        self.frozen = 0
        self._commands = [list(command) for command in commands]
        self._wake_after_s = wake_after_s
        self._running: list[subprocess.Popen[bytes]] = []
        self._asleep_since_s: dict[int, float] = {}

    def start(self) -> None:
        """Start all processes."""
        self._running = [self._spawn(command) for command in self._commands]

    def tend(self) -> None:
        """Replace what died and wake what is frozen; call it now and then.

        Raises:
            RuntimeError: when a worker ended by itself, with an error.
        """
        for index, process in enumerate(self._running):
            code = process.poll()
            if code is None:
                self._wake(process.pid)
            elif code < 0:
                self.killed += 1
                self._running[index] = self._spawn(self._commands[index])
            else:
                msg = f"labkit run {' '.join(self._commands[index])} ended with code {code}"
                raise RuntimeError(msg)

    def stop(self) -> None:
        """Drain all processes; end what does not drain in time."""
        for process in self._running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline_s = time.monotonic() + _STOP_WITHIN_S
        for process in self._running:
            try:
                process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running = []

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "labkit", "run", *command], stdout=subprocess.DEVNULL
        )

    def _wake(self, pid: int) -> None:
        stopped = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        if stopped is not None:
            self.frozen += 1
            self._asleep_since_s[pid] = time.monotonic()
        asleep_s = time.monotonic() - self._asleep_since_s.get(pid, time.monotonic())
        if asleep_s > self._wake_after_s:
            del self._asleep_since_s[pid]
            os.kill(pid, signal.SIGCONT)
