"""What a Session keeps for its commit: savepoints, listeners, errors, in any legal order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Identity,
    Integer,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column

from labkit import unit_of_work
from labkit.errors import ConfigurationError, InvalidEventError
from labkit.messages import Event, Message
from labkit.outbox import Outbox, Outgoing
from labkit.ports import Stream
from tests.databases import Databases, emptied, lent_database


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)


class Noted(Event, frozen=True):
    topic: ClassVar[str] = "test.noted.v1"

    n: int


OUTBOX = Outbox(Base.metadata, Stream("test.events"))
OTHER = Outbox(Base.metadata, Stream("other.events"), table="other_outbox")
shadow = Table(
    "shadow",
    Base.metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("n", Integer, nullable=False),
)


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, Base.metadata) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, Base.metadata)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as made:
        yield made


def note(session: Session, n: int, outbox: Outbox = OUTBOX, key: str | None = "k") -> None:
    outbox.add(session, Noted(n=n), key=key, message_id=str(n))


def stored(engine: Engine, outbox: Outbox = OUTBOX) -> list[int]:
    columns = outbox.table.c
    with engine.connect() as connection:
        query = select(columns.message_id).order_by(columns.seq)
        return [int(message_id) for message_id in connection.execute(query).scalars()]


def test_a_commit_stores_events_in_the_order_of_their_adding(
    engine: Engine, session: Session
) -> None:
    for n in range(20):
        note(session, n, key=f"k{n % 3}")

    session.commit()

    assert stored(engine) == list(range(20))


@pytest.mark.parametrize("end", [Session.rollback, Session.close, Session.reset])
def test_an_event_of_a_transaction_that_did_not_commit_is_forgotten(
    engine: Engine, session: Session, end: Callable[[Session], None]
) -> None:
    note(session, 1)
    end(session)

    note(session, 2)
    session.commit()

    assert stored(engine) == [2]


def test_an_event_added_to_an_idle_session_does_not_outlive_its_rollback(
    engine: Engine, session: Session
) -> None:
    session.commit()
    note(session, 1)
    session.rollback()

    session.add(Order(id=1))
    session.commit()

    assert stored(engine) == []


def test_nothing_is_stored_before_the_root_commits(engine: Engine, session: Session) -> None:
    with session.begin_nested():
        note(session, 1)

    assert session.scalars(select(OUTBOX.table.c.message_id)).all() == []


def test_a_released_savepoint_hands_its_events_up(engine: Engine, session: Session) -> None:
    note(session, 1)
    with session.begin_nested():
        note(session, 2)
        with session.begin_nested():
            note(session, 3)
    note(session, 4)

    session.commit()

    assert stored(engine) == [1, 2, 3, 4]


def test_a_rolled_back_savepoint_takes_its_events_with_it(engine: Engine, session: Session) -> None:
    note(session, 1)
    savepoint = session.begin_nested()
    with session.begin_nested():
        note(session, 2)
    savepoint.rollback()
    note(session, 3)

    session.commit()

    assert stored(engine) == [1, 3]


def test_a_savepoint_that_commits_around_an_open_one_keeps_both(
    engine: Engine, session: Session
) -> None:
    outer = session.begin_nested()
    note(session, 1)
    session.begin_nested()
    note(session, 2)

    outer.commit()
    session.commit()

    assert stored(engine) == [1, 2]


@pytest.mark.parametrize("inside", [True, False], ids=["event inside", "event before"])
def test_a_block_that_ends_inside_an_open_savepoint_stores_its_events(
    engine: Engine, session: Session, inside: bool
) -> None:
    with session.begin():
        if not inside:
            note(session, 1)
        session.begin_nested()
        if inside:
            note(session, 1)

    assert stored(engine) == [1]


@pytest.mark.parametrize(
    "moment", ["before_flush", "after_flush", "after_flush_postexec", "before_commit"]
)
def test_an_event_added_by_a_listener_is_stored(
    engine: Engine, session: Session, moment: str
) -> None:
    listen_once(session, moment, lambda: note(session, 1))
    session.add(Order(id=1))

    session.commit()

    assert stored(engine) == [1]


def test_an_event_added_while_a_block_ends_inside_an_open_savepoint_is_stored(
    engine: Engine, session: Session
) -> None:
    listen_once(session, "after_flush", lambda: note(session, 1))

    with session.begin():
        session.begin_nested()
        session.add(Order(id=1))

    assert stored(engine) == [1]


def test_a_savepoint_inside_a_flush_hands_its_events_up(engine: Engine, session: Session) -> None:
    def in_a_savepoint() -> None:
        with session.begin_nested():
            note(session, 1)

    listen_once(session, "after_flush", in_a_savepoint)
    session.add(Order(id=1))

    session.commit()

    assert stored(engine) == [1]


def listen_once(session: Session, moment: str, act: Callable[[], None]) -> None:
    event.listen(session, moment, lambda *_: act(), once=True)


def test_two_outboxes_share_a_session(engine: Engine, session: Session) -> None:
    note(session, 1)
    note(session, 2, OTHER)
    note(session, 3)

    session.commit()

    assert (stored(engine), stored(engine, OTHER)) == ([1, 3], [2])


def test_two_outboxes_are_locked_in_one_order_whatever_came_first(engine: Engine) -> None:
    barrier = Barrier(2, timeout=10)

    def write(first: Outbox, second: Outbox, base: int) -> None:
        for n in range(30):
            with Session(engine) as session:
                note(session, base + n, first)
                note(session, base + n, second)
                barrier.wait()
                session.commit()

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(write, OUTBOX, OTHER, 0), pool.submit(write, OTHER, OUTBOX, 100)]
        for future in futures:
            future.result()

    assert len(stored(engine)) == len(stored(engine, OTHER)) == 60


def test_a_session_in_somebody_elses_transaction_stores_at_once(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection) as session:
            note(session, 1)
            session.commit()
        assert connection.execute(select(OUTBOX.table.c.message_id)).scalars().all() == ["1"]

        outer.rollback()

    assert stored(engine) == []


def test_a_commit_of_the_sessions_connection_stores_too(engine: Engine, session: Session) -> None:
    note(session, 1)

    session.connection().commit()

    assert stored(engine) == [1]


def test_an_autocommit_session_is_refused(engine: Engine) -> None:
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            note(session, 1)
        session.commit()

    assert stored(engine) == []


def test_a_two_phase_session_is_refused(engine: Engine) -> None:
    with (
        Session(engine, twophase=True) as session,
        pytest.raises(ConfigurationError, match="two-phase"),
    ):
        note(session, 1)


def test_an_event_added_after_the_commit_is_refused(engine: Engine, session: Session) -> None:
    listen_once(session, "after_commit", lambda: note(session, 2))
    note(session, 1)

    with pytest.raises(InvalidRequestError, match="committed"):
        session.commit()


def test_a_session_goes_on_after_a_store_that_failed(engine: Engine, session: Session) -> None:
    session.add(Order(id=1))
    note(session, 1)
    note(session, 1)

    with pytest.raises(InvalidEventError):
        session.commit()
    session.rollback()
    note(session, 2)
    session.commit()

    assert stored(engine) == [2]
    assert session.get(Order, 1) is None


def test_a_store_that_fails_leaves_no_open_transaction_in_the_pool(engine: Engine) -> None:
    engine = create_engine(engine.url, pool_size=1, max_overflow=0)
    with Session(engine) as session:
        session.execute(insert(shadow).values(n=1))
        note(session, 1)
        note(session, 1)
        with pytest.raises(InvalidEventError):
            session.commit()

    with engine.begin() as next_user:
        next_user.execute(text("select 1"))

    with engine.connect() as connection:
        assert connection.execute(select(shadow.c.n)).all() == []
    engine.dispose()


def test_a_cause_within_a_cause_gives_the_outer_one_back(session: Session) -> None:
    """A saga's local work may begin another saga, and go on."""

    def cause_of_what_is_said() -> str | None:
        (said,) = unit_of_work.caused(session, [Outgoing(Noted(n=1), "k")])
        return said.cause.message_id if said.cause else None

    with unit_of_work.caused_by(session, message("M-1")):
        for inner in (message("M-2"), None):
            with unit_of_work.caused_by(session, inner):
                assert cause_of_what_is_said() == ("M-2" if inner else "M-1")
            assert cause_of_what_is_said() == "M-1"
    assert cause_of_what_is_said() is None


