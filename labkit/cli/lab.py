"""`labkit lab`: the servers and JupyterLab, in Spanish, on notebook 01.

Guarantee: it stops what it started, and nothing else; a second call starts nothing and says where
the first one is.
Crash window: killed with SIGKILL, it leaves servers and JupyterLab running. The next `labkit lab`
finds both; *Archivo → Apagar* and `labkit down` end them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from labkit.cli.work import as_ctrl_c
from labkit.errors import ConfigurationError
from labkit.lab import jupyter, servers
from labkit.lab.home import Home, find_home

Number = Annotated[str, typer.Argument(help="Show this notebook, such as 03.", show_default=False)]
Browser = Annotated[bool, typer.Option(help="Open a browser, where there is a screen.")]


class _Desk(NamedTuple):
    """What a call found or made; `process` is None when it found JupyterLab running."""

    found: jupyter.Running
    process: subprocess.Popen[bytes] | None = None
    ours: bool = False


def lab(number: Number = "", browser: Browser = True) -> None:
    """Open JupyterLab in Spanish, with the servers up; Ctrl-C stops what this call started.

    The layout is as you left it; the first time, notebook 01 with its table of contents. Nothing
    is written in your home directory.
    """
    notebook = _file_of(number)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, as_ctrl_c)
    home, desk = find_home(), None
    try:
        with jupyter.alone(home):
            desk = _open(home, _shown(notebook, browser))
        _say(desk, notebook)
        if desk.process:
            desk.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if desk and desk.process:
            _close(home, desk)


def _open(home: Home, arguments: list[str]) -> _Desk:
    ours = not servers.status().healthy
    try:
        servers.up()
        if found := jupyter.running(home):
            return _Desk(found)
        process, started = jupyter.start(home, jupyter.notebooks(), arguments)
    except BaseException:
        if ours:
            servers.down()
        raise
    return _Desk(started, process, ours)


def _close(home: Home, desk: _Desk) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    # A call that comes now waits, and then starts anew.
    with jupyter.alone(home):
        if desk.process:
            jupyter.stop(desk.process)
        if desk.ours:
            servers.down()


def _file_of(number: str) -> str:
    """Return the file of a notebook; empty for none."""
    if not number:
        return ""
    names = {path.name[:2]: path.name for path in sorted(jupyter.notebooks().glob("*.ipynb"))}
    if number.zfill(2) not in names:
        raise ConfigurationError(f"no hay cuaderno {number!r}: hay {', '.join(names)}")
    return names[number.zfill(2)]


def _shown(notebook: str, browser: bool) -> list[str]:
    tree = f"/tree/{notebook}" if notebook else ""
    screen = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    return [
        f"--LabApp.default_url=/lab/workspaces/{jupyter.WORKSPACE}{tree}",
        *([] if browser and screen else ["--no-browser"]),
    ]


def _say(desk: _Desk, notebook: str) -> None:
    console = Console()
    state = "está" if desk.process else "ya estaba"
    console.print(f"JupyterLab {state} en marcha. Ábrelo en el navegador:", highlight=False)
    address = desk.found.address(notebook)
    console.print(address, soft_wrap=True, highlight=False, style="bold", markup=False)
    if desk.process:
        also = ", y con él los servidores" if desk.ours else ""
        console.print(f"Ctrl-C lo para{also}.", highlight=False)
