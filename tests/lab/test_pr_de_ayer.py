"""Yesterday's pull request: its tests are green, and each of its three faults is real."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from labkit.lab import pr_de_ayer
from labkit.lab.bench import STOCK, Bench
from labkit.lab.servers import Stack
from labkit.ports import Stream
from labkit.shop.contracts import FULFILLMENT, INVENTORY
from labkit.testing.audit import audit

BETWEEN = "pr.between_save_and_publish:kill:@1"
ORD_4, ORD_5 = [("BOOK-HEX", 2)], [("BOOK-DDD", 1)]
Messages = Callable[[Stream], list[dict[str, Any]]]


@pytest.fixture
def bench(running: Stack) -> Iterator[Bench]:
    made = Bench("pr_de_ayer", servers=running)
    yield made
    made.close()


@pytest.fixture
def messages(bench: Bench) -> Messages:
    """Return a function that reads a stream's messages: type and payload."""

    def read(stream: Stream) -> list[dict[str, Any]]:
        log = bench.transport.log(stream)
        found = [e for p in range(stream.partitions) for e in log.entries(p, after="0", count=9)]
        events = [json.loads(entry.body or b"")["event"] for entry in found]
        return [{"type": each["type"]} | each["payload"] for each in events]

    return read


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_its_own_tests_run_and_pass(bench: Bench) -> None:
    results = pr_de_ayer.run_tests(bench)

    assert [row.passed for row in results] == [True] * 4
    assert "| el inventario retiene las unidades | verde |" in results._repr_markdown_()
    assert repr(results).count("verde") == 4


def test_its_own_tests_can_fail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(*_arguments: object) -> None:
        """Do nothing."""

    monkeypatch.setattr("labkit.lab.pr_de_ayer.code.reserve", forget)

    results = pr_de_ayer.run_tests(bench)

    assert [row.passed for row in results] == [True, False, False, False]


def test_its_own_tests_leave_the_books_alone(bench: Bench) -> None:
    pr_de_ayer.run_tests(bench)

    assert rows(bench.orders, "select * from orders") == []


def test_while_nothing_happens_it_works_and_labkit_applies_its_answers(bench: Bench) -> None:
    lines = [("BOOK-DDD", 1), ("BOOK-EDA", 1)]
    pr_de_ayer.place_order(bench.orders, bench.transport, "ORD-2", lines)
    pr_de_ayer.attend(bench.stock, bench.transport)
    bench.settle()

    assert rows(bench.orders, "select status from orders") == [("RESERVED",)]
    found = audit(bench.orders, bench.stock, bench.transport, STOCK)
    assert found["stock is conserved"] is None


def test_f1_killed_between_the_two_lines_the_order_has_no_message(
    bench: Bench, messages: Messages
) -> None:
    ended = bench.apart(bench.orders, pr_de_ayer.place_order, "ORD-4", ORD_4, faults=BETWEEN)

    assert ended == -signal.SIGKILL
    assert rows(bench.orders, "select order_id from orders") == [("ORD-4",)]
    assert messages(FULFILLMENT) == []


def test_f1_not_killed_the_same_process_sends_it(bench: Bench, messages: Messages) -> None:
    ended = bench.apart(bench.orders, pr_de_ayer.place_order, "ORD-4", ORD_4)

    assert ended == 0
    assert [each["reservationId"] for each in messages(FULFILLMENT)] == ["RES-4"]


def test_f1_the_other_way_round_a_message_has_no_order(bench: Bench, messages: Messages) -> None:
    announce = pr_de_ayer.announce_then_place
    ended = bench.apart(bench.orders, announce, "ORD-5", ORD_5, faults=BETWEEN)
    pr_de_ayer.attend(bench.stock, bench.transport)

    assert ended == -signal.SIGKILL
    assert [each["reservationId"] for each in messages(FULFILLMENT)] == ["RES-5"]
    assert rows(bench.orders, "select order_id from orders") == []
    held = "select held from stock where sku = 'BOOK-DDD'"
    assert rows(bench.stock, held) == [(1,)]


def test_f2_killed_between_note_and_effect_the_reservation_never_happens(
    bench: Bench, messages: Messages
) -> None:
    pr_de_ayer.place_order(bench.orders, bench.transport, "ORD-1", [("BOOK-DDD", 2)])
    killed = bench.apart(bench.stock, pr_de_ayer.attend, faults="pr.before_reserving:kill:@1")
    assert (killed, _pending(bench)) == (-signal.SIGKILL, 1)

    pr_de_ayer.attend(bench.stock, bench.transport)

    assert _pending(bench) == 0
    noted = "select message_id from inbox_messages"
    assert rows(bench.stock, noted) == [("RES-1:ReserveStockRequested:v1",)]
    assert rows(bench.stock, "select * from reservation_lines") == []
    assert messages(INVENTORY) == []


def test_f3_a_lost_connection_is_told_as_no_stock(bench: Bench, messages: Messages) -> None:
    lines = [("BOOK-DDD", 1), ("BOOK-EDA", 1)]
    pr_de_ayer.place_order(bench.orders, bench.transport, "ORD-2", lines)
    cuts = _cut_connection(bench, "BOOK-EDA")

    pr_de_ayer.attend(bench.stock, bench.transport)

    assert len(cuts) == 1
    assert [(each["type"], each["sku"]) for each in messages(INVENTORY)] == [
        ("StockReserved", "BOOK-DDD"),
        ("StockReservationRejected", "BOOK-EDA"),
    ]
    assert messages(INVENTORY)[1]["reason"] == "OUT_OF_STOCK"
    assert rows(bench.stock, "select available from stock where sku = 'BOOK-EDA'") == [(5,)]


def _pending(bench: Bench) -> int:
    """Return how many requests were read and not acknowledged."""
    keys = [bench.transport.stream_key(FULFILLMENT, p) for p in range(FULFILLMENT.partitions)]
    client: Any = bench.transport.client
    groups = [group for key in keys if client.exists(key) for group in client.xinfo_groups(key)]
    return sum(group["pending"] for group in groups)


def _cut_connection(bench: Bench, sku: str) -> list[int]:
    """Let PostgreSQL end the connection on which this article is about to be taken, once."""
    cuts: list[int] = []

    def cut(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if cuts or "UPDATE stock" not in statement or sku not in parameters.values():
            return
        backend = connection.connection.driver_connection.info.backend_pid
        cuts.append(backend)
        with bench.orders.connect() as other:
            other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": backend})

    event.listen(bench.stock, "before_cursor_execute", cut)
    return cuts
