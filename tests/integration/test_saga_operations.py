"""People and sagas: what waits for somebody, and what they do about it, with who and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import SagaError, UnknownSagaError
from labkit.saga import COMPENSATED, COMPENSATING, COMPLETED, RUNNING, STUCK, State
from labkit.saga.operations import Line, Operations
from labkit.transports.redis_streams import RedisStreams
from tests import saga_flow
from tests.saga_flow import Play, sagas
from tests.toy_saga import OutOfStock, Paid, Released, Reserved, Shipped
from tests.waiting import until_it_waits

operations = Operations(sagas)
HOUR_S = 3600


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    """Return the flow, with one clock for workers and operators."""
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    saga_flow.broken.clear()
    peers.dispose()


def act(play: Play, verb: str, saga_id: str = "S-1", who: str = "op-1", why: str = "so") -> State:
    with Session(play.engine) as session, session.begin():
        state: State = getattr(operations, verb)(session, saga_id, who=who, why=why)
    play.work()
    return state


def history(play: Play, saga_id: str = "S-1") -> list[Line]:
    with Session(play.engine) as session:
        return operations.one(session, saga_id).history


def listed(play: Play, **wanted: Any) -> list[str]:
    with Session(play.engine) as session:
        return [each.id for each in operations.find(session, **wanted)]


def test_what_is_stuck_is_listed_before_what_waits_and_what_ended_is_left_out(play: Play) -> None:
    play.start("S-1", "S-2", "S-3")
    play.answer("S-1", OutOfStock())
    play.stick_behind_the_pivot("S-4")
    assert listed(play) == ["S-4", "S-2", "S-3"]
    assert listed(play, statuses=[COMPENSATED]) == ["S-1"]
    assert listed(play, statuses=[RUNNING, COMPENSATED], limit=2) == ["S-2", "S-3"]


def test_sagas_are_listed_by_how_long_ago_they_began_and_were_touched(play: Play) -> None:
    play.start("S-1", "S-2")
    play.clock.advance(20)
    play.answer("S-1", Reserved())
    play.start("S-3")
    assert listed(play, older_than_s=20) == ["S-2", "S-1"]
    assert listed(play, older_than_s=21) == []
    assert listed(play, waiting_s=20) == ["S-2"]


def test_a_listed_saga_says_where_it_stands(play: Play) -> None:
    play.start("S-1")
    play.advance(30)
    play.advance(2)
    with Session(play.engine) as session:
        (one,) = operations.find(session)
    assert (one.saga, one.id, one.version) == ("toy", "S-1", 1)
    assert (one.status, one.step, one.attempt, one.reason) == (RUNNING, "stock/do", 2, None)
    assert (one.age_s, one.waiting_s) == (32, 0)
    assert one.due_at is not None
    assert (one.due_at - play.clock.now()).total_seconds() == 30


def test_one_saga_is_shown_with_its_data_and_its_whole_history(play: Play) -> None:
    play.stick_behind_the_pivot()
    with Session(play.engine) as session:
        shown = operations.one(session, "S-1")
    assert shown.listed.status is STUCK
    assert shown.state.data == {"order": "S-1", "lines": ["A"]}
    assert shown.state.done == ("stock", "order", "payment")
    assert [line.what for line in shown.history] == [
        "started", "asked", "answered", "ran", "asked", "answered", "asked", "answered", "stuck",
    ]  # fmt: skip


def test_a_saga_of_an_unknown_version_is_listed_and_shown_but_not_moved(play: Play) -> None:
    play.stick_behind_the_pivot()
    with play.engine.begin() as connection:
        connection.execute(text("update saga set version = 9"))
    assert listed(play) == ["S-1"]
    assert history(play)
    with pytest.raises(UnknownSagaError, match="version 9"):
        act(play, "retry")


def test_an_operator_retries_and_the_history_says_who_and_why(play: Play) -> None:
    play.stick_while_compensating()
    assert act(play, "retry", why="stock service is back").status is COMPENSATING
    assert play.sent("S-1")[-1] == "release"
    retried, asked = history(play)[-2:]
    assert retried[1:] == ("retried", "stock/undo", "stock service is back", None, "op-1")
    assert retried.at == play.clock.now()
    assert (asked.what, asked.who) == ("asked", "op-1")
    play.answer("S-1", Released())
    assert play.state("S-1").status is COMPENSATED
    assert history(play)[-1].who is None


def test_an_operator_skips_a_step_that_was_done_by_hand(play: Play) -> None:
    play.stick_behind_the_pivot()
    assert act(play, "skip", why="sent by courier").status is COMPLETED
    assert history(play)[-2][1:] == ("skipped", "shipping/do", "sent by courier", None, "op-1")


def test_an_operator_gives_up_what_is_stuck_before_the_point_of_no_return(play: Play) -> None:
    play.start("S-1")
    play.answer("S-1", Reserved())
    play.make_stuck("S-1")
    assert act(play, "compensate", why="the bank knows no such payment").status is COMPENSATING
    told = next(line for line in history(play) if line.what == "told to compensate")
    assert (told.who, told.detail) == ("op-1", "the bank knows no such payment")
    assert play.sent("S-1")[-1] == "void"


def test_the_business_cancels_before_the_point_of_no_return(play: Play) -> None:
    play.start("S-1")
    state = act(play, "cancel", who="customer", why="ordered twice")
    assert (state.status, state.reason) == (COMPENSATING, "ordered twice")
    assert ("cancelled", "customer") in [(line.what, line.who) for line in history(play)]
    assert play.sent("S-1") == ["reserve", "release"]


@pytest.mark.parametrize("answers", [[Reserved()], [Reserved(), Paid()]], ids=["at", "behind"])
def test_a_cancellation_behind_the_pivot_is_refused_with_the_remedy(
    play: Play, answers: list[Any]
) -> None:
    play.start("S-1")
    for answer in answers:
        play.answer("S-1", answer)
    before = history(play)
    with pytest.raises(SagaError, match=r"no longer be cancelled.*a new process"):
        act(play, "cancel")
    assert history(play) == before


def test_who_wants_to_cancel_what_is_stuck_is_told_the_verbs_for_it(play: Play) -> None:
    play.stick_behind_the_pivot()
    with pytest.raises(SagaError, match=r"STUCK.*retry, skip or compensate"):
        act(play, "cancel")


@pytest.mark.parametrize("verb", ["retry", "skip", "compensate", "cancel"])
@pytest.mark.parametrize(("who", "why"), [("", "so"), ("op-1", " ")])
def test_nobody_acts_without_a_name_and_a_reason(play: Play, verb: str, who: str, why: str) -> None:
    play.stick_behind_the_pivot()
    with pytest.raises(SagaError, match="say who"):
        act(play, verb, who=who, why=why)


@pytest.mark.parametrize("verb", ["retry", "skip", "compensate", "cancel"])
def test_an_unknown_id_names_the_saga_and_the_remedy(play: Play, verb: str) -> None:
    play.start("S-1")
    with pytest.raises(SagaError, match="there is no toy S-9: see labkit saga list"):
        act(play, verb, "S-9")
    with Session(play.engine) as session, pytest.raises(SagaError, match="no toy S-9"):
        operations.one(session, "S-9")


def test_what_goes_on_by_itself_is_left_alone(play: Play) -> None:
    play.start("S-1")
    with pytest.raises(SagaError, match=r"S-1 is RUNNING.*it goes on by itself"):
        act(play, "retry")


def test_what_has_ended_is_left_alone(play: Play) -> None:
    play.start("S-1")
    for answer in (Reserved(), Paid(), Shipped()):
        play.answer("S-1", answer)
    with pytest.raises(SagaError, match=r"COMPLETED.*it has ended"):
        act(play, "skip")


def test_the_second_of_two_operators_waits_and_is_told_what_the_first_did(play: Play) -> None:
    play.stick_while_compensating()
    with ThreadPoolExecutor(1) as other, Session(play.engine) as first:
        operations.skip(first, "S-1", who="op-1", why="counted the shelf")
        second = other.submit(act, play, "retry", "S-1", "op-2", "stock is back")
        until_it_waits(play.engine, second)
        first.commit()
        error = second.exception()
    assert isinstance(error, SagaError)
    assert "op-1 skipped stock/undo at 2026-02-1" in str(error)
    assert "counted the shelf" in str(error)
    assert "op-2" not in {line.who for line in history(play)}


def test_the_second_operator_acts_when_the_first_rolls_back(play: Play) -> None:
    play.stick_while_compensating()
    with ThreadPoolExecutor(1) as other, Session(play.engine) as first:
        operations.skip(first, "S-1", who="op-1", why="counted the shelf")
        second = other.submit(act, play, "retry", "S-1", "op-2", "stock is back")
        until_it_waits(play.engine, second)
        first.rollback()
        second.result()
    assert {line.who for line in history(play)} == {None, "op-2"}


def test_local_work_that_fails_leaves_the_saga_stuck_as_it_was(play: Play) -> None:
    play.start("S-1")
    play.make_stuck("S-1")
    saga_flow.broken.add("S-1")
    before = history(play)
    with pytest.raises(saga_flow.BrokenError):
        act(play, "skip")
    assert play.state("S-1").status is STUCK
    assert history(play) == before


def test_what_a_person_writes_is_stored_whatever_it_holds(play: Play) -> None:
    play.stick_behind_the_pivot()
    act(play, "skip", who="op\udcff", why="a\0b")
    skipped = history(play)[-2]
    assert (skipped.who, skipped.detail) == ("op\\udcff", "a\\0b")


def test_sagas_of_another_name_are_none_of_ours(play: Play) -> None:
    play.start("S-1")
    with play.engine.begin() as connection:
        connection.execute(text("update saga set saga = 'other'"))
    assert listed(play) == []
