"""What doctor sees of services, on databases named as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import redis
from sqlalchemy import Engine, create_engine, text
from typer.testing import CliRunner

from labkit import db
from labkit.cli.servers import app
from labkit.lab import doctor, server_health
from labkit.lab.preconditions import Check
from labkit.lab.servers import Stack, down, stack
from labkit.lab.service_checks import checks
from labkit.lab.sites import existing
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams, connect
from tests import toy

PREFIX = "checks:"
SERVICES = (toy.source, toy.target)


@pytest.fixture
def client(running: Stack) -> Iterator[redis.Redis]:
    opened = connect(running.redis_url)
    yield opened
    for key in opened.scan_iter(match=f"*{PREFIX}*", count=1000):
        opened.delete(key)
    opened.close()


@pytest.fixture
def engine(running: Stack) -> Iterator[Engine]:
    """The source's database, with its tables."""
    made = db.connect(running.database(toy.source.name))
    toy.source.create_tables(made)
    yield made
    made.dispose()
    running.drop_database(toy.source.name)


def failed(running: Stack, *services: Service) -> dict[str, Check]:
    found = checks(running, services or SERVICES, PREFIX)
    return {check.name: check for check in found if not check.ok}


def publish(engine: Engine, client: redis.Redis) -> str:
    """Publish one event; return the key of its stream."""
    toy.happen(engine, "K1", 1)
    streams = RedisStreams(client, PREFIX)
    relay = toy.source.relay(engine, streams)
    relay.run_once()
    relay.leases.release()
    return streams.stream_key(toy.SOURCE, toy.SOURCE.partition_of("K1"))


def test_a_service_without_a_database_is_left_out_and_gets_none(running: Stack) -> None:
    assert checks(running, SERVICES, PREFIX) == []
    assert existing(running, ["source", "target"]) == set()


