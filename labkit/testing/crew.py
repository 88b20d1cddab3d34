"""The workers that a chaos run strikes: `labkit run` processes, kept alive as a supervisor does.

Guarantee: only processes that were started here are signalled. Who dies is replaced under the
same name; who ends by itself, and was at work, is noted: a worker waits for better times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.lab.processes import inspect
from labkit.testing.strikes import Action

_STOP_WITHIN_S = 15.0
# A worker that ended by itself found no server at its start: a supervisor waits a little.
_RESTART_AFTER_S = 0.3
_READY = b"SIGTERM drains"


@dataclass
class _Worker:
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts_at_s: float = 0.0
    struck: bool = False
    asleep_since_s: float | None = None


@dataclass
class Workers:
    """`labkit run` processes, kept alive as a supervisor does.

    Args:
        commands: the arguments of each, by name.
        environment: what they are told besides our own environment.
        logs: directory for what they say.
        seed: of their LABKIT_FAULTS; each process gets another one.
        faults: their LABKIT_FAULTS.
        wake_after_s: how long one that such a fault froze stays so, in seconds.
    """

    commands: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    logs: Path
    seed: int
    faults: str = ""
    wake_after_s: float = 0.0
    killed_by_faults: int = 0
    frozen_by_faults: int = 0
    gave_up: list[str] = field(default_factory=list)
    _spawned: int = 0

    def __post_init__(self) -> None:
        """Nothing runs yet; `tend` starts everybody."""
        self._workers = {
            name: _Worker(command, self.logs / f"{name}.log")
            for name, command in self.commands.items()
        }

    def tend(self) -> None:
        """Start who does not run, wake who froze at a crash point; call it now and then."""
        for name, worker in self._workers.items():
            self._wake(worker)
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
            worker.struck = True
            worker.process.send_signal(signal.SIGSTOP)
            return
        worker.process.kill()
        worker.process.wait()
        worker.process = None
        worker.starts_at_s = time.monotonic() + lasts_s

    def heal(self, name: str) -> None:
        """Wake a worker."""
        worker = self._workers[name]
        worker.struck, worker.asleep_since_s = False, None
        if worker.process is not None:
            worker.process.send_signal(signal.SIGCONT)

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

    def _wake(self, worker: _Worker) -> None:
        seen = inspect(worker.process.pid) if worker.process is not None else None
        if worker.process is None or seen is None or not seen.is_stopped or worker.struck:
            worker.asleep_since_s = None
        elif worker.asleep_since_s is None:
            self.frozen_by_faults += 1
            worker.asleep_since_s = time.monotonic()
        elif time.monotonic() - worker.asleep_since_s > self.wake_after_s:
            worker.process.send_signal(signal.SIGCONT)

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
