"""Semantic locks: what a saga is at work on is refused to the others, until it lets go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError, LockedError, RejectedError
from labkit.saga.locks import SemanticLocks
from tests.waiting import until_it_waits

metadata = MetaData()
locks = SemanticLocks(metadata)


@pytest.fixture
def locked(engine: Engine, clock: FakeClock) -> Engine:
    """Return the engine of a database in which SAGA-1 holds ORD-1."""
    db.create_all(engine, metadata)
    engine.update_execution_options(labkit_clock=clock)
    with Session(engine) as session, session.begin():
        locks.take(session, "ORD-1", "SAGA-1")
    return engine


def take(engine: Engine, target: str, holder: str) -> None:
    with Session(engine) as session, session.begin():
        locks.take(session, target, holder)


def holder(engine: Engine, target: str = "ORD-1") -> str | None:
    with Session(engine) as session:
        return locks.holder_of(session, target)


def test_a_locked_target_is_refused_with_its_holder_and_since_when(
    locked: Engine, clock: FakeClock
) -> None:
    since = clock.now()
    clock.advance(60)
    with pytest.raises(LockedError, match="by SAGA-1 since 2026-02-17 16:00") as found:
        take(locked, "ORD-1", "SAGA-2")
    assert isinstance(found.value, RejectedError)
    assert (found.value.target, found.value.holder) == ("ORD-1", "SAGA-1")
    assert found.value.since - since == timedelta(0)
    assert holder(locked) == "SAGA-1"


def test_another_target_is_free(locked: Engine) -> None:
    take(locked, "ORD-2", "SAGA-2")
    assert holder(locked, "ORD-2") == "SAGA-2"


def test_its_holder_takes_it_again_and_keeps_the_time(locked: Engine, clock: FakeClock) -> None:
    since = clock.now()
    clock.advance(60)
    take(locked, "ORD-1", "SAGA-1")
    with pytest.raises(LockedError) as found:
        take(locked, "ORD-1", "SAGA-2")
    assert found.value.since == since


def test_what_its_holder_frees_the_next_one_gets(locked: Engine) -> None:
    with Session(locked) as session, session.begin():
        assert locks.free(session, "ORD-1", "SAGA-1")
        assert not locks.free(session, "ORD-1", "SAGA-1")
    assert holder(locked) is None
    take(locked, "ORD-1", "SAGA-2")
    assert holder(locked) == "SAGA-2"


def test_nobody_frees_what_another_holds(locked: Engine) -> None:
    with Session(locked) as session, session.begin():
        assert not locks.free(session, "ORD-1", "SAGA-2")
    assert holder(locked) == "SAGA-1"


def test_a_lock_that_is_rolled_back_was_never_taken(locked: Engine) -> None:
    with Session(locked) as session:
        locks.take(session, "ORD-2", "SAGA-1")
        session.rollback()
    assert holder(locked, "ORD-2") is None


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_the_second_of_two_at_once_waits_for_what_becomes_of_the_first(
    locked: Engine, commits: bool
) -> None:
    with ThreadPoolExecutor(1) as other, Session(locked) as first:
        locks.take(first, "ORD-2", "SAGA-1")
        second = other.submit(take, locked, "ORD-2", "SAGA-2")
        until_it_waits(locked, second)
        first.commit() if commits else first.rollback()
        assert isinstance(second.exception(), LockedError) is commits
    assert holder(locked, "ORD-2") == ("SAGA-1" if commits else "SAGA-2")


def test_who_waits_while_it_is_freed_gets_it(locked: Engine) -> None:
    with ThreadPoolExecutor(1) as other, Session(locked) as first:
        locks.free(first, "ORD-1", "SAGA-1")
        second = other.submit(take, locked, "ORD-1", "SAGA-2")
        until_it_waits(locked, second)
        first.commit()
        second.result()
    assert holder(locked) == "SAGA-2"


def test_who_only_asks_is_refused_while_it_is_held_and_leaves_no_trace(locked: Engine) -> None:
    with Session(locked) as session, session.begin():
        locks.refuse_if_held(session, "ORD-2")
        with pytest.raises(LockedError, match="by SAGA-1"):
            locks.refuse_if_held(session, "ORD-1")
    assert (holder(locked), holder(locked, "ORD-2")) == ("SAGA-1", None)


def test_a_plain_connection_will_do(locked: Engine) -> None:
    with locked.begin() as connection:
        locks.take(connection, "ORD-2", "SAGA-2")
        assert locks.holder_of(connection, "ORD-2") == "SAGA-2"
        assert locks.free(connection, "ORD-2", "SAGA-2")


def test_a_lock_without_a_target_or_a_holder_is_refused(locked: Engine) -> None:
    for target, name in (("", "SAGA-1"), ("ORD-1", "")):
        with Session(locked) as session, pytest.raises(ConfigurationError, match="holder"):
            locks.take(session, target, name)
