"""One message's way, as it is on record, through real services."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from labkit.clock import FakeClock
from labkit.errors import ConfigurationError
from labkit.lab import sequence
from labkit.lab.entries import Entries
from labkit.lab.records import Records
from labkit.lab.servers import Stack
from labkit.lab.sites import Site
from labkit.lab.trace import Moment, Trace, Traced, trace
from labkit.shop import fulfillment, inventory
from tests import commands, toy
from tests.flow import Flow
from tests.integration.conftest import Shop

PNG = b"\x89PNG"
SMALLEST_POINTS = 12


def of_shop(shop: Shop, message_id: str) -> Trace:
    sites = [Site(fulfillment.service, shop.orders), Site(inventory.service, shop.stock)]
    return trace(message_id, sites, Entries(shop.transport))


def of_flow(flow: Flow, message_id: str) -> Trace:
    sites = [Site(toy.source, flow.source), Site(toy.target, flow.target)]
    return trace(message_id, sites, Entries(flow.transport))


def request_of(shop: Shop, order: str) -> str:
    """Return the id of the request for an order's stock."""
    columns = fulfillment.service.outbox.table.c
    query = select(columns.message_id).where(columns.key == order.replace("ORD", "RES"))
    with shop.orders.connect() as connection:
        found: str = connection.execute(query.order_by(columns.seq)).scalars().first() or ""
        return found


def shape(node: Traced) -> object:
    return (node.type, [shape(each) for each in node.caused])


def moments(node: Traced, what: str) -> list[Moment]:
    return [moment for moment in node.moments if moment.what == what]


