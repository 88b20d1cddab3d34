"""The loop that every worker runs: work, wait when there is nothing to do, back off, stop.

Guarantee: a failure that may pass (the database or the broker is away) never ends the loop; it
is logged and waited out. Any other error (a table is missing, a bug) ends it, since waiting
does not help and the next process would meet it too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from labkit.errors import TransientError

log = logging.getLogger(__name__)
_GROWTH = 1.5
# PostgreSQL is away, cut a transaction that took too long, or chose it to end a deadlock.
_DATABASE_AWAY = (OperationalError, InternalError, InterfaceError)


def run_until(
    stop: threading.Event,
    work: Callable[[], bool],
    wait: Callable[[float], None],
    *,
    poll_s: tuple[float, float],
) -> None:
    """Call `work` again and again until told to stop.

    Args:
        stop: set it to end after the work in hand.
        work: one pass; returns whether it found anything to do.
        wait: pauses for about so many seconds, or less when it knows of new work.
        poll_s: the shortest and the longest pause, in seconds; pauses grow while idle.
    """
    pause_s = poll_s[0]
    while not stop.is_set():
        try:
            if work():
                pause_s = poll_s[0]
                continue
            pause_s = min(pause_s * _GROWTH, poll_s[1])
            wait(pause_s)
        except (TransientError, *_DATABASE_AWAY) as error:
            log.warning("waiting for better times: %s", error)
            stop.wait(poll_s[1])
