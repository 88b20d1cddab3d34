"""The correlator: an answer finds its target, once, in whatever order the answers come."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, MetaData

from labkit.errors import PermanentError
from labkit.translation import Correlator, Match
from tests.databases import Databases, emptied, lent_database
from tests.waiting import until_it_waits

METADATA = MetaData()
CORRELATOR = Correlator(METADATA, table="correlations")
LINES = {"DDD": "ORD-1/1", "HEX": "ORD-1/2", "EDA": "ORD-1/3"}


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    expect(emptied(shared, METADATA), "RES-1", LINES)
    return shared


def expect(engine: Engine, conversation: str, parts: dict[str, str]) -> None:
    with engine.begin() as connection:
        CORRELATOR.expect(connection, conversation, parts)


def answer(engine: Engine, part: str, said: Any, conversation: str = "RES-1") -> Match | None:
    with engine.begin() as connection:
        return CORRELATOR.answer(connection, conversation, part, said)


def answers(engine: Engine, conversation: str = "RES-1") -> dict[str, Any]:
    with engine.connect() as connection:
        return CORRELATOR.answers(connection, conversation)


def test_an_answer_finds_what_it_is_about(engine: Engine) -> None:
    match = answer(engine, "HEX", "RESERVED")

    assert match == Match("ORD-1/2", True, {"DDD": None, "EDA": None, "HEX": "RESERVED"})
    assert not match.complete


def test_the_first_answer_stays_and_a_later_one_is_not_new(engine: Engine) -> None:
    answer(engine, "HEX", {"result": "REJECTED", "reason": "OUT_OF_STOCK"})

    match = answer(engine, "HEX", {"result": "RESERVED"})

    assert match is not None
    assert not match.new
    assert match.answers["HEX"] == {"result": "REJECTED", "reason": "OUT_OF_STOCK"}
    assert answers(engine) == match.answers


@pytest.mark.parametrize(("conversation", "part"), [("RES-9", "HEX"), ("RES-1", "XXX")])
def test_nobody_asked_for_an_unknown_conversation_or_part(
    engine: Engine, conversation: str, part: str
) -> None:
    assert answer(engine, part, "RESERVED", conversation) is None
    assert answers(engine) == dict.fromkeys(LINES)


def test_a_conversation_that_nobody_began_has_no_parts(engine: Engine) -> None:
    assert answers(engine, "RES-9") == {}


def test_expecting_the_same_again_keeps_the_answers(engine: Engine) -> None:
    answer(engine, "HEX", "RESERVED")

    expect(engine, "RES-1", {"HEX": "ORD-1/2", "NEW": "ORD-1/4"})

    assert answers(engine) == {"DDD": None, "EDA": None, "HEX": "RESERVED", "NEW": None}


def test_a_part_cannot_be_about_something_else_later(engine: Engine) -> None:
    with pytest.raises(PermanentError, match="RES-1 HEX is about ORD-1/2, not ORD-7/1"):
        expect(engine, "RES-1", {"HEX": "ORD-7/1"})


def test_expecting_nothing_is_no_trouble(engine: Engine) -> None:
    expect(engine, "RES-2", {})

    assert answers(engine, "RES-2") == {}


def test_none_is_no_answer(engine: Engine) -> None:
    with pytest.raises(PermanentError, match="RES-1 HEX: None is no answer"):
        answer(engine, "HEX", None)


@pytest.mark.parametrize("said", [False, 0, "", [], {}, {"reason": 'ñ "quoted"'}])
def test_any_other_json_is_an_answer(engine: Engine, said: Any) -> None:
    answer(engine, "HEX", said)

    assert answers(engine)["HEX"] == said
    assert not answer(engine, "HEX", "again").new  # type: ignore[union-attr]


def test_what_was_rolled_back_was_never_asked_nor_answered(engine: Engine) -> None:
    with engine.connect() as connection:
        CORRELATOR.answer(connection, "RES-1", "HEX", "RESERVED")
        CORRELATOR.expect(connection, "RES-2", {"HEX": "ORD-2/1"})
        connection.rollback()

    assert answers(engine) == dict.fromkeys(LINES)
    assert answer(engine, "HEX", "RESERVED", "RES-2") is None


@pytest.mark.parametrize(("first_commits", "complete"), [(True, True), (False, False)])
def test_of_two_last_answers_at_once_the_second_sees_the_first_if_it_commits(
    engine: Engine, first_commits: bool, complete: bool
) -> None:
    answer(engine, "EDA", "RESERVED")
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        CORRELATOR.answer(first, "RES-1", "DDD", "RESERVED")
        second = pool.submit(answer, engine, "HEX", "RESERVED")
        until_it_waits(engine, second)

        (first.commit if first_commits else first.rollback)()

        match = second.result()
    assert match is not None
    assert match.complete is complete


def test_another_conversation_does_not_wait(engine: Engine) -> None:
    expect(engine, "RES-2", {"HEX": "ORD-2/1"})
    with engine.connect() as first:
        CORRELATOR.answer(first, "RES-1", "HEX", "RESERVED")

        assert answer(engine, "HEX", "RESERVED", "RES-2") is not None


def forget(engine: Engine, *conversations: str) -> int:
    with engine.begin() as connection:
        return CORRELATOR.forget(connection, conversations)


def test_what_is_forgotten_is_nobodys_and_the_others_stay(engine: Engine) -> None:
    expect(engine, "RES-2", {"DDD": "ORD-2/1"})
    answer(engine, "HEX", "RESERVED")

    assert [forget(engine, "RES-1", "RES-9"), forget(engine, "RES-1"), forget(engine)] == [3, 0, 0]
    assert (answer(engine, "DDD", "RESERVED"), answers(engine)) == (None, {})
    assert answers(engine, "RES-2") == {"DDD": None}


def test_an_answer_that_waits_for_the_forgetting_is_nobodys(
    engine: Engine,
) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as busy:
        CORRELATOR.forget(busy, ["RES-1"])
        other = pool.submit(answer, engine, "HEX", "RESERVED")
        until_it_waits(engine, other)
        busy.commit()

        assert other.result() is None


@settings(max_examples=30, deadline=None)
@given(
    arrivals=st.lists(st.sampled_from(sorted(LINES)), max_size=6)
    .map(lambda extra: [*LINES, *extra])
    .flatmap(st.permutations)
)
def test_in_any_order_and_number_each_part_is_new_once_and_one_answer_completes(
    shared: Engine, arrivals: list[str]
) -> None:
    expect(emptied(shared, METADATA), "RES-1", LINES)

    matches = [answer(shared, part, f"answer {n}") for n, part in enumerate(arrivals)]

    assert sorted(match.target for match in matches if match is not None and match.new) == sorted(
        LINES.values()
    )
    assert sum(match is not None and match.new and match.complete for match in matches) == 1
    assert answers(shared) == {part: f"answer {arrivals.index(part)}" for part in LINES}
