"""What the notebooks measure, where running the notebook alone would not show a fault."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest

from labkit.lab import experiments, observations, speed
from labkit.lab.bench import Bench
from labkit.lab.servers import Stack


@pytest.fixture
def bench(servers: Stack) -> Iterator[Bench]:
    made = Bench(f"ensayo_{uuid.uuid4().hex[:8]}", servers=servers)
    yield made
    made.close()
    made.delete()


def test_a_relay_process_that_dies_marks_nothing_and_the_next_one_goes_on_at_once(
    bench: Bench,
) -> None:
    bench.place("ORD-1", ("BOOK-DDD", 1))

    told = [
        experiments.relay_process(bench, dies_in="relay.after_publish"),
        experiments.relay_process(bench),
    ]

    assert told == [
        "repetidor · 0 marcados · muerto en after_publish",
        "repetidor · 1 marcado · terminó",
    ]
    assert observations.repeated(bench) == ["RES-1"]


def test_a_view_is_behind_while_its_own_service_rests(bench: Bench) -> None:
    bench.place("ORD-1", ("BOOK-DDD", 1))
    seen = observations.seen_from_outside(bench, "ORD-1")

    assert seen == {"filas del pedido": 1, "filas de su evento": 1}
    assert observations.in_both_services(bench, "ORD-1").values.tolist() == [
        ["ORD-1", 0, "RESERVATION_PENDING"]
    ]


def test_latencies_leave_no_thread_and_nothing_in_the_books(bench: Bench) -> None:
    before = threading.active_count()

    found = speed.latencies_ms(bench, notify=True, events=5)

    assert len(found) == 5
    assert threading.active_count() == before
    assert (
        "lab_ticks"
        not in bench.table(
            bench.orders, "select tablename from pg_tables where schemaname = 'public'"
        )["tablename"].tolist()
    )
    assert not list(bench.transport.client.scan_iter(match="*lab.ticks*"))
