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
from typing import IO

from labkit.errors import LabkitError

_STOP_WITHIN_S = 10.0


class WorkerEndedError(LabkitError):
    """A worker process ended by itself."""


class WorkerProcesses:
    """Keeps `labkit run` processes alive.

    Args:
        commands: the arguments of each `labkit run`.
        wake_after_s: how long a frozen process (SIGSTOP) stays so before SIGCONT, in seconds.
        log: where the processes write their warnings.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], wake_after_s: float, log: IO[bytes]
    ) -> None:
        self.killed = 0
        self.frozen = 0
        self._commands = [list(command) for command in commands]
        self._wake_after_s = wake_after_s
        self._log = log
        self._spawned = 0
        self._running: list[subprocess.Popen[bytes]] = []
        self._asleep_since_s: dict[int, float] = {}

    def start(self) -> None:
        """Start all processes."""
        self._running = [self._spawn(command) for command in self._commands]

    def tend(self) -> None:
        """Replace what died and wake what is frozen; call it now and then.

        Raises:
            WorkerEndedError: when a worker ended by itself.
        """
        for index, process in enumerate(self._running):
            code = process.poll()
            if code is None:
                self._wake(process.pid)
            elif code < 0:
                self.killed += 1
                self._running[index] = self._spawn(self._commands[index])
            else:
                command = " ".join(self._commands[index])
                raise WorkerEndedError(f"labkit run {command} ended with code {code}")

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
            [sys.executable, "-m", "labkit", "run", *command],
            env=os.environ | self._seed(),
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            # Ctrl-C goes to the whole group: the workers are drained by us, not behind our back.
            start_new_session=True,
        )

    def _seed(self) -> dict[str, str]:
        """Return a seed of its own for each process, or they would all die at one passage."""
        seed = os.environ.get("LABKIT_FAULTS_SEED")
        self._spawned += 1
        return {"LABKIT_FAULTS_SEED": f"{seed} {self._spawned}"} if seed else {}

    def _wake(self, pid: int) -> None:
        stopped = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        if stopped is not None:
            self.frozen += 1
            self._asleep_since_s[pid] = time.monotonic()
        asleep_s = time.monotonic() - self._asleep_since_s.get(pid, time.monotonic())
        if asleep_s > self._wake_after_s:
            del self._asleep_since_s[pid]
            os.kill(pid, signal.SIGCONT)
