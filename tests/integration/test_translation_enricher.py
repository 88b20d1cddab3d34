"""The enricher: what a message lacks comes from a copy of our own, or is told to be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, MetaData

from labkit.lab.servers import Stack
from labkit.shop.catalogue import FROZEN, REGISTRY, ArticleDescribed
from labkit.translation import Enriched, Enricher
from labkit.wire import decode_envelope
from tests.databases import emptied, lent_database
from tests.waiting import until_it_waits

METADATA = MetaData()
ENRICHER = Enricher(METADATA, "articles_seen")


@pytest.fixture(scope="module")
def shared(servers: Stack) -> Iterator[Engine]:
    with lent_database(servers, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine) -> Engine:
    return emptied(shared, METADATA)


def learn(engine: Engine, version: int, content: Mapping[str, Any] | None, key: str = "A") -> bool:
    with engine.begin() as connection:
        return ENRICHER.learn(connection, key, version, content)


def enrich(engine: Engine, *records: dict[str, Any]) -> Enriched:
    with engine.connect() as connection:
        return ENRICHER.enrich(connection, records, by="sku")


def test_a_record_gets_what_the_copy_knows(engine: Engine) -> None:
    learn(engine, 1, {"title": "first"})

    found = enrich(engine, {"sku": "A", "qty": 2})

    assert found == Enriched([{"title": "first", "sku": "A", "qty": 2}], [])


def test_what_a_record_says_itself_stays(engine: Engine) -> None:
    learn(engine, 1, {"title": "of the copy", "qty": 99})

    assert enrich(engine, {"sku": "A", "qty": 2}).records[0]["qty"] == 2


def test_what_the_copy_does_not_know_is_told_once_and_left_as_it_is(engine: Engine) -> None:
    learn(engine, 1, {"title": "first"})

    found = enrich(engine, {"sku": "C"}, {"sku": "A"}, {"sku": "B"}, {"sku": "C"})

    assert found.missing == ["C", "B"]
    assert found.records == [
        {"sku": "C"},
        {"sku": "A", "title": "first"},
        {"sku": "B"},
        {"sku": "C"},
    ]


def test_no_records_are_no_trouble(engine: Engine) -> None:
    assert enrich(engine) == Enriched([], [])


@pytest.mark.parametrize(("version", "news"), [(1, False), (2, False), (3, True)])
def test_only_a_newer_version_is_news(engine: Engine, version: int, news: bool) -> None:
    learn(engine, 2, {"title": "second"})

    assert learn(engine, version, {"title": "other"}) is news
    assert enrich(engine, {"sku": "A"}).records[0]["title"] == ("other" if news else "second")


def test_what_was_removed_is_missing_and_an_older_event_does_not_bring_it_back(
    engine: Engine,
) -> None:
    learn(engine, 1, {"title": "first"})
    learn(engine, 3, None)

    assert learn(engine, 2, {"title": "second"}) is False
    assert enrich(engine, {"sku": "A"}) == Enriched([{"sku": "A"}], ["A"])


def test_what_was_removed_can_come_back_with_a_newer_version(engine: Engine) -> None:
    learn(engine, 1, None)
    learn(engine, 2, {"title": "again"})

    assert enrich(engine, {"sku": "A"}).missing == []


def test_a_copy_that_is_rolled_back_has_learned_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        ENRICHER.learn(connection, "A", 1, {"title": "first"})
        connection.rollback()

    assert enrich(engine, {"sku": "A"}).missing == ["A"]


def test_of_two_events_at_once_the_newer_stays(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        ENRICHER.learn(first, "A", 2, {"title": "second"})
        older = pool.submit(learn, engine, 1, {"title": "first"})
        until_it_waits(engine, older)
        first.commit()

        assert older.result() is False
    assert enrich(engine, {"sku": "A"}).records[0]["title"] == "second"


def test_the_copy_learns_from_events_of_any_version(engine: Engine) -> None:
    for revision, text in enumerate(FROZEN.values(), start=1):
        event = REGISTRY.decode(decode_envelope(text))
        assert isinstance(event, ArticleDescribed)
        learn(engine, revision, {"title": event.title}, event.sku)

    found = enrich(engine, {"sku": "BOOK-DDD"})
    assert found.records == [{"title": "Domain-Driven Design", "sku": "BOOK-DDD"}]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1).flatmap(st.permutations))
def test_in_any_order_the_newest_version_stays(shared: Engine, versions: list[int]) -> None:
    engine = emptied(shared, METADATA)

    news = [learn(engine, version, {"title": version}) for version in versions]

    assert enrich(engine, {"sku": "A"}).records[0]["title"] == max(versions)
    assert sum(news) == len({max(versions[: n + 1]) for n in range(len(versions))})
