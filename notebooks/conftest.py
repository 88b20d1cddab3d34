"""Servers of their own for the notebooks under nbval: fixtures do not reach a notebook's kernel."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from labkit.lab import servers

_HOME = pytest.StashKey[Path]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start both servers and tell the kernels by LABKIT_HOME; each process of xdist has its own."""
    only_hands_out = session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    )
    if "LABKIT_DATABASE_URL" not in os.environ and not only_hands_out:
        home = Path(tempfile.mkdtemp(prefix="labkit-notebooks-"))
        session.config.stash[_HOME] = home
        os.environ["LABKIT_HOME"] = str(home)
        servers.up(home)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing running."""
    home = session.config.stash.get(_HOME, None)
    if home is not None:
        servers.down(home, erase=True)
        shutil.rmtree(home, ignore_errors=True)
