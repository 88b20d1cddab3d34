"""Sagas on real servers: each answer is one transaction, and nothing vanishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError, TransientError
from labkit.saga import COMPENSATED, COMPENSATING, COMPLETED, RUNNING, Sagas
from labkit.saga.store import Change
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import REQUEST_ID
from tests import saga_flow
from tests.saga_flow import Play, definition, peers, sagas
from tests.toy_saga import PEERS, Declined, OutOfStock, Paid, Released, Reserved, Shipped, Toy


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams
) -> Iterator[Play]:
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, FakeClock())
    saga_flow.broken.clear()
    saga_flow.unmakeable.clear()
    peers.dispose()


@contextmanager
def executed(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that run meanwhile."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(arguments[2])

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def test_a_saga_that_everybody_grants_completes(play: Play) -> None:
    play.start("S-1")
    for answer in (Reserved(), Paid(), Shipped()):
        play.answer("S-1", answer)
    assert play.state("S-1").status is COMPLETED
    assert play.sent("S-1") == ["reserve", "pay", "ship"]
    assert play.firm() == {"S-1": "firm"}


def test_a_saga_that_is_rejected_makes_good_what_it_did_in_reverse_order(play: Play) -> None:
    play.start("S-1")
    for answer in (Reserved(), Declined(), Released()):
        play.answer("S-1", answer)
    assert play.state("S-1").status is COMPENSATED
    assert play.sent("S-1") == ["reserve", "pay", "release"]
    assert play.firm() == {"S-1": "called off"}


def test_a_rolled_back_start_leaves_neither_saga_nor_command(play: Play) -> None:
    with Session(play.engine) as session:
        sagas.start(session, "S-1", Toy("S-1"))
        session.rollback()
    play.work()
    assert play.sent("S-1") == []
    with play.engine.connect() as connection:
        assert connection.execute(select(sagas.store.table)).all() == []


def test_a_saga_begins_once(play: Play) -> None:
    play.start("S-1")
    with Session(play.engine) as session, session.begin():
        assert not sagas.start(session, "S-1", Toy("other"))
    assert play.sent("S-1") == ["reserve"]
    assert play.state("S-1").data == Toy("S-1")


def test_an_answer_that_names_its_request_is_taken_for_that_one(play: Play) -> None:
    play.start("S-1")
    play.answer("S-1", Reserved(), to="stock/do")
    assert play.state("S-1").step == "payment"


def test_an_answer_to_another_saga_is_none_of_ours(play: Play) -> None:
    play.start("S-1")
    play.answer("S-2", Reserved())
    assert play.state("S-1").step == "stock"
    assert play.dead_letters() == []


def test_an_answer_to_a_request_of_somebody_else_is_none_of_ours(play: Play) -> None:
    play.start("S-1")
    with Session(play.peers) as session, session.begin():
        theirs = {REQUEST_ID: "refund/S-1/stock/do"}
        peers.outbox.add(session, Reserved(), key="S-1", headers=theirs)
    play.deliver()
    assert play.state("S-1").step == "stock"
    assert play.dead_letters() == []


@pytest.mark.parametrize("data", [Toy("S-1", lines=(1,)), {"order": "S-1"}])  # type: ignore[arg-type]
def test_data_that_nobody_could_read_again_is_refused_at_the_start(play: Play, data: Any) -> None:
    with Session(play.engine) as session, pytest.raises(ConfigurationError, match="data"):
        sagas.start(session, "S-1", data)


def test_an_answer_that_names_a_saga_that_never_began_is_a_dead_letter(play: Play) -> None:
    play.answer("S-2", Reserved(), to="stock/do")
    assert play.dead_letters() == ["UnknownSagaError: there is no toy S-2 to answer"]


def test_an_answer_that_was_never_asked_for_is_a_dead_letter(play: Play) -> None:
    play.start("S-1")
    play.answer("S-1", Paid())
    assert "never asked for" in play.dead_letters()[0]


def test_a_missing_answer_is_asked_for_again_by_the_deadline(play: Play) -> None:
    play.start("S-1")
    play.advance(30)
    play.advance(2)
    assert play.sent("S-1") == ["reserve", "reserve"]
    assert play.state("S-1").attempt == 2


def test_a_deadline_of_an_answered_step_does_nothing(play: Play) -> None:
    play.start("S-1")
    play.answer("S-1", Reserved())
    assert play.deadlines.run_once().due == 0
    assert play.state("S-1").step == "payment"


def test_a_late_success_after_the_deadline_is_released(play: Play) -> None:
    play.start("S-1")
    for _ in range(3):
        play.advance(30)
        play.advance(4)
    play.answer("S-1", Released())
    assert play.state("S-1").status is COMPENSATED
    play.answer("S-1", Reserved())
    play.answer("S-1", Released())
    assert play.state("S-1").status is COMPENSATED
    assert play.sent("S-1") == ["reserve", "reserve", "reserve", "release", "release"]


def test_a_deadline_fires_after_everything_stood_still_for_a_day(play: Play) -> None:
    play.start("S-1", "S-2")
    play.clock.advance(hours=24)
    assert play.deadlines.run_once().due == 2


def test_a_hundred_answers_are_one_transaction_per_batch(play: Play) -> None:
    ids = [f"S-{n}" for n in range(100)]
    play.start(*ids)
    for saga_id in ids:
        play.say(saga_id, OutOfStock())
    with executed(play.engine) as statements:
        play.deliver()
    assert all(play.state(saga_id).status is COMPENSATED for saga_id in ids)
    # One per partition.
    assert sum("update saga" in each for each in statements) == PEERS.partitions


def test_a_deadline_that_fails_lets_the_others_through(play: Play, transport: RedisStreams) -> None:
    play.start("S-1", "S-2")
    for _ in range(2):
        play.advance(30)
        play.advance(4)
    play.clock.advance(30)
    saga_flow.unmakeable.add("S-1")
    alone = sagas.deadlines(play.engine, transport, batch=1)
    assert alone.run_once().failed == 1
    assert alone.run_once().due == 1
    assert (play.state("S-1").status, play.state("S-2").status) == (RUNNING, COMPENSATING)


def test_local_work_that_fails_is_tried_again_and_leaves_nothing_half_done(play: Play) -> None:
    saga_flow.broken.add("S-1")
    play.start("S-1")
    play.answer("S-1", Reserved())
    assert play.state("S-1").step == "stock"
    assert play.sent("S-1") == ["reserve"]
    saga_flow.broken.clear()
    play.advance(1)
    assert play.state("S-1").step == "payment"


def test_a_saga_changed_by_somebody_who_did_not_lock_it_is_refused(play: Play) -> None:
    play.start("S-1")
    stale, now = [Change(play.state("S-1"), revision=7)], play.clock.now()
    with play.engine.begin() as connection, pytest.raises(TransientError, match="meanwhile"):
        sagas.store.update(connection, stale, now)


def test_history_tells_what_happened_and_by_which_message(play: Play) -> None:
    play.start("S-1")
    play.answer("S-1", OutOfStock())
    history = sagas.store.history
    with play.engine.connect() as connection:
        rows = connection.execute(select(history).order_by(history.c.seq)).all()
    assert [row.what for row in rows] == [
        "started",
        "asked",
        "answered",
        "compensating",
        "compensated",
    ]
    assert rows[2].message_id
    assert rows[0].message_id is None


def test_a_saga_ends_with_the_version_that_it_began_with() -> None:
    service = Service("versions", saga_flow.REGISTRY)
    both = Sagas(service, definition(1), definition(2))
    assert both.newest.version == 2


def test_a_saga_of_an_unknown_version_is_a_dead_letter_and_its_deadline_waits(play: Play) -> None:
    play.start("S-1")
    with play.engine.begin() as connection:
        connection.execute(text("update saga set version = 9"))
    play.answer("S-1", Reserved())
    assert "began with version 9" in play.dead_letters()[0]
    play.clock.advance(hours=1)
    assert play.deadlines.run_once().due == 0


def test_versions_of_two_sagas_are_refused() -> None:
    service = Service("versions", saga_flow.REGISTRY)
    with pytest.raises(ConfigurationError, match="share its name"):
        Sagas(service, definition(1), definition(1))
