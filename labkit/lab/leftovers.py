"""Servers and data of homes that exist no more, such as the directory of a test that was killed.

Guarantee: only what nobody can ever use again is removed: data whose home lay in the temporary
directory and is gone, and a Valkey whose settings are gone (PostgreSQL ends by itself then).
Not guaranteed: at once. The next start of servers, in whatever home, cleans up.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from labkit.lab.home import AWAY, Home, runs_as_root
from labkit.lab.postgres import Postgres
from labkit.lab.processes import find, stop
from labkit.lab.starting import halt
from labkit.lab.valkey import Valkey


def sweep() -> None:
    """Remove what gone homes left behind."""
    if runs_as_root():
        for home in _gone_homes():
            for server in (Postgres(home, ""), Valkey(home, "")):
                halt(server)
            shutil.rmtree(home.servers, ignore_errors=True)
    for process in find(_is_orphan, None):
        stop(process, Valkey(Home(Path("/")), "").signals)


def _gone_homes() -> list[Home]:
    notes = [note for note in AWAY.glob("labkit-*/home") if note.parent.stat().st_uid == 0]
    homes = [Home(Path(note.read_text(encoding="utf-8"))) for note in notes]
    return [home for home in homes if _is_gone(home.root)]


def _is_gone(root: Path) -> bool:
    # Why only there: a home on a disk that is not mounted now is not gone.
    temporary = Path(tempfile.gettempdir()).resolve()
    return root.is_relative_to(temporary) and not root.exists()


def _is_orphan(command: str) -> bool:
    _, ours, settings = command.partition("/valkey-server ")
    if not ours or not settings.endswith("/.labkit/valkey.conf"):
        return False
    return _is_gone(Path(settings).parents[1])
