"""JupyterLab as `labkit lab` starts it, on a copy of the notebooks, seen by a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.lab import jupyter, servers
from labkit.lab.home import Home
from tests.browser import chromium
from tests.browser.chromium import Page

ROOT = Path(__file__).resolve().parents[2]
# Not in git, and removed by `make clean`.
SHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="session")
def browser() -> str:
    found = chromium.installed()
    if found is None and os.environ.get("LABKIT_BROWSER") == "required":
        pytest.fail("LABKIT_BROWSER=required, and there is no browser: apt-get install chromium")
    if found is None:
        pytest.skip("no Chromium, Chrome or Edge is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with servers of its own, as a student's."""
    place = Home(tmp_path_factory.mktemp("home"))
    servers.up(place.root)
    yield place
    servers.down(place.root, erase=True)


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's home directory, which has to stay empty."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="session")
def lab(home: Home, user: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start JupyterLab; return its address."""
    # A notebook that is run is saved: not those of the repository.
    copy = tmp_path_factory.mktemp("copy") / "notebooks"
    shutil.copytree(ROOT / "notebooks", copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    exposed = ["--no-browser", "--LabApp.expose_app_in_browser=True"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(user))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("LABKIT_DATABASE_URL", raising=False)
        with jupyter.alone(home):
            process, found = jupyter.start(home, copy, exposed)
    yield found.address()
    jupyter.stop(process)


@pytest.fixture(scope="session")
def page(browser: str, lab: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The browser's page, on the address that `labkit lab` prints."""
    with chromium.opened(browser, tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.size(1500, 950)
        opened.open(lab)
        opened.wait_for("jupyterapp.shell.currentWidget")
        yield opened