def message(message_id: str) -> Message[Event]:
    return Message(
        message_id=message_id,
        correlation_id="C-1",
        event=Noted(n=1),
        occurred_at=datetime(2026, 2, 17, tzinfo=UTC),
        key="k",
        headers={},
    )


def test_nothing_is_remembered_of_ended_transactions(engine: Engine) -> None:
    for n, end in enumerate((Session.commit, Session.rollback, Session.close)):
        with Session(engine) as session:
            note(session, n)
            end(session)
    gc.collect()

    assert len(unit_of_work._kept) == len(unit_of_work._roots) == 0


def commit_root_under_its_savepoints(session: Session) -> None:
    root = session.get_transaction()
    assert root
    root.commit()


def roll_root_back_under_its_savepoints(session: Session) -> None:
    root = session.get_transaction()
    assert root
    root.rollback()


ENDS = [
    Session.commit,
    commit_root_under_its_savepoints,
    Session.rollback,
    roll_root_back_under_its_savepoints,
    Session.close,
]


class Transactions(RuleBasedStateMachine):
    """A Session does anything in any order; a row beside each event says what must be stored."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(self.engine)
        self.savepoints: list[SessionTransaction] = []
        self.n = 0

    @initialize()
    def start_empty(self) -> None:
        with self.engine.begin() as connection:
            for table in (OUTBOX.table, shadow):
                connection.execute(table.delete())

    @rule(key=st.sampled_from(["a", "b", None]), twice=st.booleans())
    def add(self, key: str | None, twice: bool) -> None:
        for _ in range(1 + twice):
            self.n += 1
            note(self.session, self.n, key=key)
            self.session.execute(insert(shadow).values(n=self.n))

    @rule()
    def flush(self) -> None:
        self.session.flush()

    @rule(key=st.sampled_from(["a", None]))
    def add_in_a_savepoint(self, key: str | None) -> None:
        self.savepoints.append(self.session.begin_nested())
        self.add(key, twice=False)

    @rule()
    def begin_nested(self) -> None:
        self.savepoints.append(self.session.begin_nested())

    @precondition(lambda self: self.savepoints)
    @rule(data=st.data(), commit=st.booleans())
    def end_savepoint(self, data: st.DataObject, commit: bool) -> None:
        which = data.draw(st.integers(0, len(self.savepoints) - 1))
        savepoint = self.savepoints[which]
        (savepoint.commit if commit else savepoint.rollback)()
        del self.savepoints[which:]

    @precondition(lambda self: self.session.in_transaction())
    @rule(how=st.sampled_from(ENDS))
    def end_transaction(self, how: Callable[[Session], Any]) -> None:
        how(self.session)
        self.savepoints.clear()

    @invariant()
    def events_are_where_the_rows_are(self) -> None:
        with self.engine.connect() as connection:
            rows = connection.execute(select(shadow.c.n).order_by(shadow.c.seq)).scalars().all()
        assert stored(self.engine) == rows

    def teardown(self) -> None:
        self.session.close()


def test_events_are_stored_exactly_where_rows_are(engine: Engine) -> None:
    Transactions.engine = engine
    run_state_machine_as_test(
        Transactions,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