def sql(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.fixture
def settled(shop: Shop) -> Shop:
    """A shop with one order, all the way through."""
    shop.place("ORD-1", ("BOOK-DDD", 1))
    shop.settle()
    return shop


def test_request_answer_change_and_view_are_one_tree(settled: Shop) -> None:
    found = of_shop(settled, request_of(settled, "ORD-1"))

    change: tuple[str, list[Any]] = ("OrderStatusChanged", [])
    assert shape(found.root) == ("ReserveStockRequested", [("StockReserved", [change])])
    last = list(found.root.walk())[-1]
    assert moments(last, "received")[0].where == "order_status_view"
    assert found.notes == ()


def test_every_step_has_the_time_that_is_on_record_and_they_follow_each_other(
    settled: Shop,
) -> None:
    message = of_shop(settled, request_of(settled, "ORD-1")).root

    assert [moment.what for moment in message.moments] == [
        "appended", "committed", "published", "marked", "received", "effect committed",
        "acknowledged",
    ]  # fmt: skip
    times = [moment.at for moment in message.moments if moment.at]
    assert len(times) == 6
    assert times[:2] == sorted(times[:2])
    # Redis notes whole milliseconds: its time may be cut by one.
    assert times[1] - timedelta(milliseconds=1) <= times[2] <= times[3]
    assert times[3:] == sorted(times[3:])
    assert all(datetime.now(UTC) - timedelta(minutes=5) < at <= datetime.now(UTC) for at in times)


def test_a_time_that_nobody_wrote_down_stays_unknown(settled: Shop) -> None:
    message = of_shop(settled, request_of(settled, "ORD-1")).root

    (acknowledged,) = moments(message, "acknowledged")
    assert (acknowledged.at, acknowledged.happened) == (None, True)


def test_a_trace_from_the_middle_shows_what_came_before(settled: Shop) -> None:
    whole = of_shop(settled, request_of(settled, "ORD-1"))
    answer = whole.root.caused[0]

    found = of_shop(settled, answer.message_id)

    assert shape(found.root) == shape(whole.root)
    assert [node.type for node in found.root.walk() if node.asked] == ["StockReserved"]


def test_the_beginning_of_an_id_is_enough_when_it_is_unique(settled: Shop) -> None:
    message_id = request_of(settled, "ORD-1")

    assert of_shop(settled, message_id[:-2]).root.message_id == message_id
    with pytest.raises(ConfigurationError, match="write more"):
        of_shop(settled, message_id[:2])


@pytest.mark.parametrize("wildcard", ["%", "_", "!"])
def test_a_wildcard_is_no_beginning(settled: Shop, wildcard: str) -> None:
    with pytest.raises(ConfigurationError, match="is on record in fulfillment, inventory"):
        of_shop(settled, wildcard)


def test_what_has_not_happened_is_not_yet(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)

    message = of_flow(flow, message_id).root

    assert [(m.what, m.happened) for m in message.moments] == [
        ("appended", True), ("committed", True), ("marked", False), ("received", False),
    ]  # fmt: skip


def test_published_twice_shows_twice(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.relay.run_once()
    flow.publish_again()

    message = of_flow(flow, message_id).root

    published = moments(message, "published")
    assert len({moment.note for moment in published}) == 2
    assert len(moments(message, "marked")) == 1


def test_a_neighbour_that_names_the_id_in_its_payload_is_not_the_message(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.relay.run_once()
    key = flow.transport.stream_key(toy.SOURCE, toy.SOURCE.partition_of("K1"))
    flow.transport.client.xadd(key, {"body": foreign({"messageId": message_id})})

    assert len(moments(of_flow(flow, message_id).root, "published")) == 1


def test_a_message_that_names_the_id_in_its_payload_was_not_caused_by_it(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.deliver(flow.consumer())
    for headers in ({}, {"causationId": message_id}):
        body = foreign({"causationId": message_id}, headers)
        with flow.target.begin() as connection:
            connection.execute(
                text(
                    "insert into outbox_messages (message_id, topic, key, partition, body)"
                    " values (:id, 't', 'K1', 0, :body)"
                ),
                {"id": json.loads(body)["messageId"], "body": body},
            )

    root = of_flow(flow, message_id).root

    assert [(each.type, each.cause) for each in root.caused] == [("Foreign", message_id)]


def foreign(payload: dict[str, str], headers: dict[str, str] | None = None) -> str:
    """Return a message whose payload has fields of the envelope."""
    event = {"type": "Foreign", "version": 1, "payload": payload}
    message = {"messageId": str(uuid.uuid4()), "headers": headers or {}, "event": event}
    return json.dumps(message, separators=(",", ":"))


def test_a_stream_is_read_around_the_time_of_the_message(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.relay.run_once()
    entries, soon = Entries(flow.transport), datetime.now(UTC) + timedelta(hours=1)
    partition = toy.SOURCE.partition_of("K1")

    found = entries.find(toy.SOURCE, partition, message_id, soon, soon + timedelta(hours=1))

    assert found == ([], True)


def test_what_a_crashed_consumer_read_is_delivered_and_not_acknowledged(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.relay.run_once()
    flow.read_and_crash("K1")

    (delivered,) = moments(of_flow(flow, message_id).root, "delivered")

    assert delivered.at is not None
    assert delivered.note.endswith("1 times, not acknowledged")


def test_a_dead_letter_shows_with_its_attempts_and_reason(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1, behaviour="permanent error")
    flow.deliver(flow.consumer())

    message = of_flow(flow, message_id).root

    (held,), (dead,) = moments(message, "held"), moments(message, "dead letter")
    assert held.at is not None
    assert held.note == "parked, attempts: 1"
    assert dead.at is None
    assert "permanent error" in dead.note
    assert moments(message, "received") == []


def test_a_message_that_nobody_here_sent_shows_where_it_was_handled(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.deliver(flow.consumer())
    sql(flow.source, "delete from outbox_messages")

    found = of_flow(flow, message_id)

    assert [m.what for m in found.root.moments] == ["received", "effect committed"]
    assert found.notes == (f"{message_id} is in none of these outboxes",)


def test_an_entry_that_was_trimmed_is_said_to_be_gone(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    flow.deliver(flow.consumer())
    flow.lose_redis()

    found = of_flow(flow, message_id)

    assert moments(found.root, "published") == []
    assert "trimmed or lost" in found.notes[0]


def test_a_commit_before_its_own_row_is_no_time(flow: Flow) -> None:
    (message_id,) = toy.happen(flow.source, "K1", 1)
    sql(flow.source, "update outbox_messages set created_at = now() + interval '1 hour'")

    (committed,) = moments(of_flow(flow, message_id).root, "committed")

    assert (committed.at, committed.happened) == (None, True)


def test_the_first_row_since_a_time_is_found_by_halving_in_spite_of_gaps(flow: Flow) -> None:
    toy.happen(flow.source, "K1", *range(50))
    sql(flow.source, "delete from outbox_messages where seq % 3 = 0")
    stretched = "now() - interval '1 day' + seq * interval '1 s'"
    sql(flow.source, f"update outbox_messages set created_at = {stretched}")
    with flow.source.connect() as connection:
        rows = connection.execute(text("select seq, created_at from outbox_messages order by seq"))
        known = [(int(row[0]), row[1]) for row in rows]

    records = Records(Site(toy.source, flow.source))
    found = [records._seq_at(at) for _, at in known]
    records.close()

    earlier = [0, *(seq for seq, _ in known)]
    assert all(
        before < seq <= own for before, seq, (own, _) in zip(earlier, found, known, strict=False)
    )


def test_the_diagram_puts_answers_after_their_questions(settled: Shop) -> None:
    found = of_shop(settled, request_of(settled, "ORD-1"))

    arrows = [(s.source, s.target, s.label) for s in sequence.steps(found) if s.source != s.target]

    assert arrows == [
        ("fulfillment", "fulfillment.events", "ReserveStockRequested"),
        ("fulfillment.events", "inventory", "ReserveStockRequested"),
        ("inventory", "inventory.events", "StockReserved"),
        ("inventory.events", "fulfillment", "StockReserved"),
        ("fulfillment", "fulfillment.events", "OrderStatusChanged"),
        ("fulfillment.events", "order_status_view", "OrderStatusChanged"),
    ]


def test_a_time_that_redis_cut_to_milliseconds_does_not_turn_the_diagram_around() -> None:
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    committed, cut = midnight + timedelta(microseconds=1700), midnight + timedelta(milliseconds=1)
    message = Traced("1", "Happened", service="source", stream="source.events:0")
    message.moments = [Moment("committed", "source", committed), Moment("published", "-", cut)]

    drawn = sequence.steps(Trace(message))

    assert [(step.label, step.at) for step in drawn] == [
        ("committed", committed),
        ("Happened", cut),
    ]


def test_mermaid_holds_every_step_and_what_has_no_time(settled: Shop) -> None:
    found = of_shop(settled, request_of(settled, "ORD-1"))

    lines = sequence.mermaid(found, {"acknowledged": "confirmado; #1"}).splitlines()

    assert lines[0] == "sequenceDiagram"
    assert lines[1] == "    participant p0 as fulfillment"
    assert sum("->>" in line for line in lines) == 6
    assert lines[-1].endswith("? confirmado#59; #35;1 ×3")


def test_the_figure_is_legible_and_nothing_overlaps(settled: Shop) -> None:
    figure = sequence.draw(of_shop(settled, request_of(settled, "ORD-1")))

    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [t for t in axes.texts if t.get_text()]
    boxes = [t.get_window_extent() for t in texts]
    assert min(float(t.get_fontsize()) for t in texts) >= SMALLEST_POINTS
    page = figure.bbox
    assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 for b in boxes)
    overlapping = [
        (one.get_text(), other.get_text())
        for n, (one, a) in enumerate(zip(texts, boxes, strict=True))
        for other, b in list(zip(texts, boxes, strict=True))[n + 1 :]
        if a.overlaps(b)
    ]
    assert overlapping == []


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(settled: Shop, servers: Stack) -> Command:
    """Run `labkit outbox` on the shop."""
    environment = os.environ | {
        "LABKIT_DATABASE_URL": servers.database_url,
        "LABKIT_REDIS_URL": servers.redis_url,
        "NO_COLOR": "1",
        "COLUMNS": "80",
    }
    where = [
        f"--database={settled.orders.url.database}",
        f"--database={settled.stock.url.database}",
        f"--prefix={settled.name}:",
    ]

    def run(*arguments: str, options: Sequence[str] = where) -> subprocess.CompletedProcess[str]:
        return commands.labkit(environment, "outbox", *arguments, *options)

    return run


def test_command_trace_shows_a_tree_within_80_columns(settled: Shop, command: Command) -> None:
    result = command("trace", request_of(settled, "ORD-1"))

    assert result.returncode == 0
    assert "ReserveStockRequested  ← asked for" in result.stdout
    assert "└── StockReserved" in result.stdout
    assert "time unknown" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_command_trace_prints_json_and_draws(
    settled: Shop, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "trace.png"

    result = command("trace", request_of(settled, "ORD-1"), "--json", f"--png={file}")

    root = json.loads(result.stdout)["root"]
    assert (root["type"], root["caused"][0]["type"]) == ("ReserveStockRequested", "StockReserved")
    assert datetime.fromisoformat(root["moments"][0]["at"]).tzinfo is not None
    assert file.read_bytes()[:4] == PNG


def test_command_trace_prints_mermaid(settled: Shop, command: Command) -> None:
    result = command("trace", request_of(settled, "ORD-1"), "--mermaid")

    assert result.stdout.startswith("sequenceDiagram\n")


def test_command_trace_of_an_unknown_id_is_one_line_with_a_remedy(command: Command) -> None:
    result = command("trace", "nothing")

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "check the id, --service and --database" in result.stderr


def test_command_stats_shows_both_services_within_80_columns(command: Command) -> None:
    result = command("stats", "--partitions")

    assert result.returncode == 0
    assert [line.strip() for line in result.stdout.splitlines() if line.strip() in {
        "fulfillment", "inventory"}] == ["fulfillment", "inventory"]  # fmt: skip
    assert "lag 0, pending 0" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_command_stats_prints_measures_as_json(command: Command) -> None:
    found = json.loads(command("stats", "--json").stdout)

    published = [m for m in found if m["name"] == "stream_length"]
    assert {m["labels"]["service"] for m in published} == {"fulfillment", "inventory"}
    assert sum(m["value"] for m in published) == 3


def test_command_stats_creates_no_database(command: Command, servers: Stack) -> None:
    missing = ["--service=tests.toy:source", "--database=nowhere"]

    for _ in range(2):
        result = command("stats", options=missing)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "there is no database nowhere" in result.stderr


def test_command_reconcile_names_what_is_missing_and_its_relay_sends_it_again(
    command: Command, settled: Shop, clock: FakeClock
) -> None:
    partition = fulfillment.service.stream.partition_of("RES-1")
    key = settled.transport.stream_key(fulfillment.service.stream, partition)
    client: Any = settled.transport.client
    before = client.xlen(key)
    client.xdel(key, client.xrange(key, count=1)[0][0])

    result = command("reconcile", "--json")

    report = json.loads(result.stdout)["fulfillment"]
    assert (result.returncode, report["missing"], report["too_old"]) == (0, 1, 0)
    clock.advance(60)
    settled.settle()
    assert client.xlen(key) >= before
    assert json.loads(command("reconcile", "--json").stdout)["fulfillment"]["missing"] == 0