def test_a_healthy_service_passes_every_check(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    publish(engine, client)

    found = checks(running, SERVICES, PREFIX)

    assert {check.name for check in found} == {
        f"source {what}"
        for what in (
            *("schema", "claim", "retention", "groups", "readers", "consumer names"),
            "trimming",
        )
    }
    assert [check for check in found if not check.ok] == []


def test_another_schema_version_is_named(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    with engine.begin() as connection:
        connection.execute(text("update labkit_schema set version = 999"))

    found = failed(running)

    assert "labkit schema 999, newer" in found["source schema"].detail
    assert list(found) == ["source schema"]


def test_a_claim_without_its_index_is_a_warning_once_the_table_is_large(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    fill = """insert into outbox_messages (message_id, topic, key, partition, body, published_at)
              select n::text, 't', n::text, n %% 4, '{}', now() from generate_series(1, 20000) n"""
    with engine.begin() as connection:
        connection.exec_driver_sql(fill)
        connection.exec_driver_sql("analyze outbox_messages")
    assert failed(running) == {}

    with engine.begin() as connection:
        connection.exec_driver_sql("drop index outbox_messages_unpublished")

    found = failed(running)["source claim"]
    assert found.level == "warning"
    assert "20000 rows" in found.detail


@pytest.mark.parametrize("window_s", [14 * 86_400, 60])
def test_what_is_older_than_the_inbox_window_is_a_warning(
    running: Stack,
    engine: Engine,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    window_s: float,
) -> None:
    monkeypatch.setattr(toy.source, "retention", SimpleNamespace(window_s=window_s), raising=False)
    toy.happen(engine, "K1", 1)
    with engine.begin() as connection:
        age = f"interval '{window_s - 30} s'"
        connection.exec_driver_sql(f"update outbox_messages set created_at = now() - {age}")
    assert failed(running) == {}

    with engine.begin() as connection:
        connection.exec_driver_sql(
            "update outbox_messages set created_at = created_at - '60 s'::interval"
        )

    assert "oldest unpublished" in failed(running)["source retention"].detail


def test_a_group_that_no_service_names_is_leaked(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    key = publish(engine, client)
    client.xgroup_create(key, "target", id="0")
    assert failed(running) == {}

    client.xgroup_create(key, "forgotten", id="0")

    assert failed(running)["source groups"].detail == "nobody reads as forgotten"


def test_a_group_is_leaked_unless_its_service_is_named(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    client.xgroup_create(publish(engine, client), "target", id="0")

    assert list(failed(running, toy.source)) == ["source groups"]


def test_a_group_that_lags_for_long_is_named_with_its_partition(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    publish(engine, client)
    streams = RedisStreams(client, PREFIX)
    other = next(p for p in range(4) if p != toy.SOURCE.partition_of("K1"))
    key = streams.stream_key(toy.SOURCE, other)
    seconds, _ = client.time()
    client.xadd(key, {"body": "{}"}, id=f"{(int(seconds) - 7200) * 1000}-1")
    client.xgroup_create(key, "target", id="0")

    found = failed(running)["source readers"]

    assert found.detail.startswith(f"target, partition {other}: 72")


def test_entries_that_a_stranger_deleted_are_shown_as_the_cleaner_saw_them(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    key = publish(engine, client)
    client.xgroup_create(key, "target", id="0")
    client.xtrim(key, maxlen=0)
    toy.source.cleaner(engine, RedisStreams(client, PREFIX)).run_once()

    found = failed(running)["source trimming"]

    partition = toy.SOURCE.partition_of("K1")
    assert found.detail == f"partition {partition}, target: 1 entries were deleted by somebody else"
    assert "labkit outbox reconcile" in found.remedy


def test_names_of_readers_that_are_not_ours_are_counted(
    running: Stack, engine: Engine, client: redis.Redis
) -> None:
    key = publish(engine, client)
    client.xgroup_create(key, "target", id="0")
    for name in ("owner", "host-1", "host-2"):
        client.xgroup_createconsumer(key, "target", name)

    assert (
        failed(running)["source consumer names"].detail == "2 besides ours, such as target/host-1"
    )


def test_a_stranger_s_password_is_not_shown(running: Stack, engine: Engine) -> None:
    wrong = Stack(running.database_url, "redis://:hush@127.0.0.1:1/0", running.source, running.home)

    found = checks(wrong, SERVICES, PREFIX)

    assert [check.ok for check in found] == [False]
    assert "hush" not in repr(found)


@pytest.fixture
def superuser(running: Stack) -> Iterator[psycopg.Connection]:
    with psycopg.connect(running.database_url.replace("+psycopg", ""), autocommit=True) as conn:
        yield conn


def test_a_transaction_that_stays_open_is_named_with_its_program(
    running: Stack, superuser: psycopg.Connection
) -> None:
    other = running.database_url.replace("+psycopg", "")
    with psycopg.connect(other, application_name="report") as idle:
        idle.execute("select 1")
        pid = idle.info.backend_pid

        found = server_health.open_transactions(superuser, longest_s=0.0)
        young = server_health.open_transactions(superuser)

    assert not found.ok
    assert found.detail.startswith(f"pid {pid} (report), open for")
    assert young.ok


def test_a_redis_that_is_almost_full_is_a_warning(running: Stack, client: redis.Redis) -> None:
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used * 10)
    roomy = server_health.memory(client)
    client.config_set("maxmemory", used + 1000)
    found = server_health.memory(client)
    client.config_set("maxmemory", 0)

    assert roomy.ok
    assert (found.ok, found.level) == (False, "warning")


def test_forgotten_prepared_transactions_and_missing_commit_times_are_warnings(
    home: Path,
) -> None:
    plain = stack(home).database_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as conn:
        conn.execute("alter system set max_prepared_transactions = 2")
        conn.execute("alter system set track_commit_timestamp = off")
    down(home)
    plain = stack(home).database_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as conn:
        conn.execute("begin")
        conn.execute("create table t ()")
        conn.execute("prepare transaction 'forgotten'")

    found = {c.name: c for c in doctor.checks(stack(home)) if not c.ok}

    assert set(found) == {
        "PostgreSQL prepared transactions",
        "PostgreSQL track_commit_timestamp",
    }
    assert found["PostgreSQL prepared transactions"].detail.startswith("forgotten, prepared")
    assert {check.level for check in found.values()} == {"warning"}


@pytest.fixture
def labkit(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("LABKIT_HOME", str(shared_home))
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_command_doctor_looks_at_the_services_it_is_given(
    labkit: CliRunner, running: Stack, engine: Engine
) -> None:
    result = labkit.invoke(app, ["doctor", "--service=tests.toy:source", f"--prefix={PREFIX}"])

    assert result.exit_code == 0
    assert "source claim" in result.output


def test_command_doctor_makes_no_database(labkit: CliRunner, running: Stack) -> None:
    assert labkit.invoke(app, ["doctor"]).exit_code == 0

    admin = create_engine(running.database_url)
    with admin.connect() as connection:
        names = set(connection.execute(text("select datname from pg_database")).scalars())
    admin.dispose()
    assert names & {"fulfillment", "inventory"} == set()


def test_command_up_says_which_named_server_is_silent(
    labkit: CliRunner, running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATABASE_URL", running.database_url)
    monkeypatch.setenv("LABKIT_REDIS_URL", "redis://:hush@127.0.0.1:1/0")

    result = labkit.invoke(app, ["up"])

    assert result.exit_code == 1
    assert result.stderr.startswith("Redis at 127.0.0.1:1: no answer")
    assert "PostgreSQL" not in result.stderr
    assert "hush" not in result.output

    monkeypatch.setenv("LABKIT_REDIS_URL", running.redis_url)
    assert labkit.invoke(app, ["up"]).exit_code == 0


@pytest.mark.parametrize("command", [["down"], ["reset", "--yes"]])
def test_a_home_that_cannot_be_read_is_one_line_and_no_traceback(
    labkit: CliRunner, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    # A name that no file system takes: unlike a missing right, it stops root too.
    monkeypatch.setenv("LABKIT_HOME", "/tmp/" + "x" * 300)

    result = labkit.invoke(app, command)

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "set LABKIT_HOME to a directory that you may read and write" in result.stderr
    assert isinstance(result.exception, SystemExit)
