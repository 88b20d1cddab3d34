"""Servers and data of homes that exist no more, such as the directory of a test that was killed.

Guarantee: only what nobody can ever use again is removed: data whose home lay in the temporary
directory and is gone, and the servers that ran on it.
Not guaranteed: at once. The next start of servers, in whatever home, cleans up.
"""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from pathlib import Path

from labkit.lab.home import AWAY, Home, runs_as_root
from labkit.lab.postgres import Postgres
from labkit.lab.processes import find, stop
from labkit.lab.starting import halt
from labkit.lab.valkey import Valkey

_OURS = re.compile(r"/(?:postgres -D|valkey-server) (.+)/\.labkit/(?:postgres|valkey\.conf)$")


def sweep() -> None:
    """Remove what gone homes left behind."""
    if runs_as_root():
        for home in _gone_homes():
            for server in (Postgres(home, ""), Valkey(home, "")):
                halt(server)
            shutil.rmtree(home.servers, ignore_errors=True)
    for process in find(_is_orphan, None):
        stop(process, [(signal.SIGQUIT, 2.0)])  # there is nothing left to write to


def _gone_homes() -> list[Home]:
    notes = [note for note in AWAY.glob("labkit-*/home") if note.parent.stat().st_uid == 0]
    homes = [Home(Path(note.read_text(encoding="utf-8"))) for note in notes]
    return [home for home in homes if _is_gone(home.root)]


def _is_gone(root: Path) -> bool:
    # Why only there: a home on a disk that is not mounted now is not gone.
    temporary = Path(tempfile.gettempdir()).resolve()
    return root.is_relative_to(temporary) and not root.exists()


def _is_orphan(command: str) -> bool:
    ours = _OURS.search(command)
    return ours is not None and _is_gone(Path(ours[1]))
