"""Patience: a function of a student's that does not end is ended, with a sentence.

Guarantee: in a main thread of a Unix process, as a notebook's kernel is, both a loop and a sleep
without end are left after so many seconds, also by a function that catches every `Exception`.
Not guaranteed: that in another thread, where no signal arrives; nor against a bare `except:`.

Why not a thread that is joined: Python cannot end a thread, and this one would take a core from
the rest of the session.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from labkit.lab.exercises.student import unending


# Why not an Exception: a student's `except Exception` would go on in its loop.
class _AtItsEnd(BaseException):
    """The patience is at its end."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let what happens inside take so long, and no longer.

    Raises:
        FlawError: when it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _AtItsEnd:
        raise unending(seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _AtItsEnd
