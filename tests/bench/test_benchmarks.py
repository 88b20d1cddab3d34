"""The benchmarks, so small that nothing is measured: that they run and that the work is done."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import checkout_by_hand, relaying
from benchmarks.__main__ import GROWTH, LINES, main, where
from benchmarks.appending import place_order_by_hand
from benchmarks.arena import KEYS, Arena, arena, expect, measured, raw_connection, written
from benchmarks.checkout import checkout, orders
from benchmarks.checkout_by_hand import ORDERING, STOCK
from benchmarks.consuming import CONTESTS, Contest, consume_by_hand, prepare
from benchmarks.lines import Line, Target, line_of, lone_line, store
from benchmarks.size import TINY
from labkit.lab.servers import Stack

SHAPE = {"line", "value", "unit", "ceiling", "ratio", "target", "met", "runs", "peers", "on"}


@pytest.fixture
def place(servers: Stack) -> Any:
    with arena(servers) as made:
        made.begin_anew()
        yield made


@pytest.mark.thorough
@pytest.mark.parametrize("name", LINES)
def test_a_line_compares_work_that_was_done(servers: Stack, name: str) -> None:
    lines = LINES[name](servers, TINY)

    assert all(line.line.startswith(name) for line in lines)
    for line in lines:
        assert line.value >= 0
        # By hand nothing comes back from a death.
        assert (line.ceiling is None) == (name == "saga_restart")
        assert line.runs == TINY.runs
        assert (line.met is None) == (line.target is None)


@pytest.mark.thorough
def test_growth_covers_backlog_retention_partitions_and_consumers(servers: Stack) -> None:
    lines = GROWTH["growth"](servers, TINY)

    assert {line.line.split("_")[-1] for line in lines} == {
        *("unpublished", "retained", "partitions", "processes")
    }
    assert all(line.value > 0 and line.target is None for line in lines)


def test_the_ceiling_of_the_relay_publishes_and_marks_in_order(place: Arena) -> None:
    events = written(300, place.stream)
    place.fill_outbox(events)

    relaying.drain_by_hand(place)

    assert place.published() == (300, 300)
    for partition, key in enumerate(place.keys()):
        entries: Any = place.client.xrange(key)
        bodies = [fields[b"body"].decode() for _, fields in entries]
        assert bodies == [event.body for event in events if event.partition == partition]


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.name)
def test_the_ceiling_of_a_consumer_applies_each_message_once(
    place: Arena, contest: Contest
) -> None:
    events = written(300, place.stream)
    prepare(place, [*events, *events])

    consume_by_hand(place, contest.apply, contest.batch)

    assert place.consumed() == (300, 300, 0)


def test_the_ceiling_of_append_stores_an_event_with_its_row(place: Arena) -> None:
    with raw_connection(place.address[0]) as raw:
        raw.autocommit = False
        place_order_by_hand(place, raw, measured(1), append=True)
        place_order_by_hand(place, raw, measured(2), append=False)

    assert place.count("select count(*) from orders") == 2
    assert place.count("select count(*) from outbox_messages") == 1


def test_the_ceiling_of_a_saga_ends_each_once_when_every_message_comes_twice(
    servers: Stack,
) -> None:
    wanted = orders(20)
    with checkout(servers) as place, ExitStack() as opened:
        place.begin_anew()
        raw = opened.enter_context(raw_connection(place.address[0]))
        raw_stock = opened.enter_context(raw_connection(place.address[1]))
        checkout_by_hand.start(raw, wanted)
        for part, source, target in ((STOCK, raw, raw_stock), (ORDERING, raw_stock, raw)):
            keys = checkout_by_hand.subscribe(place, part)
            assert checkout_by_hand.publish(place, source, keys) == 20
            source.execute("update outbox_messages set published_at = null")
            assert checkout_by_hand.publish(place, source, keys) == 20
            target.autocommit = False
            checkout_by_hand.consume(place, target, keys, part)
            target.autocommit = True

        place.check(20, "saga_by_hand")


def test_events_have_the_size_that_is_promised(place: Arena) -> None:
    sizes = {len(event.body) for event in written(KEYS * 2, place.stream)}

    assert sizes == {500}


def test_work_that_was_not_done_is_not_reported() -> None:
    with pytest.raises(RuntimeError, match="rows: 1, not 2"):
        expect(1, 2, "rows")


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        (Target("ratio", at_least=True, limit=0.5), True),
        (Target("ratio", at_least=True, limit=0.51), False),
        (Target("value", at_least=False, limit=2), True),
        (Target("value", at_least=False, limit=1.9), False),
    ],
)
def test_a_target_is_met_or_not(target: Target, is_met: bool) -> None:
    assert line_of("any", "rows/s", [2.0], [4.0], target).met is is_met


def test_a_line_holds_medians_and_the_median_of_the_rounds_ratios() -> None:
    line = line_of("any", "rows/s", [1.0, 6.0, 2.0], [2.0, 6.0, 8.0])

    assert (line.value, line.ceiling, line.ratio) == (2.0, 6.0, 0.5)


def test_a_new_measurement_replaces_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    store([lone_line("a", "ms", [1.0]), lone_line("b", "ms", [1.0])], path)

    store([lone_line("b", "ms", [2.0])], path)

    stored = json.loads(path.read_text())
    assert [(line["line"], line["value"]) for line in stored] == [("a", 1.0), ("b", 2.0)]
    assert all(set(line) == SHAPE for line in stored)


def test_a_line_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relya"]) == 2
    assert "no such line: relya; there are relay," in capsys.readouterr().err


def test_the_place_of_a_measurement_is_told_without_names(servers: Stack) -> None:
    told = where(servers)

    assert "cores" in told
    assert "PostgreSQL" in told
    assert "/" not in told
    assert "127.0.0.1" not in told


def test_a_stored_line_is_read_again(tmp_path: Path) -> None:
    line = line_of("any", "ms", [1.0], [2.0], Target("value", at_least=False, limit=5))

    assert store([line], tmp_path / "latest.json") == [line]
    assert isinstance(store([], tmp_path / "latest.json")[0], Line)
