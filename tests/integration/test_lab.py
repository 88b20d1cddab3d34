"""`labkit lab`: JupyterLab as it starts, is found again, and ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.lab import servers
from labkit.lab.home import Home
from labkit.lab.processes import Process, find, stop

pytestmark = pytest.mark.slow

PATIENCE_S = 90
COMMAND = [sys.executable, "-m", "labkit", "lab", "--no-browser"]


class Desk:
    """A home, and the user's home directory beside it."""

    def __init__(self, place: Path) -> None:
        self.home = Home(place / "home")
        self.user = place / "user"
        self.user.mkdir()
        named = ("LABKIT_DATABASE_URL", "LABKIT_REDIS_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in named}
        root = str(Path(__file__).resolve().parents[2])
        self.environment = inherited | {
            "LABKIT_HOME": str(self.home.root),
            "HOME": str(self.user),
            "PYTHONPATH": root,
        }

    def again(self, *arguments: str) -> str:
        """Run `labkit lab` to its end; return what it prints."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout + done.stderr

    def jupyters(self) -> list[Process]:
        """Return every JupyterLab of this home."""
        return find(lambda command: f"workspaces_dir={self.home.state}/" in command, None)

    def ask(self, address: str, path: str) -> Any:
        """Return the JSON that JupyterLab answers."""
        base, _, token = address.partition("lab/workspaces/")
        url = f"{base}{path}?token={token.partition('token=')[2]}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return json.load(answer)


class Launched:
    """A `labkit lab` at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        told = ""
        while "Ctrl-C" not in told and (line := process.stdout.readline()):
            told += line
        self.address = address_in(told)

    def end(self, signum: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signum)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def address_in(told: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\S+", told)
    assert found, told
    return found[0]


@contextmanager
def desk_in(place: Path) -> Iterator[Desk]:
    made = Desk(place)
    yield made
    for process in made.jupyters():
        stop(process, [(signal.SIGTERM, 10.0)])
    servers.down(made.home.root, erase=True)


@contextmanager
def launched(desk: Desk) -> Iterator[Launched]:
    process = subprocess.Popen(
        COMMAND, env=desk.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        try:
            yield Launched(process)
        finally:
            if process.poll() is None:
                process.terminate()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_in(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def open_desk() -> Iterator[tuple[Desk, Launched]]:
    """A desk with JupyterLab running, for tests that only look."""
    place = Path(tempfile.mkdtemp(prefix="labkit-desk-"))
    with desk_in(place) as made, launched(made) as running:
        yield made, running
    shutil.rmtree(place, ignore_errors=True)


def test_jupyterlab_speaks_spanish(open_desk: tuple[Desk, Launched]) -> None:
    desk, running = open_desk

    settings = desk.ask(
        running.address, "lab/api/settings/@jupyterlab/translation-extension:plugin"
    )

    assert settings["schema"]["properties"]["locale"]["default"] == "es_ES"


def test_the_first_layout_has_notebook_01_and_its_contents(
    open_desk: tuple[Desk, Launched],
) -> None:
    desk, running = open_desk

    layout = desk.ask(running.address, "lab/api/workspaces/sesion-7")["data"][
        "layout-restorer:data"
    ]

    assert layout["main"]["current"] == "notebook:01_translation.ipynb"
    assert layout["left"]["current"] == "@jupyterlab/toc:plugin"


def test_a_second_call_says_where_the_first_is_and_starts_nothing(
    open_desk: tuple[Desk, Launched],
) -> None:
    desk, running = open_desk

    told = desk.again()

    assert "JupyterLab ya estaba en marcha" in told
    assert address_in(told) == running.address
    assert len(desk.jupyters()) == 1
    assert servers.status(desk.home.root).healthy


def test_a_second_call_can_name_a_notebook(open_desk: tuple[Desk, Launched]) -> None:
    desk, _ = open_desk

    assert "/lab/workspaces/sesion-7/tree/03_saga.ipynb?token=" in desk.again("3")


def test_a_notebook_that_does_not_exist_is_refused_with_those_that_do(
    open_desk: tuple[Desk, Launched],
) -> None:
    desk, _ = open_desk

    assert "no hay cuaderno '9': hay 01, 02, 03" in desk.again("9")


@pytest.mark.thorough
def test_a_jupyterlab_that_does_not_answer_is_named_with_the_remedy(
    open_desk: tuple[Desk, Launched],
) -> None:
    desk, _ = open_desk
    [frozen] = desk.jupyters()
    os.kill(frozen.pid, signal.SIGSTOP)

    try:
        told = desk.again()
    finally:
        os.kill(frozen.pid, signal.SIGCONT)

    assert f"no contesta: termínalo con `kill -9 {frozen.pid}`" in told


def test_nothing_is_written_in_the_users_home(open_desk: tuple[Desk, Launched]) -> None:
    desk, _ = open_desk

    assert list(desk.user.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_what_it_started(desk: Desk, signum: int) -> None:
    with launched(desk) as running:
        code = running.end(signum)

    assert code == 0
    assert desk.jupyters() == []
    assert not servers.status(desk.home.root).healthy


@pytest.mark.thorough
def test_servers_that_ran_before_it_stay(desk: Desk) -> None:
    servers.up(desk.home.root)

    with launched(desk) as running:
        running.end(signal.SIGTERM)

    assert servers.status(desk.home.root).healthy


@pytest.mark.thorough
def test_the_jupyterlab_of_a_killed_launcher_is_found(desk: Desk) -> None:
    with launched(desk) as running:
        running.end(signal.SIGKILL)

    told = desk.again()

    assert address_in(told) == running.address
    assert len(desk.jupyters()) == 1


@pytest.mark.thorough
def test_a_jupyterlab_that_does_not_start_shows_the_end_of_its_log(desk: Desk) -> None:
    desk.environment["JUPYTER_CONFIG_PATH"] = str(desk.user)
    config = {"ServerApp": {"port": "ninguno"}}
    (desk.user / "jupyter_server_config.json").write_text(json.dumps(config))

    told = desk.again()

    assert "JupyterLab no arranca. El final de" in told
    assert "ninguno" in told
    assert not servers.status(desk.home.root).healthy
