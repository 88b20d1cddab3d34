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

import contextlib
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
from labkit.lab.exercises.student import FlawError, PendingError, unending

_PATIENCE_S = 20.0
_LONGEST = 512  # what a pipe takes in one piece, everywhere
_ENDED, _OTHER_RAISED, _STUDENT_RAISED = range(3)


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
        FlawError: when the student's function raised, or did not end in time; it is ended then.
        LabkitError: when anything else raised.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for the child it stays so
    try:
        child, ended = _start(step, work)
        words: str | None = None
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # raises an interrupt that waited
            words = _last_words(ended, patience_s)
        finally:
            os.close(ended)
            if words is None:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if words is None:
        raise unending(patience_s)
    return _was_killed(status, words)


def _start(step: int, work: Callable[[Steps], object]) -> tuple[int, int]:
    """Return a child and the pipe that ends with it."""
    ended, alive = os.pipe()
    try:
        child = _fork()
        if child == 0:
            _be(step, work, alive)
    except BaseException:
        os.close(ended)
        raise
    finally:
        os.close(alive)  # now only the child holds it, and its death is the end of the file
    return child, ended


def _last_words(ended: int, patience_s: float) -> str | None:
    """Return what the child said at its end, mostly nothing; None when it did not end."""
    if not select.select([ended], [], [], patience_s)[0]:
        return None
    return os.read(ended, _LONGEST).decode(errors="ignore")


def _was_killed(status: int, words: str) -> bool:
    code = os.waitstatus_to_exitcode(status)
    if code == _STUDENT_RAISED:
        raise FlawError(words)
    if code == _OTHER_RAISED:
        raise LabkitError(f"La prueba falló, y no por tu función: {words}")
    return code == -signal.SIGKILL


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; the docstring above says why it is safe here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be(step: int, work: Callable[[Steps], object], alive: int) -> None:
    """Be the child; never return."""
    code, words = _ENDED, ""
    try:
        gc.disable()
        sys.stdout = sys.stderr = io.StringIO()
        # A function that is not written this time did not come that far.
        with contextlib.suppress(PendingError):
            work(Steps(after=lambda number: _die() if number == step else None))
    except FlawError as flaw:
        code, words = _STUDENT_RAISED, flaw.sentence
    except BaseException as error:  # noqa: BLE001 - nothing may leave the child
        code, words = _OTHER_RAISED, f"{type(error).__name__}: {error}"
    finally:
        _end(code, words, alive)


def _end(code: int, words: str, alive: int) -> None:
    try:
        os.write(alive, words.encode(errors="replace")[:_LONGEST])
    finally:
        os._exit(code)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
