from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import make_url
from typer.testing import CliRunner

from labkit.cli.servers import app
from labkit.lab import preconditions
from labkit.lab.doctor import Check, checks
from labkit.lab.servers import Stack, down, stack, status

NOWHERE = "redis://:hush@127.0.0.1:1/0"


def failed(running: Stack) -> list[Check]:
    return [check for check in checks(running) if not check.ok]


def names(found: list[Check]) -> set[str]:
    return {check.name for check in found}


@pytest.fixture
def client(running: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(running.redis_url) as opened:
        yield opened


@pytest.fixture
def altered(running: Stack) -> Iterator[psycopg.Connection]:
    """A superuser whose changed settings are undone."""
    plain = running.database_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as conn:
        yield conn
        conn.execute("alter system reset all")
        conn.execute("select pg_reload_conf()")


def test_embedded_servers_meet_every_precondition(running: Stack) -> None:
    assert failed(running) == []


def test_every_check_names_its_remedy(running: Stack) -> None:
    assert all(
        len(check.remedy.split()) > 3 for check in checks(running) if check.name != "hiredis"
    )
    assert len(names(checks(running))) == len(checks(running))


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync"])
def test_a_durability_setting_that_is_off_breaks_the_promise(
    running: Stack, altered: psycopg.Connection, setting: str
) -> None:
    altered.execute(f"alter system set {setting} = off")
    altered.execute("select pg_reload_conf()")

    # The reload reaches new connections at once or a moment later.
    found = next(seen for _ in range(1000) if (seen := failed(running)))

    assert [(check.name, check.level) for check in found] == [(f"PostgreSQL {setting}", "error")]


def test_a_missing_append_only_file_is_a_warning_that_names_reconcile(
    running: Stack, client: redis.Redis
) -> None:
    client.config_set("appendonly", "no")
    (found,) = failed(running)
    client.config_set("appendonly", "yes")

    assert found.level == "warning"
    assert "reconcile" in found.remedy


def test_an_evicting_redis_breaks_the_promise(running: Stack, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    (found,) = failed(running)
    client.config_set("maxmemory-policy", "noeviction")

    assert (found.name, found.level) == ("Redis maxmemory-policy", "error")


def test_a_read_only_replica_breaks_the_promise(running: Stack, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    found = failed(running)
    client.replicaof("NO", "ONE")

    assert names(found) == {"Redis role"}


def test_a_command_that_is_missing_is_named(
    running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preconditions, "_COMMANDS", ("xadd", "xfly"))

    (found,) = failed(running)

    assert found.detail == "missing: xfly"


def test_a_server_that_is_away_is_one_failed_check(running: Stack) -> None:
    found = failed(replace(running, redis_url=NOWHERE))

    assert names(found) == {"Redis answers"}


def test_a_refused_password_is_not_shown(running: Stack) -> None:
    wrong = make_url(running.database_url).set(password="hush")
    stranger = replace(running, database_url=wrong.render_as_string(hide_password=False))

    (found,) = failed(replace(stranger, redis_url=running.redis_url))

    assert found.name == "PostgreSQL answers"
    assert "hush" not in repr(checks(stranger))


def test_a_forbidden_question_is_a_failed_check_and_no_traceback(
    running: Stack, client: redis.Redis
) -> None:
    client.acl_setuser("guest", enabled=True, passwords=["+guest"], commands=["+ping", "+time"])
    guest = make_url(running.redis_url).set(username="guest", password="guest")

    found = failed(replace(running, redis_url=guest.render_as_string(hide_password=False)))
    client.acl_deluser("guest")

    assert "Redis append-only file" not in names(found)
    assert "append only file" in names(found)


@pytest.fixture
def labkit(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("LABKIT_HOME", str(shared_home))
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_command_up_says_what_runs_where_without_passwords(labkit: CliRunner) -> None:
    result = labkit.invoke(app, ["up"])

    assert result.exit_code == 0
    assert result.output.startswith("embedded: PostgreSQL at 127.0.0.1:")
    assert str(make_url(stack().database_url).password) not in result.output


def test_command_status_exits_with_one_when_nothing_runs(labkit: CliRunner) -> None:
    down()

    result = labkit.invoke(app, ["status", "--json"])

    assert result.exit_code == 1
    assert [server["running"] for server in json.loads(result.output)["servers"]] == [False, False]


def test_command_status_shows_a_table(labkit: CliRunner, running: Stack) -> None:
    result = labkit.invoke(app, ["status"])

    assert result.exit_code == 0
    assert result.output.count("answers") == 2


def test_command_down_stops_the_servers(labkit: CliRunner, running: Stack) -> None:
    assert labkit.invoke(app, ["down"]).exit_code == 0
    assert not status().healthy


def test_command_reset_asks_first(labkit: CliRunner, running: Stack) -> None:
    result = labkit.invoke(app, ["reset"], input="n\n")

    assert result.exit_code == 1
    assert stack() == running


def test_command_reset_with_yes_starts_over(labkit: CliRunner, running: Stack) -> None:
    assert labkit.invoke(app, ["reset", "--yes"]).exit_code == 0
    assert stack().database_url != running.database_url


def test_command_doctor_shows_a_table(labkit: CliRunner) -> None:
    result = labkit.invoke(app, ["doctor"])

    assert result.exit_code == 0
    assert "synchronous_commit" in result.output


def test_command_doctor_exits_with_one_when_the_promise_is_broken(
    labkit: CliRunner, running: Stack, client: redis.Redis
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    result = labkit.invoke(app, ["doctor", "--json"])
    client.config_set("maxmemory-policy", "noeviction")

    assert result.exit_code == 1
    assert [check["name"] for check in json.loads(result.output) if not check["ok"]] == [
        "Redis maxmemory-policy"
    ]


def test_a_command_fails_with_red_words_and_no_traceback(
    labkit: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_REDIS_URL", NOWHERE)

    result = labkit.invoke(app, ["up"])

    assert result.exit_code == 1
    assert "LABKIT_REDIS_URL is set and LABKIT_DATABASE_URL is not" in result.stderr
    assert "Traceback" not in result.output
