"""What the notebooks measure, where running the notebook alone would not show a fault."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from labkit.errors import LabkitError
from labkit.lab import experiments, observations, speed
from labkit.lab.bench import Bench
from labkit.lab.servers import Stack


@pytest.fixture
def bench(servers: Stack) -> Iterator[Bench]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    made = Bench(f"ensayo_{worker}", servers=servers)
    yield made
    if servers.source == "environment":
        made.delete()
    made.lose_streams()
    made.close()


def test_a_relay_process_that_dies_marks_nothing_and_the_next_one_goes_on_at_once(
    bench: Bench,
) -> None:
    bench.place("ORD-1", ("BOOK-DDD", 1))

    told = [
        experiments.relay_process(bench, dies_in="relay.after_publish"),
        experiments.relay_process(bench),
    ]

    assert told == [
        "repetidor · 1 publicado · 0 marcados · muerto en after_publish",
        "repetidor · 1 publicado · 1 marcado · terminó",
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


def test_units_are_counted_and_not_lines_and_only_while_they_are_held(bench: Bench) -> None:
    bench.place("ORD-1", ("BOOK-DDD", 2))
    bench.settle()
    held = observations.noted_and_held(bench, "RES-1").values.tolist()
    bench.cancel("ORD-1")
    bench.settle()

    assert held == [["RES-1", True, 2]]
    assert observations.noted_and_held(bench, "RES-1").values.tolist() == [["RES-1", True, 0]]


def test_a_trace_begins_with_the_request_whatever_came_later(bench: Bench) -> None:
    numbers = (f"m-{n}" for n in range(9, 99))
    bench.orders.update_execution_options(labkit_new_id=lambda: next(numbers))
    bench.place("ORD-1", ("BOOK-DDD", 2))
    bench.settle()  # writes m-10, which sorts before m-9

    assert observations.traced(bench, "RES-1").root.type == "ReserveStockRequested"


def test_a_crash_point_that_nobody_passes_is_an_error(bench: Bench) -> None:
    with pytest.raises(LabkitError, match="is 'relay_misspelt' a crash point"):
        experiments.relay_process(bench, dies_in="relay_misspelt")
