"""Processes that outlive whoever started them: start, recognise, stop.

Guarantee: a process is recognised by its number *and* its start time, or by its exact command
line, so a number that the kernel gave to a stranger is never signalled. A started server belongs
to nobody here: it survives us, and its end leaves no zombie among our children.
Not guaranteed: to see processes of another container; `spawn` holds a lock on behalf of the server
for that case.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from labkit.lab.home import ServerError

_PROC = Path("/proc")
# Nothing of the caller's environment: PGPORT, LD_PRELOAD or a locale would change the server.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# The shell puts the server in the background and ends: the server is then init's child.
# Why not keep a Popen: a dead child stays a zombie while a notebook lives, and a Popen that is
# dropped raises a ResourceWarning.
_DETACH = '"$@" </dev/null >>"$0" 2>&1 & echo $!'


class Pulse(Enum):
    """What a server shows from outside."""

    READY = "it answers"
    BUSY = "it answers that it is still loading"
    SILENT = "it does not answer"


@dataclass(frozen=True)
class Process:
    """One living process.

    Args:
        pid: its number.
        started: what no other process with the same number shares.
        owner: the user that it runs as.
        state: the kernel's letter, such as `S` or `T` (stopped).
        command: its command line, joined by spaces.
        parent: the number of the process that made it.
    """

    pid: int
    started: str
    owner: int
    state: str
    command: str
    parent: int

    @property
    def is_stopped(self) -> bool:
        """Somebody froze it (SIGSTOP): it lives and answers nobody."""
        return self.state == "T"

    def is_alive(self) -> bool:
        """Look again: is this very process still there?"""
        now = inspect(self.pid)
        return now is not None and now.started == self.started


def inspect(pid: int) -> Process | None:
    """Look at one process.

    Args:
        pid: its number.

    Returns:
        What is known, or None when it is gone (a zombie is gone).
    """
    found = _from_proc(pid) if sys.platform == "linux" else next(_from_ps("-p", str(pid)), None)
    return None if found is None or found.state in "ZX" else found


def find(matches: Callable[[str], bool], owner: int | None) -> list[Process]:
    """Look for processes by their command line.

    Args:
        matches: decides on a command line.
        owner: the user that they must run as; None is ours.

    Returns:
        Those that live.
    """
    if sys.platform == "win32":
        return []
    uid = os.geteuid() if owner is None else owner
    if sys.platform == "linux":
        every = (inspect(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    else:
        every = iter(_from_ps("-ax"))
    return [p for p in every if p and p.state not in "ZX" and p.owner == uid and matches(p.command)]


def children(parent: Process) -> list[Process]:
    """Look for the processes that a process made.

    Args:
        parent: the one that made them; they run as the same user.

    Returns:
        Those that live.
    """
    return [p for p in find(lambda _command: True, parent.owner) if p.parent == parent.pid]


def spawn(argv: Sequence[str], *, log: Path, owner: int | None, lock: int) -> Process | None:
    """Start a server that survives us.

    Args:
        argv: program and arguments; no passwords, everybody can read them.
        log: file that collects what it prints.
        owner: the user to run it as, when we are root.
        lock: descriptor of a locked file; the server and its children keep the lock as long as
            one of them lives.

    Returns:
        The process, or None when it has already ended.

    Raises:
        ServerError: the system did not let us start it.
    """
    command = ["/bin/sh", "-c", _DETACH, str(log), *argv]
    return inspect(int(run(command, owner=owner, keep=(lock,))))


def run(
    argv: Sequence[str], *, owner: int | None, keep: Sequence[int] = (), text: str | None = None
) -> str:
    """Run a program to its end, in a session of its own.

    Args:
        argv: program and arguments.
        owner: the user to run it as, when we are root.
        keep: open descriptors that it inherits.
        text: what it reads from its standard input.

    Returns:
        What it printed.

    Raises:
        ServerError: it could not be run, or it failed; with its last words.
    """
    # A signal from the terminal must not reach a server through its session.
    try:
        done = subprocess.run(
            argv,
            input=text or "",
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
            pass_fds=keep,
            user=owner,
            group=owner,
            extra_groups=None if owner is None else [],
        )
    except (OSError, subprocess.SubprocessError) as exc:
        who = "" if owner is None else f" as user {owner} (root may not run PostgreSQL)"
        raise ServerError(f"cannot run {argv[0]}{who}: {exc}. Try as a normal user") from exc
    if done.returncode != 0:
        raise ServerError(f"{argv[0]} failed ({done.returncode}):\n{_last(done.stderr)}")
    return done.stdout


def stop(process: Process, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a process, politely first.

    Args:
        process: the one to end; nothing happens when it is gone.
        signals: what to send, each with the seconds that it is given; SIGKILL comes last anyway.

    Raises:
        ServerError: the kernel does not let it die.
    """
    for number, patience_s in (*signals, (signal.SIGKILL, 10.0)):
        for each in (number, signal.SIGCONT):  # a frozen process hears nothing before SIGCONT
            _send(process, each)
        if wait_until(lambda: not process.is_alive(), patience_s):
            return
    raise ServerError(f"process {process.pid} does not end ({process.command})")


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until something holds.

    Args:
        condition: what to wait for.
        timeout_s: when to give up.

    Returns:
        Whether it came to hold.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _send(process: Process, number: signal.Signals) -> None:
    if not process.is_alive():
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError as exc:
        raise ServerError(
            f"process {process.pid} belongs to another user: ask them to end it"
        ) from exc


def _last(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _from_proc(pid: int) -> Process | None:
    folder = _PROC / str(pid)
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        command = (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        owner = folder.stat().st_uid
    except OSError:
        return None
    # The name stands in parentheses and may itself contain some.
    fields = stat.rpartition(")")[2].split()
    started = f"{_boot()}:{fields[19]}"
    return Process(pid, started, owner, fields[0], os.fsdecode(command), int(fields[1]))


def _boot() -> str:
    # Start times count from the boot, so they mean nothing without it.
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _from_ps(*which: str) -> Iterator[Process]:
    argv = ["/bin/ps", "-ww", "-o", "pid=,ppid=,uid=,stat=,lstart=,command=", *which]
    listing = subprocess.run(argv, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    for line in listing.stdout.splitlines():
        pid, parent, uid, state, *when, command = line.split(maxsplit=9)
        yield Process(int(pid), " ".join(when), int(uid), state[0], command, int(parent))
