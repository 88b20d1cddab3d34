"""The auditor finds each kind of contradiction, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from labkit.messages import encode
from labkit.testing import sample
from tests.testing.conftest import Pair


@pytest.fixture
def settled(pair: Pair) -> Pair:
    pair.place("a", 1, 2, 3)
    pair.place("b", 1)
    pair.settle()
    pair.audit().assert_holds()
    return pair


def _entries(pair: Pair) -> list[tuple[bytes, dict[bytes, bytes]]]:
    client: Any = pair.transport.client
    found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(pair.stream_of("a"))
    return found


def _publish_late(pair: Pair) -> None:
    """Move the first entry of a stream behind the others."""
    position, fields = _entries(pair)[0]
    client: Any = pair.transport.client
    client.xdel(pair.stream_of("a"), position)
    client.xadd(pair.stream_of("a"), fields)


def _uncommit(pair: Pair) -> None:
    pair.sql(pair.source, "delete from outbox_messages where message_id = 'a-2'")


def _lose_entry(pair: Pair) -> None:
    pair.transport.client.xdel(pair.stream_of("a"), _entries(pair)[1][0])


def _unapply(pair: Pair) -> None:
    pair.sql(pair.target, "delete from effects where order_id = 'a-2'")


def _forget(pair: Pair) -> None:
    pair.sql(pair.target, "delete from inbox_messages where message_id = 'a-2'")


def _apply_twice(pair: Pair) -> None:
    pair.sql(pair.target, "insert into effects (order_id, customer) values ('a-2', 'a')")


def _invent(pair: Pair) -> None:
    pair.sql(pair.target, "insert into effects (order_id, customer) values ('a-9', 'a')")


def _apply_late(pair: Pair) -> None:
    _unapply(pair)
    _apply_twice(pair)


def _falsify(pair: Pair) -> None:
    change = "update outbox_messages set body = body || ' ' where message_id = 'a-2'"
    pair.sql(pair.source, change)


@pytest.mark.parametrize(
    ("sabotage", "found"),
    [
        (_lose_entry, ("lost", "a-2", "stream sample.orders")),
        (_uncommit, ("phantom", "a-2", "stream sample.orders")),
        (_falsify, ("phantom", "a-2", "stream sample.orders")),
        (_publish_late, ("reordered", "a-1", "stream sample.orders")),
        (_forget, ("lost", "a-2", "inbox of receiver")),
        (_unapply, ("lost", "a-2", "effects of receiver")),
        (_invent, ("phantom", "a-9", "effects of receiver")),
        (_apply_twice, ("doubled", "a-2", "effects of receiver")),
        (_apply_late, ("reordered", "a-2", "effects of receiver")),
    ],
)
def test_a_contradiction_is_found_under_its_own_name(
    settled: Pair, sabotage: Callable[[Pair], None], found: tuple[str, str, str]
) -> None:
    sabotage(settled)

    first = settled.audit().first

    assert first is not None
    assert (first.kind, first.message_id, first.where) == found


def test_a_counter_example_is_a_sentence_with_positions(settled: Pair) -> None:
    _publish_late(settled)

    with pytest.raises(AssertionError, match=r"a-1 of key a, committed as .* behind a-3 at \d@"):
        settled.audit().assert_holds()


def test_an_event_that_waits_unpublished_is_lost_until_it_is_not(settled: Pair) -> None:
    settled.place("c", 1)
    before = settled.audit()
    settled.settle()

    assert before.kinds == {"lost"}
    assert settled.audit().holds


def test_what_is_visibly_held_is_not_lost(pair: Pair) -> None:
    order = sample.OrderPlaced(order_id="a-1", customer="a", n=1, fails=99)
    sample.place(pair.source, order)
    pair.place("a", 2)

    pair.settle()

    assert pair.audit().holds


def test_what_an_operator_discarded_is_not_lost(pair: Pair) -> None:
    order = sample.OrderPlaced(order_id="a-1", customer="a", n=1, fails=99)
    sample.place(pair.source, order)
    pair.settle()
    pair.sql(pair.target, "update held set state = 'parked'")
    with pair.target.begin() as connection:
        letter = sample.receiver.dead_letters.one(connection, "a-1")
        sample.receiver.dead_letters.discard(
            connection, letter.position, who="operator", why="a test"
        )

    assert pair.audit().holds


def test_a_repeat_in_the_stream_is_counted_and_no_fault(settled: Pair) -> None:
    settled.sql(settled.source, "update outbox_messages set published_at = null")
    settled.settle()

    findings = settled.audit()

    assert (findings.holds, findings.repeated) == (True, 4)


def test_a_trimmed_stream_is_lost_unless_the_region_says_so(settled: Pair) -> None:
    settled.transport.client.xtrim(settled.stream_of("a"), maxlen=1, approximate=False)

    assert settled.audit().kinds == {"lost"}
    assert settled.audit(trimmed=True).holds


def test_a_gap_in_a_trimmed_stream_is_found(settled: Pair) -> None:
    _lose_entry(settled)

    assert settled.audit(trimmed=True).kinds == {"lost"}


def test_a_lost_effect_behind_a_trimmed_stream_is_found(settled: Pair) -> None:
    settled.transport.client.xtrim(settled.stream_of("a"), maxlen=0, approximate=False)
    _unapply(settled)
    _forget(settled)

    assert settled.audit(trimmed=True).kinds == {"lost"}


def test_a_repeat_that_outlived_its_original_is_not_out_of_order(settled: Pair) -> None:
    settled.sql(settled.source, "update outbox_messages set published_at = null")
    settled.settle()
    settled.transport.client.xtrim(settled.stream_of("a"), maxlen=4, approximate=False)

    assert settled.audit(trimmed=True).holds


def test_rows_that_retention_deleted_need_no_explanation_before_the_region(pair: Pair) -> None:
    pair.place("a", 1, 2)
    pair.settle()
    since = datetime.now(UTC)
    pair.place("a", 3)
    pair.settle()
    pair.sql(pair.source, "delete from outbox_messages where message_id = 'a-1'")
    pair.sql(pair.target, "delete from inbox_messages where message_id = 'a-2'")

    assert pair.audit().kinds == {"phantom", "lost"}
    findings = pair.audit(since=since)
    assert (findings.holds, findings.judged, findings.excused) == (True, 1, 1)


def test_a_loss_inside_the_region_is_found(pair: Pair) -> None:
    pair.place("a", 1)
    since = datetime.now(UTC)
    pair.place("a", 2)
    pair.settle()
    _unapply(pair)

    assert pair.audit(since=since).kinds == {"lost"}


@pytest.mark.slow
def test_more_events_than_fit_into_a_page_are_judged(pair: Pair) -> None:
    _settle_many(pair, 25_000)

    findings = pair.audit()

    assert (findings.holds, findings.judged) == (True, 25_000)


def _settle_many(pair: Pair, count: int) -> None:
    """Write what so many orders leave behind, in bulk: rows, entries, inbox and effects."""
    rows = [_row(number) for number in range(count)]
    for start in range(0, count, 10_000):
        chunk = rows[start : start + 10_000]
        with pair.source.begin() as connection:
            connection.execute(sample.sender.outbox.table.insert(), chunk)
        pipe: Any = pair.transport.client.pipeline(transaction=False)
        for row in chunk:
            pipe.xadd(pair.stream_of(row["key"]), {"body": row["body"]})
        pipe.execute()
    columns = {
        "inbox_messages (consumer, message_id, digest)": "'receiver', n::text, ''",
        "effects (order_id, customer)": "n::text, 'c-' || n % 500",
    }
    for table, values in columns.items():
        series = "generate_series(0, :count - 1) as n"
        pair.sql(pair.target, f"insert into {table} select {values} from {series}", count=count)


def _row(n: int) -> dict[str, Any]:
    order = sample.OrderPlaced(order_id=str(n), customer=f"c-{n % 500}", n=n)
    key, at = order.customer, datetime.now(UTC)
    body = encode(order, message_id=str(n), correlation_id=key, occurred_at=at, headers={})
    partition = sample.ORDERS.partition_of(key)
    row = {"message_id": str(n), "topic": order.topic, "key": key, "partition": partition}
    return row | {"body": body, "published_at": at}
