"""The read model: the newest version wins, whatever arrives and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, select
from sqlalchemy.orm import Session

from labkit.errors import ConfigurationError
from labkit.messages import Event, Message, Registry
from labkit.projection import Projection
from labkit.service import Service
from tests.databases import Databases, emptied, lent_database

METADATA = MetaData()
VIEW = Table(
    "view",
    METADATA,
    Column("order_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
)


class Moved(Event, frozen=True):
    topic: ClassVar[str] = "test.moved.v1"

    order_id: str
    status: str
    order_version: int


PROJECTION = Projection("view", VIEW)


@PROJECTION.on(Moved)
def row_of(message: Message[Moved]) -> Mapping[str, Any]:
    moved = message.event
    return {
        "order_id": moved.order_id,
        "status": moved.status,
        "version": moved.order_version,
    }


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, METADATA)


def apply(engine: Engine, order_id: str, status: str, version: int) -> bool:
    row = {"order_id": order_id, "status": status, "version": version}
    with engine.begin() as connection:
        return PROJECTION.apply(connection, row)


def view(engine: Engine) -> dict[str, tuple[str, int]]:
    with engine.connect() as connection:
        return {row.order_id: (row.status, row.version) for row in connection.execute(select(VIEW))}


def test_a_newer_version_replaces_an_older_one(engine: Engine) -> None:
    assert apply(engine, "O-1", "NEW", 1)
    assert apply(engine, "O-1", "DONE", 3)

    assert view(engine) == {"O-1": ("DONE", 3)}


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_and_the_same_again_change_nothing(engine: Engine, version: int) -> None:
    apply(engine, "O-1", "DONE", 2)

    assert not apply(engine, "O-1", "LATE", version)

    assert view(engine) == {"O-1": ("DONE", 2)}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deliveries=st.lists(st.tuples(st.sampled_from(["O-1", "O-2"]), st.integers(1, 5))))
def test_any_order_and_repetition_ends_in_the_newest_version(
    engine: Engine, deliveries: list[tuple[str, int]]
) -> None:
    with engine.begin() as connection:
        connection.execute(VIEW.delete())

    for order_id, version in deliveries:
        apply(engine, order_id, f"status {version}", version)

    newest = {
        order_id: max(v for o, v in deliveries if o == order_id) for order_id, _ in deliveries
    }
    assert view(engine) == {o: (f"status {version}", version) for o, version in newest.items()}


def test_a_registered_function_becomes_a_handler(engine: Engine) -> None:
    event = Moved(order_id="O-1", status="NEW", order_version=1)
    message = Message(
        message_id="M-1",
        correlation_id="C-1",
        event=event,
        occurred_at=datetime(2026, 2, 17, tzinfo=UTC),
        key="O-1",
        headers={},
    )

    with Session(engine) as session, session.begin():
        PROJECTION.handlers[Moved].handle(session, message)

    assert view(engine) == {"O-1": ("NEW", 1)}
    assert row_of(message)["status"] == "NEW"


def test_the_guard_may_be_another_column(engine: Engine) -> None:
    by_status = Projection("view", VIEW, version="status")

    with engine.begin() as connection:
        written = [
            by_status.apply(connection, {"order_id": "O-1", "status": status, "version": 0})
            for status in ("b", "a", "c")
        ]

    assert written == [True, False, True]


def test_an_event_becomes_a_row_in_one_way_only() -> None:
    with pytest.raises(ConfigurationError, match="shows Moved already"):
        PROJECTION.on(Moved)(row_of)


def test_two_consumers_of_one_name_would_share_the_messages_and_are_refused() -> None:
    service = Service("orders", Registry(Moved))
    service.add_projection(PROJECTION)

    for taken in (PROJECTION, Projection("orders", VIEW)):
        with pytest.raises(ConfigurationError, match="is taken"):
            service.add_projection(taken)


@pytest.mark.parametrize(
    ("table", "version"),
    [
        (Table("keyless", MetaData(), Column("version", Integer)), "version"),
        (VIEW, "revision"),
    ],
)
def test_a_table_that_cannot_be_guarded_is_refused(table: Table, version: str) -> None:
    with pytest.raises(ConfigurationError, match=f"needs a primary key and a column '{version}'"):
        Projection("view", table, version=version)
