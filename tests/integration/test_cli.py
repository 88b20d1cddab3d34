"""The command line, run as a person or a script would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, text

from labkit import db
from labkit.lab.servers import Stack, stack
from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.crash.conftest import until

PATIENCE_S = 60
EXIT_AT_ONCE = 130


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers of our own: the demo drops its databases, and DROP DATABASE waits until all that
    the other tests have written is on disk, which may take a minute.
    """
    running = stack(home=tmp_path_factory.mktemp("cli"))
    yield running
    if running.source == "embedded":
        running.down(erase=True)


@pytest.fixture
def environment(servers: Stack) -> dict[str, str]:
    return os.environ | {"LABKIT_HOME": str(servers.home), "NO_COLOR": "1", "COLUMNS": "200"}


def labkit(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labkit", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_demo_settles_all_orders_and_leaves_nothing_behind(
    environment: dict[str, str], servers: Stack, client: redis.Redis
) -> None:
    result = labkit(environment, "demo", "--orders", "40", "--json")

    report = json.loads(result.stdout)
    assert result.returncode == 0
    assert report["statuses"] == {"RESERVED": 32, "REJECTED": 8}
    assert set(report["invariants"].values()) == {None}
    assert _demo_databases(servers) == 0
    assert list(client.scan_iter(match="*demo_*")) == []


def test_demo_ends_the_same_way_when_workers_are_killed(environment: dict[str, str]) -> None:
    faults = {"LABKIT_FAULTS": "relay.after_publish:kill:@9,consumer.before_commit:kill:@12"}

    result = labkit(environment | faults, "demo", "--orders", "30", "--json", "--lease=1")

    report = json.loads(result.stdout)
    assert (result.returncode, report["holds"], report["killed"] > 0) == (0, True, True)


def test_demo_that_does_not_settle_exits_with_one(environment: dict[str, str]) -> None:
    frozen = environment | {"LABKIT_FAULTS": "relay.after_claim:raise"}

    result = labkit(frozen, "demo", "--orders", "3", "--json", "--timeout=2")

    report = json.loads(result.stdout)
    assert (result.returncode, report["settled"], report["holds"]) == (1, False, False)


def _demo_databases(servers: Stack) -> int:
    engine = create_engine(servers.database_url)
    with engine.connect() as connection:
        query = "select count(*) from pg_database where datname like 'demo%'"
        count: int = connection.execute(text(query)).scalar_one()
    engine.dispose()
    return count


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_demo_that_is_interrupted_leaves_nothing_behind(
    environment: dict[str, str], servers: Stack, signum: int
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "labkit", "demo", "--orders=5000", "--json"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell lets its background jobs ignore Ctrl-C, and they hand that on: not to this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    until(lambda: _demo_databases(servers) == 2, "the demo is under way")

    os.killpg(demo.pid, signum)
    _, complaints = demo.communicate(timeout=PATIENCE_S)

    assert (demo.returncode, "Traceback" in complaints) == (EXIT_AT_ONCE, False)
    assert _demo_databases(servers) == 0


def test_demo_says_in_one_line_that_redis_refuses_it(
    environment: dict[str, str], servers: Stack
) -> None:
    wrong = {
        "LABKIT_DATABASE_URL": servers.database_url,
        "LABKIT_REDIS_URL": servers.redis_url.replace("redis://:", "redis://:x"),
    }

    result = labkit(environment | wrong, "demo", "--orders=3")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "check LABKIT_REDIS_URL" in result.stderr


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no.such.module:service", "cannot import 'no.such.module:service'"),
        ("labkit.shop.inventory:nothing", "cannot import 'labkit.shop.inventory:nothing'"),
        ("labkit.shop.inventory:stock", "not a labkit Service"),
    ],
)
def test_run_says_in_one_line_what_it_cannot_run(
    environment: dict[str, str], path: str, complaint: str
) -> None:
    result = labkit(environment, "run", path)

    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_run_refuses_an_unknown_role(environment: dict[str, str]) -> None:
    result = labkit(environment, "run", "labkit.shop.inventory:service", "--role=boss")

    assert result.returncode == 2
    assert "relay, consumer, projection, saga, cleaner, all" in result.stderr


@pytest.fixture
def worker(
    environment: dict[str, str], database: str, transport: RedisStreams
) -> Iterator[subprocess.Popen[str]]:
    """Return a running consumer of the toy target, with one message on its way to it."""
    engine = db.connect(database)
    toy.source.create_tables(engine)
    toy.happen(engine, "a", 1, behaviour="sleep")
    toy.source.relay(engine, transport).run_once()
    engine.dispose()
    name = database.rpartition("/")[2]
    arguments = ["tests.toy:target", "--role=consumer", f"--database={name}", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit", "run", *arguments, f"--prefix={transport.prefix}"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def _handling(database: str) -> bool:
    """Say whether the handler is in the middle of its message."""
    engine = create_engine(database)
    with engine.connect() as connection:
        query = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'"
        count: Any = connection.execute(text(query)).scalar()
    engine.dispose()
    return bool(count)


def test_the_first_sigterm_drains(worker: subprocess.Popen[str], database: str) -> None:
    until(lambda: _handling(database), "the handler is at work")

    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=PATIENCE_S)

    assert worker.returncode == 0
    assert sum(report["handled"] for report in json.loads(output).values()) == 1


def test_the_second_sigterm_ends_at_once(worker: subprocess.Popen[str], database: str) -> None:
    until(lambda: _handling(database), "the handler is at work")

    worker.send_signal(signal.SIGTERM)
    until(lambda: _interrupted(worker), "the second one ends it")

    assert worker.returncode == EXIT_AT_ONCE


def _interrupted(worker: subprocess.Popen[str]) -> bool:
    worker.send_signal(signal.SIGTERM)
    return worker.poll() is not None
