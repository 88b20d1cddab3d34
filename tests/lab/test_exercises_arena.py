"""Where exercises are attacked: nothing is left there, and one examination waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.lab import exercises
from labkit.lab.exercises.arena import Arena, arena
from labkit.lab.exercises.pieces import ReserveStockRequested, publish, save_order, take_stock
from labkit.lab.exercises.steps import Steps
from labkit.lab.servers import Stack
from labkit.shop import inventory
from labkit.transports.redis_streams import connect

PLACING_TABLES = {"orders", "order_lines", "outbox_messages"}
HANDLING_TABLES = {"stock", "inbox_messages"}
MOMENT = "select pg_sleep(0.01)"
MOMENTS = 500
OTHERS = """
    select exists(select from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid()
                    and backend_type = 'client backend')
"""
WAITS = "select exists(select from pg_locks where locktype = 'advisory' and not granted)"


def commits_inside(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    session.commit()


def publishes(session: Session, pedido: Any) -> None:
    save_order(session, pedido)
    request = ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines)
    publish(request, key=pedido.reservation_id)


def has_no_inbox(session: Session, mensaje: Any) -> None:
    take_stock(session, mensaje)


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = db.connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _comes(connection: Connection, query: str, *, value: bool) -> bool:
    """Look until a query says so, or long enough."""
    for _ in range(MOMENTS):
        if connection.execute(text(query)).scalar() is value:
            return True
        connection.execute(text(MOMENT))
        connection.commit()
    return False


@pytest.mark.parametrize(
    ("exercise", "answer", "tables"),
    [
        ("02-E1", commits_inside, PLACING_TABLES),
        ("02-E1", publishes, PLACING_TABLES),
        ("02-E2", has_no_inbox, HANDLING_TABLES),
    ],
)
def test_an_examination_leaves_no_row_no_entry_and_no_connection(
    servers: Stack, exercise: str, answer: Callable[..., None], tables: set[str]
) -> None:
    assert exercises.examine(exercise, answer, servers=servers).state == "failed"

    name = f"exercise_{exercise.lower().replace('-', '_')}"
    with _opened(servers.database(name)) as engine, engine.connect() as connection:
        for table in sorted(tables):
            assert connection.execute(text(f"select count(*) from {table}")).scalar() == 0, table
        connection.commit()
        assert _comes(connection, OTHERS, value=False), "a connection is still open"
    client: Any = connect(servers.redis_url)
    assert [key for key in client.scan_iter(count=1000) if name.encode() in key] == []
    client.close()


@pytest.fixture
def place(servers: Stack) -> Iterator[Arena]:
    with arena("exercise_test", inventory.service, servers) as opened:
        inventory.stock_up(opened.watcher, {"BOOK-DDD": 25})
        yield opened


def test_a_row_that_is_locked_makes_someone_wait(place: Arena) -> None:
    lock = text("select 1 from stock for update")

    def wait() -> None:
        with place.engine(Steps()) as engine, engine.begin() as connection:
            connection.execute(lock)

    waiter = threading.Thread(target=wait)
    with place.engine(Steps()) as engine, engine.begin() as connection:
        connection.execute(lock)
        assert not place.someone_waits()
        waiter.start()
        assert any(place.someone_waits() or place.rows(MOMENT) is None for _ in range(MOMENTS))
    waiter.join()


def test_another_examination_waits_and_is_not_someone_who_waits(servers: Stack) -> None:
    came: list[bool] = []

    def examine() -> None:
        with arena("exercise_test", inventory.service, servers):
            came.append(True)

    other = threading.Thread(target=examine)
    with arena("exercise_test", inventory.service, servers) as place:
        other.start()
        with _opened(servers.database("exercise_test")) as engine, engine.connect() as connection:
            assert _comes(connection, WAITS, value=True)
        assert (place.someone_waits(), came) == (False, [])
    other.join()
    assert came == [True]
