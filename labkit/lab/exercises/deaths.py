"""Deaths: a process of its own runs the function, and SIGKILL ends it after a chosen step.

Why fork, and not a fresh process: the function lives in the notebook's `__main__`. Another
process would have to be handed its code, the names it uses from other cells, and what those use;
what cannot be carried over would fail for reasons that are not the student's. A fork has it all.

What makes the fork safe in a kernel with threads and open sockets:

- the child opens connections of its own and touches none that it inherited; garbage collection is
  off, because collecting one would say goodbye to the server in the parent's name;
- it prints nowhere: the kernel's output stream belongs to a thread that the child does not have;
- it never returns: it ends by SIGKILL or `os._exit`, so no exit handler of the kernel runs twice,
  and an interrupt, which Jupyter may send to both, cannot make it a second kernel;
- the parent waits for the end of a pipe with a limit, and kills a child that does not end.

Not guaranteed: Windows, which has neither fork nor these servers.
"""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable

from labkit.errors import LabkitError
from labkit.lab.exercises.steps import Steps

_PATIENCE_S = 20.0


def dies_after(
    step: int, work: Callable[[Steps], object], *, patience_s: float = _PATIENCE_S
) -> bool:
    """Do the work in a process that is killed right after one of its steps.

    Args:
        step: its number, from 1.
        work: gets the steps that it must report to.
        patience_s: how long it may take, in seconds.

    Returns:
        Whether it came that far; False when it ended before.

    Raises:
        LabkitError: when it did not end in time; it is ended then.
    """
    ended, alive = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for the child it stays so
    child = _fork()
    if child == 0:
        _be(step, work)
    os.close(alive)  # now only the child holds it, and its death is the end of the file
    in_time = False
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        in_time = bool(select.select([ended], [], [], patience_s)[0])
    finally:
        os.close(ended)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not in_time:
        raise LabkitError(f"a process did not end within {patience_s} s")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; the docstring above says why it is safe here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be(step: int, work: Callable[[Steps], object]) -> None:
    """Be the child; never return."""
    try:
        gc.disable()
        sys.stdout = sys.stderr = io.StringIO()
        work(Steps(after=lambda number: _die() if number == step else None))
    finally:
        os._exit(0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
