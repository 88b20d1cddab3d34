"""Whatever was killed, frozen or deleted: the next `stack()` works and nothing is left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from labkit.lab import starting
from labkit.lab.home import Home, ServerError, read_json, wait_for_lock
from labkit.lab.processes import Process, inspect, wait_until
from labkit.lab.servers import Stack, down, stack, status

Query = Callable[[str, str], object]
Processes = Callable[[Path], list[Process]]

STARTER = "from labkit.lab.servers import stack; print(stack().database_url)"


def begin_start(home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "LABKIT_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", STARTER], env=environment, stdout=subprocess.PIPE, text=True
    )


def process_of(running: Stack, name: str) -> Process:
    pid = read_json(running.home / ".labkit" / "stack.json")[name]["pid"]
    process = inspect(pid)
    assert process is not None
    return process


def remember(running: Stack) -> None:
    running.drop_database("memory")
    running.database("memory")
    with redis.Redis.from_url(running.redis_url) as client:
        client.set("memory", "kept")


def assert_remembered(running: Stack, query: Query) -> None:
    count = "select count(*) from pg_database where datname = 'memory'"
    assert query(running.database_url, count) == 1
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.get("memory") == b"kept"


def test_six_racing_starters_share_one_pair_of_servers(home: Path, processes_of: Processes) -> None:
    starters = [begin_start(home) for _ in range(6)]
    urls = {starter.communicate(timeout=60)[0] for starter in starters}

    assert len(urls) == 1
    assert urls != {""}
    assert len(processes_of(home)) == 2


def test_servers_outlive_their_starter(running: Stack, query: Query) -> None:
    running.down()
    with begin_start(running.home) as starter:
        url = starter.communicate(timeout=60)[0].strip()

    assert query(url, "select 1") == 1
    process = process_of(running, "postgres")
    assert os.getsid(process.pid) not in {os.getsid(0), starter.pid}


def kill_starter_when(home: Path, trace: str) -> None:
    place = Home(home.resolve())
    folder = place.state if trace == "lock" else place.servers
    with begin_start(home) as starter:
        assert wait_until(lambda: any(folder.glob(trace)) or starter.poll() is not None, 30)
        starter.kill()


@pytest.mark.parametrize("trace", ["lock", "initdb-*/PG_VERSION", "postgres"])
def test_a_first_starter_killed_at_any_moment_leaks_nothing(
    home: Path, processes_of: Processes, query: Query, trace: str
) -> None:
    kill_starter_when(home, trace)

    assert query(stack(home).database_url, "select 1") == 1
    assert len(processes_of(home)) == 2
    assert not list(Home(home.resolve()).servers.glob("initdb-*"))


@pytest.mark.parametrize("trace", ["postgres/postmaster.pid", "valkey/valkey.pid"])
def test_a_starter_killed_before_it_records_a_server_leaks_nothing(
    running: Stack, processes_of: Processes, query: Query, trace: str
) -> None:
    remember(running)
    running.down()
    kill_starter_when(running.home, trace)

    assert_remembered(stack(running.home), query)
    assert len(processes_of(running.home)) == 2


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_killed_server_comes_back_at_its_address_with_its_data(
    running: Stack, query: Query, name: str
) -> None:
    remember(running)
    os.kill(process_of(running, name).pid, signal.SIGKILL)

    assert stack(running.home) == running
    assert_remembered(running, query)


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_frozen_server_is_replaced_and_its_data_kept(
    running: Stack, query: Query, name: str
) -> None:
    remember(running)
    frozen = process_of(running, name)
    os.kill(frozen.pid, signal.SIGSTOP)

    healed = stack(running.home)

    assert not frozen.is_alive()
    assert healed == running
    assert_remembered(healed, query)


def test_status_calls_a_frozen_server_running_and_unhealthy(running: Stack) -> None:
    frozen = process_of(running, "valkey")
    os.kill(frozen.pid, signal.SIGSTOP)

    seen = status(running.home)
    os.kill(frozen.pid, signal.SIGCONT)

    assert seen.servers[1].running
    assert not seen.servers[1].healthy


def fill(opened: ExitStack, url: str) -> None:
    while True:
        opened.enter_context(psycopg.connect(url))


def test_a_server_without_a_free_connection_is_left_alone(running: Stack) -> None:
    before = process_of(running, "postgres")
    with ExitStack() as opened:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            fill(opened, running.database_url.replace("+psycopg", ""))

        assert stack(running.home) == running
        assert before.is_alive()


def test_a_reused_process_number_is_no_server_and_is_never_signalled(
    running: Stack, query: Query
) -> None:
    record = running.home / ".labkit" / "stack.json"
    down(running.home)
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        port = make_url(running.database_url).port
        record.write_text(
            f'{{"postgres": {{"pid": {stranger.pid}, "started": "before", "port": {port}}}}}'
        )
        assert query(stack(running.home).database_url, "select 1") == 1
        down(running.home)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("damage", [None, "{nonsense", "[]", '{"postgres": {"pid": "x"}}'])
def test_running_servers_are_adopted_without_their_record(
    running: Stack, processes_of: Processes, damage: str | None
) -> None:
    record = running.home / ".labkit" / "stack.json"
    before = {process.pid for process in processes_of(running.home)}
    record.unlink() if damage is None else record.write_text(damage)

    assert stack(running.home) == running
    assert {process.pid for process in processes_of(running.home)} == before


def test_down_finds_servers_without_their_record(running: Stack, processes_of: Processes) -> None:
    (running.home / ".labkit" / "stack.json").unlink()

    down(running.home)

    assert processes_of(running.home) == []


@pytest.mark.parametrize("damage", [None, "{nonsense"])
def test_lost_passwords_are_replaced_and_the_data_kept(
    running: Stack, query: Query, damage: str | None
) -> None:
    remember(running)
    passwords = running.home / ".labkit" / "passwords.json"
    passwords.unlink() if damage is None else passwords.write_text(damage)

    healed = stack(running.home)

    assert healed.database_url != running.database_url
    assert_remembered(healed, query)


def test_a_deleted_state_directory_leaks_no_server(
    running: Stack, processes_of: Processes, query: Query
) -> None:
    shutil.rmtree(running.home / ".labkit")

    assert query(stack(running.home).database_url, "select 1") == 1
    assert len(processes_of(running.home)) == 2


def test_a_deleted_temporary_home_is_swept_by_the_next_start(
    running: Stack, tmp_path: Path, processes_of: Processes
) -> None:
    gone = tmp_path / "gone"
    stack(gone)
    shutil.rmtree(gone)
    running.down()

    stack(running.home)

    assert processes_of(gone) == []
    assert not Home(gone).servers.exists()


def test_data_in_use_by_a_process_out_of_sight_is_not_touched(
    running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_LIFE_LOCK_TIMEOUT_S", 0.1)
    down(running.home)
    with (Home(running.home).servers / "postgres.life").open("r+") as container:
        assert wait_for_lock(container.fileno(), 5.0)
        with pytest.raises(ServerError, match=r"already runs on .* perhaps in a container"):
            stack(running.home)


def test_a_starter_that_hangs_is_named(home: Path) -> None:
    place = Home(home)
    hangs = place.locked()

    with hangs, pytest.raises(ServerError, match=f"process {os.getpid()} has been starting"):
        place.locked(timeout_s=0.05).__enter__()
