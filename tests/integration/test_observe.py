"""Measures of real tables and streams, and the page that shows them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from labkit import db, observe
from labkit.cli import metrics
from labkit.errors import ConfigurationError
from labkit.lab.measures import frame
from labkit.lab.servers import Stack
from labkit.observe import Measure, counters, measure
from labkit.transports.redis_inspection import RedisInspection
from tests import toy
from tests.flow import Flow

RETAINED = 300_000


def value(found: list[Measure], name: str, **labels: str) -> float:
    """Return the sum of the measures with this name and these labels."""
    values = [m.value for m in found if m.name == name and labels.items() <= m.labels.items()]
    assert values, f"{name} {labels} is not among {sorted({m.name for m in found})}"
    return sum(values)


def source(flow: Flow) -> list[Measure]:
    return measure(toy.source, flow.source, RedisInspection(flow.transport))


def target(flow: Flow) -> list[Measure]:
    return measure(toy.target, flow.target, RedisInspection(flow.transport))


def sql(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_pending_rows_are_counted_by_partition_with_the_age_of_the_oldest(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1, 2)
    sql(flow.source, "update outbox_messages set created_at = created_at - interval '60 s'")
    partition = str(toy.SOURCE.partition_of("K1"))

    found = source(flow)

    assert value(found, "outbox_pending", partition=partition) == 2
    assert value(found, "outbox_pending") == 2
    assert 60 <= value(found, "outbox_oldest_pending_age", partition=partition) < 120


def test_a_published_row_is_not_pending_and_says_when_it_was_published(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1)
    assert "outbox_last_published_age" not in {each.name for each in source(flow)}

    flow.relay.run_once()

    assert value(source(flow), "outbox_pending") == 0
    assert value(source(flow), "outbox_last_published_age") < 60


def test_a_refused_row_counts_with_the_keys_that_wait_behind_it(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1, 2)
    toy.happen(flow.source, "K2", 1)
    neighbours = (f"N{n}" for n in range(100))
    partition_of = toy.SOURCE.partition_of
    neighbour = next(key for key in neighbours if partition_of(key) == partition_of("K2"))
    toy.happen(flow.source, neighbour, 1)
    sql(flow.source, "update outbox_messages set refused = 'too large' where seq in (1, 3)")

    found = source(flow)

    assert value(found, "outbox_refused") == 2
    assert value(found, "outbox_keys_waiting") == 1


def test_held_messages_are_counted_by_state_and_dead_letters_apart(flow: Flow) -> None:
    assert value(target(flow), "dead_letters", consumer="target") == 0
    toy.happen(flow.source, "K1", 1, behaviour="permanent")
    toy.happen(flow.source, "K1", 2)
    flow.deliver(flow.consumer())

    found = target(flow)

    assert value(found, "held", consumer="target", state="parked") == 1
    assert value(found, "held", consumer="target", state="waiting") == 1
    assert value(found, "dead_letters", consumer="target") == 1


def test_partitions_without_an_owner_are_idle(flow: Flow) -> None:
    flow.relay.run_once()
    assert value(source(flow), "lease_owners", kind="relay") == 1
    assert value(source(flow), "lease_idle_partitions", kind="relay") == 0

    flow.relay.leases.release()

    assert value(source(flow), "lease_idle_partitions", kind="relay") == toy.SOURCE.partitions


def test_a_group_lags_then_has_pending_entries_then_neither(flow: Flow) -> None:
    consumer = flow.consumer()
    consumer.run_once()
    toy.happen(flow.source, "K1", 1, 2)
    flow.relay.run_once()
    assert value(source(flow), "stream_length") == 2
    assert value(source(flow), "group_lag", group="target") == 2
    assert value(source(flow), "group_oldest_lag_age", group="target") > 0

    consumer.leases.release()
    flow.read_and_crash("K1")
    assert value(source(flow), "group_lag", group="target") == 0
    assert value(source(flow), "group_pending", group="target") == 2
    assert value(source(flow), "group_oldest_pending_age", group="target") > 0

    flow.deliver(flow.consumer())
    assert value(source(flow), "group_pending", group="target") == 0


def test_the_inbox_is_estimated_and_not_counted(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1, 2, 3)
    flow.deliver(flow.consumer())
    assert "inbox_rows_estimate" not in {each.name for each in target(flow)}

    sql(flow.target, "analyze inbox_messages")

    assert value(target(flow), "inbox_rows_estimate") == 3


def test_workers_count_what_they_did_by_outcome(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1, 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again()
    flow.deliver(consumer)

    found = counters([flow.relay, consumer])

    assert value(found, "relay_published", stream="source.events") == 4
    assert value(found, "consumer_messages", consumer="target", outcome="handled") == 2
    assert value(found, "consumer_messages", consumer="target", outcome="duplicates") == 2


def test_measures_become_a_table(flow: Flow) -> None:
    toy.happen(flow.source, "K1", 1)

    table = frame([*source(flow), *counters([flow.relay])])

    pending = table[table["measure"] == "outbox_pending"]
    assert pending["value"].sum() == 1
    assert set(pending["service"]) == {"source"}


@pytest.mark.slow
def test_no_question_reads_what_is_retained(flow: Flow) -> None:
    patient = db.connect(flow.source.url, lease_s=600)
    sql(
        patient,
        f"""insert into outbox_messages (message_id, topic, key, partition, body, published_at)
            select n::text, 't', n::text, n % 4, '{{}}', now() from generate_series(1, {RETAINED}) n
        """,
    )
    patient.dispose()
    toy.happen(flow.source, "K1", 1, 2)
    with flow.source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze outbox_messages")
    asked: list[tuple[str, Any]] = []

    @event.listens_for(flow.source, "before_cursor_execute")
    def _note(_c: Any, _cur: Any, statement: str, parameters: Any, _ctx: Any, _m: Any) -> None:
        asked.append((statement, parameters))

    observe.measure_database(toy.source, flow.source)
    event.remove(flow.source, "before_cursor_execute", _note)

    with flow.source.connect() as connection:
        plans = {
            statement: "\n".join(
                connection.exec_driver_sql(f"explain {statement}", parameters).scalars()
            )
            for statement, parameters in asked
        }
    about_outbox = [plan for plan in plans.values() if "outbox_messages" in plan]
    assert len(about_outbox) == 3
    assert not [plan for plan in about_outbox if "Seq Scan on outbox_messages" in plan]


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        content: bytes = answer.read()
        return content.decode()


@pytest.fixture
def port(flow: Flow) -> Iterator[int]:
    """The port of a page about the source, served by this process."""
    engine = db.connect(flow.source.url, pool_size=1)
    inspection = RedisInspection(flow.transport)
    yield metrics.serve(0, toy.source, engine, inspection, [flow.relay])
    engine.dispose()


def test_the_page_names_measures_as_prometheus_wants_them(flow: Flow, port: int) -> None:
    toy.happen(flow.source, "K1", 1, 2)
    partition = toy.SOURCE.partition_of("K1")
    before = page(port)
    assert f'labkit_outbox_pending{{partition="{partition}",service="source"}} 2.0' in before
    assert "# TYPE labkit_outbox_oldest_pending_age_seconds gauge" in before

    flow.relay.run_once()

    after = page(port)
    assert f'labkit_outbox_pending{{partition="{partition}",service="source"}} 0.0' in after
    assert 'labkit_relay_published_total{stream="source.events"} 2.0' in after
    assert 'labkit_scrape_failed{side="database"} 0.0' in after


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failing_query_costs_its_own_numbers_and_not_the_page(flow: Flow, port: int) -> None:
    toy.happen(flow.source, "K1", 1)
    flow.relay.run_once()
    sql(flow.source, "alter table held rename to gone")

    seen = page(port)

    assert 'labkit_scrape_failed{side="database"} 1.0' in seen
    assert 'labkit_scrape_failed{side="broker"} 0.0' in seen
    assert 'labkit_relay_published_total{stream="source.events"} 1.0' in seen
    sql(flow.source, "alter table gone rename to held")
    assert 'labkit_scrape_failed{side="database"} 0.0' in page(port)


def test_the_page_is_for_this_machine_only(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address")
        outward = probe.getsockname()[0]
    if outward.startswith("127."):
        pytest.skip("this machine has no other address")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outward, port), timeout=2).close()


def test_a_taken_port_is_named(flow: Flow, port: int) -> None:
    inspection = RedisInspection(flow.transport)

    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*another port"):
        metrics.serve(port, toy.source, flow.source, inspection, [])


def test_a_missing_extra_is_named(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)

    with pytest.raises(ConfigurationError, match=r"pip install labkit-session7\[metrics\]"):
        metrics.serve(0, toy.source, flow.source, RedisInspection(flow.transport), [])


def test_a_worker_process_serves_its_page_until_it_ends(flow: Flow, servers: Stack) -> None:
    environment = os.environ | {
        "LABKIT_DATABASE_URL": servers.database_url,
        "LABKIT_REDIS_URL": servers.redis_url,
    }
    options = [f"--database={flow.source.url.database}", f"--prefix={flow.transport.prefix}"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "labkit", "run", "tests.toy:source", *options, "--metrics-port=0"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    place = worker.stderr.readline().strip()

    seen = page(int(place.rpartition(":")[2].removesuffix("/metrics")))
    worker.send_signal(signal.SIGTERM)

    assert place.startswith("metrics at http://127.0.0.1:")
    assert "labkit_relay_published_total" in seen
    assert worker.wait(timeout=60) == 0
    worker.stderr.close()
