"""Meeting: two deliveries at once, at the worst moment, without waiting for luck.

What they print is dropped: from two threads it would come in any order.

The first one is held right before its first COMMIT. The second one runs until it ends or
PostgreSQL says that it waits for a lock; then the first goes on.

Guarantee: the second has done all it can before the first commits; what it asked before, it asked
without seeing the first. The pauses between two looks decide nothing.
Not guaranteed: the same where patience ends, which is all that time decides. A first that neither
ends nor comes to its COMMIT is not waited for any longer, nor is a second that neither ends nor
waits for a lock. A thread cannot be ended: one that does not end is told, and goes on.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable

from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import unending

_PATIENCE_S = 20.0
_LOOK_S = 0.005


class _Runner(threading.Thread):
    """Runs a delivery; `error` is what it raised."""

    def __init__(self, deliver: Callable[[Steps], object], steps: Steps) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._deliver, self._steps = deliver, steps
        self.start()

    def run(self) -> None:
        try:
            self._deliver(self._steps)
        except Exception as error:  # noqa: BLE001 - whatever a student's function raises
            self.error = error


def meet(
    deliver: Callable[[Steps], object],
    someone_waits: Callable[[], bool],
    *,
    patience_s: float = _PATIENCE_S,
) -> tuple[list[str], list[Exception]]:
    """Deliver twice at once.

    Args:
        deliver: one delivery; gets the steps that it must report to.
        someone_waits: says whether a connection waits for a lock.
        patience_s: how long each wait may take, in seconds.

    Returns:
        The steps of both, in order, and what they raised.

    Raises:
        FlawError: when one of them does not end.
    """
    taken: list[str] = []
    at_commit, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        at_commit.set()
        go_on.wait(patience_s)

    runners: list[_Runner] = []
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            first = _Runner(deliver, Steps("1ª", taken=taken, before_commit=hold))
            runners.append(first)
            _until(lambda: at_commit.is_set() or not first.is_alive(), first, patience_s)
            second = _Runner(deliver, Steps("2ª", taken=taken))
            runners.append(second)
            _until(lambda: not second.is_alive() or someone_waits(), second, patience_s)
        finally:
            go_on.set()
            for runner in runners:
                runner.join(patience_s)
    if any(runner.is_alive() for runner in runners):
        raise unending(patience_s)
    return taken, [runner.error for runner in runners if runner.error]


def _until(holds: Callable[[], bool], runner: threading.Thread, patience_s: float) -> None:
    """Look until something holds, or the patience is at its end."""
    for _ in range(int(patience_s / _LOOK_S)):
        if holds():
            return
        runner.join(_LOOK_S)
