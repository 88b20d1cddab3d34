"""Homes of the bench's own tests: real servers, stopped and erased afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from sqlalchemy import create_engine, text
from traitlets.config import Config

from labkit.lab.home import Home
from labkit.lab.processes import Process, find
from labkit.lab.servers import Stack, down, stack

Query = Callable[[str, str], object]


@pytest.fixture(autouse=True)
def no_servers_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABKIT_DATABASE_URL", "LABKIT_REDIS_URL", "LABKIT_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home of one test."""
    yield tmp_path / "home"
    down(tmp_path / "home", erase=True)


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for all tests here, which saves initdb; its servers may be in any state."""
    place = tmp_path_factory.mktemp("shared")
    yield place
    down(place, erase=True)


@pytest.fixture
def running(shared_home: Path, no_servers_of_the_user: None) -> Stack:
    """Healthy servers in the shared home, healed from whatever the last test did."""
    return stack(shared_home)


@pytest.fixture
def processes_of() -> Callable[[Path], list[Process]]:
    """Every process whose command line names a home's servers, children of ours or not."""

    def look(root: Path) -> list[Process]:
        place = Home(root.resolve())
        return find(lambda command: f"{place.servers}/" in command, place.owner)

    return look


@pytest.fixture
def query() -> Query:
    """One value from one statement."""

    def ask(url: str, statement: str) -> object:
        engine = create_engine(url)
        try:
            with engine.begin() as conn:
                return conn.execute(text(statement)).scalar_one()
        finally:
            engine.dispose()

    return ask


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real IPython without a history; it ends itself when Python does."""
    settings = Config()
    settings.HistoryManager.enabled = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        InteractiveShell.instance(config=settings)
        yield
    InteractiveShell.clear_instance()


@pytest.fixture
def displayed(shell: None) -> Callable[[Callable[[], object]], list[dict[str, Any]]]:
    """What a cell shows: MIME types and contents."""

    def look(show: Callable[[], object]) -> list[dict[str, Any]]:
        with capture_output() as seen:
            show()
        return [output.data for output in seen.outputs]

    return look
