"""Knowing that something has happened, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Engine, text

DEADLINE_S = 10.0


def eventually(look: Callable[[], object], wanted: object) -> None:
    """Poll until a value shows up; fail at the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while (found := look()) != wanted:
        assert time.monotonic() < end_s, f"still {found!r}, not {wanted!r}"
        time.sleep(0.005)


def until_it_waits(engine: Engine, future: Future[Any]) -> None:
    """Return when a connection of this database waits for a lock, as the future's should."""
    query = text(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )

    def waiting() -> object:
        assert not future.done(), "it did not wait"
        with engine.connect() as connection:
            return connection.execute(query).scalar()

    eventually(waiting, 1)
