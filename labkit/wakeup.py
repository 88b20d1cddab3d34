"""Wake-up: lets an idle relay wait for NOTIFY instead of for the next poll.

A notification carries no data and may get lost (a cut connection, pgbouncer): polling remains
the truth, and a listener that cannot listen waits for the next poll as if there were none.
"""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Engine

_SLICE_S = 0.1


class WakeUp:
    """Waits for the outbox's channel.

    Args:
        engine: the outbox's database.
        channel: what to listen to; None waits for the time to pass.
        stop: ends every wait.
    """

    def __init__(self, engine: Engine, channel: str | None, stop: threading.Event) -> None:
        self._engine = engine
        self._channel = channel
        self._stop = stop
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or earlier when there may be something to publish."""
        try:
            if self._channel is None:
                self._stop.wait(seconds)
            elif self._connection is None:
                # Return at once: what was committed before we listened notified nobody.
                self._connection = self._listen(self._channel)
            else:
                self._wait_for_notify(self._connection, seconds)
        except psycopg.Error:
            self.close()
            self._stop.wait(seconds)

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _listen(self, channel: str) -> psycopg.Connection[Any]:
        # A connection of its own for good: a pooled one would stop listening when returned.
        pooled = self._engine.raw_connection()
        connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
        pooled.detach()
        connection.autocommit = True
        connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        return connection

    def _wait_for_notify(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := deadline_s - time.monotonic()) > 0:
            # In slices, since a blocked read does not see that we were told to stop.
            for _ in connection.notifies(timeout=min(left_s, _SLICE_S), stop_after=1):
                return
