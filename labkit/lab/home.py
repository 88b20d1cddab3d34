"""Where the bench keeps its state, and how two starters stay out of each other's way.

A *home* is the directory whose `.labkit/` holds passwords, the record of what runs, logs and data:
`LABKIT_HOME`, else the repository, else the user's own home directory when labkit is installed
elsewhere. Never the current directory: a notebook and a test must meet at the same servers.

Guarantee: one starter at a time per home, on this machine and in the containers that share its
disk; a file is either the old one or the new one, never half of it; passwords are readable by
their owner only. Not guaranteed: anything on a file system without `flock`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError

if sys.platform != "win32":
    import fcntl

# The usual `nobody`: PostgreSQL refuses to run as root.
NOBODY = 65534
AWAY = Path("/var/tmp")  # noqa: S108 - `Home.create` refuses what is not ours
LOCK_TIMEOUT_S = 90.0
WAYS = (
    "Ways out: open the repository in its devcontainer; on Windows, work in WSL2; "
    "`docker compose up -d` with its .env; "
    "or set LABKIT_DATABASE_URL and LABKIT_REDIS_URL to servers of your own"
)


class ServerError(LabkitError):
    """A server of the bench is missing, broken or out of reach; the message names a way out."""


@dataclass(frozen=True)
class Home:
    """One home and the places inside it.

    Args:
        root: the directory that was chosen; everything of ours is in its `.labkit/`.
    """

    root: Path

    @property
    def state(self) -> Path:
        """Passwords, the lock and the record of what runs."""
        return self.root / ".labkit"

    @property
    def servers(self) -> Path:
        """Data, configuration and logs of the servers.

        Why not `.labkit/` for root too: the servers run as nobody then, who would need the right
        to enter every directory above it, and we do not open other people's directories.
        """
        if not runs_as_root():
            return self.state
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return AWAY / f"labkit-{digest}"

    @property
    def note(self) -> Path:
        """Tells whose data this is, where it lies away from its home."""
        return self.servers / "home"

    @property
    def owner(self) -> int | None:
        """The user that the servers run as; None is the user who asks."""
        return NOBODY if runs_as_root() else None

    def create(self) -> None:
        """Make both directories, private to their owner.

        Raises:
            ServerError: the home cannot be written, or its place was taken by somebody else.
        """
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.servers.mkdir(mode=0o711, exist_ok=True)
            os.close(os.open(self.state / "lock", os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as exc:
            raise ServerError(
                f"cannot write in {self.state} ({exc.strerror}): "
                "set LABKIT_HOME to a directory that you may write in"
            ) from exc
        if self.servers.is_symlink() or self.servers.stat().st_uid != os.geteuid():
            raise ServerError(f"{self.servers} belongs to another user: remove it first")
        self.servers.chmod(0o711 if runs_as_root() else 0o700)
        if self.servers != self.state and not self.note.exists():
            write_private(self.note, str(self.root))

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep every other starter of this home out.

        Args:
            timeout_s: how long to wait for one that is at work.

        Raises:
            ServerError: it did not finish in time (it may be frozen), or this is Windows.
        """
        if sys.platform == "win32":
            raise ServerError(f"the embedded servers do not run on Windows. {WAYS}")
        self.create()
        # The kernel lets go of the lock when its holder dies, however it dies.
        handle = os.open(self.state / "lock", os.O_RDWR)
        try:
            self._wait_for(handle, timeout_s)
            os.truncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _wait_for(self, handle: int, timeout_s: float) -> None:
        if not wait_for_lock(handle, timeout_s):
            holder = os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
            raise ServerError(
                f"process {holder} has been starting servers in {self.root} for {timeout_s:.0f} s: "
                "if it is frozen, end it and try again"
            )


def runs_as_root() -> bool:
    """Tell whether the servers need another user than ours."""
    return sys.platform != "win32" and os.geteuid() == 0


def find_home(chosen: str | Path | None = None) -> Home:
    """Choose the home: the argument, `LABKIT_HOME`, the repository, the user's home directory.

    Args:
        chosen: a directory that decides it.

    Returns:
        The home; nothing is created yet.
    """
    named = chosen or os.environ.get("LABKIT_HOME")
    if named:
        return Home(Path(named).expanduser().resolve())
    repository = Path(__file__).resolve().parents[2]
    is_checkout = (repository / "pyproject.toml").is_file()
    return Home(repository if is_checkout else Path.home())


def wait_for_lock(handle: int, timeout_s: float) -> bool:
    """Take an exclusive lock on an open file.

    Args:
        handle: the file's descriptor.
        timeout_s: how long to try.

    Returns:
        Whether it was taken.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def write_private(path: Path, text: str, owner: int | None = None) -> None:
    """Replace a file in one step, readable by its owner only.

    Args:
        path: the file.
        text: all of its new content.
        owner: the user to give it to, when we are root.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(text)
    if owner is not None:
        os.chown(draft, owner, owner)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that may be missing or damaged.

    Args:
        path: the file.

    Returns:
        Its content; empty when there is none to be read, because all of our records can be
        found again from the processes themselves.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
