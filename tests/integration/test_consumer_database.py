"""The consumer while its database goes away, or its handlers take too long."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from labkit import db
from labkit.clock import SystemClock
from labkit.held import Backoff
from labkit.reports import ConsumerReport
from tests import toy
from tests.conftest import NewDatabase
from tests.flow import Flow
from tests.toy import happen


class Moment:
    """Cuts the connection under one statement of a worker, the n-th from now."""

    def __init__(self, engine: Engine, nth: int) -> None:
        self.left = nth
        event.listen(engine, "before_cursor_execute", self.pass_by)

    def pass_by(self, connection: Connection, cursor: Any, *_rest: object) -> None:
        self.left -= 1
        if self.left == 0:
            with psycopg.connect(
                connection.engine.url.set(drivername="postgresql").render_as_string(
                    hide_password=False
                ),
                autocommit=True,
            ) as other:
                pid = cursor.connection.info.backend_pid
                other.execute("select pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.parametrize("nth", range(1, 24))
def test_the_database_may_go_away_before_any_statement(flow: Flow, nth: int) -> None:
    happen(flow.source, "a", 1, behaviour="until 2")
    happen(flow.source, "a", 2)
    happen(flow.source, "b", 1)
    consumer = flow.consumer()
    flow.relay.run_once()
    moment = Moment(flow.target, nth)
    for _ in range(6):
        with contextlib.suppress(OperationalError):
            flow.deliver(consumer)
        flow.clock.advance(60)

    assert moment.left <= 0
    assert (flow.effects("a"), flow.effects("b")) == ([1, 2], [1])
    assert (flow.held(), flow.pending()) == ([], 0)


def test_a_database_that_takes_no_connections_is_not_the_messages_fault(flow: Flow) -> None:
    consumer = flow.consumer()
    consumer.run_once()
    happen(flow.source, "a", 1)
    flow.relay.run_once()
    allowed, name = iter([False]), flow.target.url.database
    administrator = flow.source.execution_options(isolation_level="AUTOCOMMIT")

    @event.listens_for(flow.target, "do_connect")
    def close_for_a_moment(*_arguments: object) -> None:
        with administrator.connect() as connection:
            connection.execute(
                text(f"alter database {name} allow_connections {next(allowed, True)}")
            )

    flow.target.dispose()
    with pytest.raises(OperationalError, match="not currently accepting"):
        consumer.run_once()

    assert (flow.held(), flow.deliver(consumer).handled) == ([], 1)


@pytest.fixture
def impatient(new_database: NewDatabase, flow: Flow) -> Iterator[Flow]:
    """Return the flow with half a second for each transaction, on the real clock."""
    flow.target = db.connect(new_database(), lease_s=1)
    toy.target.create_tables(flow.target)
    yield flow
    flow.target.dispose()


def test_a_handler_that_takes_too_long_fails_alone(impatient: Flow) -> None:
    happen(impatient.source, "a", 1)
    happen(impatient.source, "a", 2, behaviour=toy.SLEEP)
    happen(impatient.source, "b", 3)
    happen(impatient.source, "a", 4)

    backoff = Backoff(first_s=0, attempts=2)
    report = impatient.deliver(impatient.consumer(clock=SystemClock(), lease_s=1, backoff=backoff))

    assert (report.handled, report.failed, report.parked, report.waiting) == (2, 1, 1, 1)
    assert (impatient.effects("a"), impatient.effects("b")) == ([1], [3])
    assert [row[:2] for row in impatient.held()] == [("parked", 2), ("waiting", 0)]


def test_a_batch_that_is_too_long_as_a_whole_is_handled_one_by_one(impatient: Flow) -> None:
    happen(impatient.source, "a", 1, 2, 3, behaviour="slow")
    toy.hooks["slow"] = lambda session: session.execute(text("select pg_sleep(0.2)")).close()

    report = impatient.deliver(impatient.consumer(clock=SystemClock(), lease_s=1))

    assert (report, impatient.held()) == (ConsumerReport(handled=3), [])
    assert impatient.effects("a") == [1, 2, 3]
