"""The inbox: an id is handled once per consumer, also when two transactions bring it at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine, MetaData, text

from labkit import db
from labkit.inbox import Accepted, Inbox
from tests.databases import Databases, emptied, lent_database
from tests.waiting import until_it_waits

METADATA = MetaData()
INBOX = Inbox(METADATA)
ONE, OTHER = b"1" * 32, b"2" * 32


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, METADATA)


def accept(engine: Engine, digests: dict[str, bytes], consumer: str = "me") -> Accepted:
    with engine.begin() as connection:
        return INBOX.accept(connection, consumer, digests)


def test_an_id_is_fresh_once(engine: Engine) -> None:
    first = accept(engine, {"a": ONE, "b": ONE})
    second = accept(engine, {"b": ONE, "c": ONE})

    assert (first.fresh, second.fresh) == ({"a", "b"}, {"c"})
    assert first.mismatched == second.mismatched == set()


def test_ids_are_noted_whatever_characters_they_are_made_of(engine: Engine) -> None:
    odd = '\x01\x1f \\ \\u0041 "quoted" {a,b} 50% ñ \U0001f600 \u2028'

    first = accept(engine, {odd: bytes(range(32))})
    with engine.connect() as connection:
        known = INBOX.handled(connection, "me", [odd])

    assert first.fresh == {odd}
    assert known == {odd: bytes(range(32))}


def test_a_known_id_with_other_content_is_reported(engine: Engine) -> None:
    accept(engine, {"a": ONE, "b": ONE})

    found = accept(engine, {"a": OTHER, "b": ONE, "c": OTHER})

    assert found == Accepted(fresh={"c"}, mismatched={"a"})


def test_the_first_content_stays(engine: Engine) -> None:
    accept(engine, {"a": ONE})
    accept(engine, {"a": OTHER})

    assert accept(engine, {"a": ONE}).mismatched == set()


def test_another_consumer_handles_the_same_id(engine: Engine) -> None:
    accept(engine, {"a": ONE}, consumer="me")

    assert accept(engine, {"a": OTHER}, consumer="you") == Accepted({"a"}, set())


def test_nothing_is_known_of_a_transaction_that_rolled_back(engine: Engine) -> None:
    with engine.connect() as connection:
        INBOX.accept(connection, "me", {"a": ONE})
        connection.rollback()

    assert accept(engine, {"a": OTHER}).fresh == {"a"}


def test_a_duplicate_leaves_the_transaction_usable(engine: Engine) -> None:
    accept(engine, {"a": ONE})

    with engine.begin() as connection:
        INBOX.accept(connection, "me", {"a": ONE})

        assert connection.execute(text("select 1")).scalar() == 1


@pytest.mark.parametrize(("first_commits", "fresh"), [(True, set()), (False, {"a"})])
def test_a_concurrent_duplicate_waits_and_works_if_the_first_rolls_back(
    engine: Engine, first_commits: bool, fresh: set[str]
) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        INBOX.accept(first, "me", {"a": ONE})
        second = pool.submit(accept, engine, {"a": ONE})
        until_it_waits(engine, second)

        (first.commit if first_commits else first.rollback)()

        assert second.result().fresh == fresh


def test_a_concurrent_mismatch_is_reported_too(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        INBOX.accept(first, "me", {"a": ONE})
        second = pool.submit(accept, engine, {"a": OTHER})
        until_it_waits(engine, second)
        first.commit()

        assert second.result() == Accepted(set(), {"a"})


def test_opposite_orders_of_the_same_ids_do_not_deadlock(engine: Engine) -> None:
    barrier = Barrier(2, timeout=10)

    def write(step: int) -> int:
        fresh = 0
        for round_ in range(30):
            names = [f"{round_}-{n:03}" for n in range(100)]
            barrier.wait()
            fresh += len(accept(engine, dict.fromkeys(names[::step], ONE)).fresh)
        return fresh

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(write, step) for step in (1, -1)]

    assert sum(result.result() for result in results) == 30 * 100


def test_an_id_may_have_255_characters_of_any_language(engine: Engine) -> None:
    longest = "ñ🙂" * 127 + "x"

    assert accept(engine, {longest: ONE}).fresh == {longest}
    assert accept(engine, {longest: ONE}).fresh == set()


def test_no_ids_are_no_trouble(engine: Engine) -> None:
    assert accept(engine, {}) == Accepted(set(), set())
    with engine.connect() as connection:
        assert INBOX.handled(connection, "me", []) == {}


def test_handled_says_what_was_handled_and_notes_nothing(engine: Engine) -> None:
    accept(engine, {"a": ONE})

    with engine.begin() as connection:
        handled = INBOX.handled(connection, "me", ["a", "b"])

    assert handled == {"a": ONE}
    assert accept(engine, {"b": ONE}).fresh == {"b"}


@pytest.mark.parametrize("name", ["Mixed Case", "50% off", "in%s", "a:b", 'say "hi"'])
def test_a_table_may_have_any_name(engine: Engine, name: str) -> None:
    metadata = MetaData()
    inbox = Inbox(metadata, table=name)
    db.create_all(engine, metadata)

    with engine.begin() as connection:
        assert inbox.accept(connection, "me", {"a": ONE}).fresh == {"a"}
        assert inbox.handled(connection, "me", ["a"]) == {"a": ONE}
