"""Instances: a function whose instances are processes that start cold and end when idle.

A `Function` has instances: processes that handle one invocation at a time. A free one is warm; if
there is none, another one starts, cold; when `reserved_concurrency` of them are busy, the
invocation is throttled. One that idles for `idle_s` is ended, down to none.

`labkit.lab.scaling.mapping` brings it the entries of a Redis stream in batches.

Guarantee: an instance handles one invocation at a time; none is left when the function is closed.
Not guaranteed: what AWS promises beyond that: isolation, a time limit, more than one machine.

Source: AWS Lambda, "Understanding the execution environment lifecycle", "Reserved concurrency".
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from labkit.errors import BulkheadFullError, LabkitError
from labkit.lab.scaling import runtime

_ENDS_WITHIN_S = 5.0


class FunctionError(LabkitError):
    """The handler raised, or its process ended."""

    def __init__(self, said: str, log: Sequence[str] = ()) -> None:
        self.log = list(log)
        super().__init__(said)


class Invocation(NamedTuple):
    """What one invocation gave: response, log, whether its instance was new, how long it took."""

    response: Any
    log: list[str]
    cold: bool
    took_s: float


class Function:
    """A function and its instances.

    Args:
        path: `module:handler`, importable by a new process.
        reserved_concurrency: the most instances.
        idle_s: how long one stays without work, in seconds.
    """

    def __init__(self, path: str, *, reserved_concurrency: int = 4, idle_s: float = 0.5) -> None:
        self.path = path
        self.reserved_concurrency = reserved_concurrency
        self._idle_s = idle_s
        self._lock = Lock()
        self._idle: list[_Instance] = []
        self._busy: set[_Instance] = set()

    @property
    def instances(self) -> int:
        """Return how many processes there are."""
        return len(self._idle) + len(self._busy)

    def invoke(self, event: object) -> Invocation:
        """Run the handler on an event, and wait for its answer.

        Args:
            event: what JSON can say.

        Raises:
            BulkheadFullError: throttled: as many are busy as may be.
            FunctionError: the handler raised, or its process ended.
        """
        began_s = time.perf_counter()
        instance, cold = self._take()
        try:
            answer = instance.ask(event)
        finally:
            self._give_back(instance)
        if "error" in answer:
            raise FunctionError(answer["error"], answer["log"])
        took_s = time.perf_counter() - began_s
        return Invocation(answer["response"], answer["log"], cold, took_s)

    def end_idle(self) -> None:
        """End the instances that have idled for too long."""
        before_s = time.monotonic() - self._idle_s
        with self._lock:
            ended = [each for each in self._idle if each.idle_since_s <= before_s]
            self._idle = [each for each in self._idle if each not in ended]
        for instance in ended:
            instance.end()

    def close(self) -> None:
        """End every instance; nobody may be invoking."""
        with self._lock:
            ended, self._idle = self._idle + list(self._busy), []
            self._busy.clear()
        for instance in ended:
            instance.end()

    def _take(self) -> tuple[_Instance, bool]:
        """Return the instance that was used last, or a new one."""
        with self._lock:
            if not self._idle and len(self._busy) >= self.reserved_concurrency:
                raise BulkheadFullError(self.path, self.reserved_concurrency)
            cold = not self._idle
            instance = _Instance(self.path) if cold else self._idle.pop()
            self._busy.add(instance)
        return instance, cold

    def _give_back(self, instance: _Instance) -> None:
        instance.idle_since_s = time.monotonic()
        with self._lock:
            self._busy.discard(instance)
            if instance.is_alive:
                self._idle.append(instance)
                return
        instance.end()


class _Instance:
    """One process of a function."""

    def __init__(self, path: str) -> None:
        # Why not a fork of this process: it would have imported everything, and be warm.
        self._process = subprocess.Popen(
            [sys.executable, "-m", runtime.__name__, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a notebook is not for it
        )
        self.idle_since_s = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Say whether it can be asked again."""
        return self._process.poll() is None

    def ask(self, event: object) -> dict[str, Any]:
        """Send an event, and return the answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        try:
            print(json.dumps(event), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait(_ENDS_WITHIN_S)
            raise FunctionError(f"the process ended with {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Close its input, and wait for its end; kill it if that does not come."""
        try:
            self._process.communicate(timeout=_ENDS_WITHIN_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()
