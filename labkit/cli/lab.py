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
from typing import Annotated

import typer
from rich.console import Console

from labkit.cli.work import as_ctrl_c
from labkit.errors import ConfigurationError
from labkit.lab import jupyter, servers
from labkit.lab.home import find_home

Number = Annotated[str, typer.Argument(help="Show this notebook, such as 03.", show_default=False)]
Browser = Annotated[bool, typer.Option(help="Open a browser, where there is a screen.")]


def lab(number: Number = "", browser: Browser = True) -> None:
    """Open JupyterLab in Spanish, with the servers up; Ctrl-C stops what this call started.

    The layout is as you left it; the first time, notebook 01 with its table of contents. Nothing
    is written in your home directory.
    """
    notebook = _file_of(number)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, as_ctrl_c)
    started: subprocess.Popen[bytes] | None = None
    ours = False
    try:
        home = find_home()
        with jupyter.alone(home):
            ours = not servers.status().healthy
            servers.up()
            if not (found := jupyter.running(home)):
                started = jupyter.start(home, jupyter.notebooks(), _shown(notebook, browser))
                found = jupyter.running(home)
        if found:
            _say(found.address(notebook), _told(started is not None, ours=ours))
        if started:
            started.wait()
    except KeyboardInterrupt:
        pass
    finally:
        _end(started, ours=ours and started is not None)


def _end(started: subprocess.Popen[bytes] | None, *, ours: bool) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    if started:
        jupyter.stop(started)
    if ours:
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


def _told(first: bool, *, ours: bool) -> tuple[str, str]:
    if not first:
        return "JupyterLab ya estaba en marcha", ""
    also = ", y con él los servidores" if ours else ""
    return "JupyterLab está en marcha", f"Ctrl-C lo para{also}."


def _say(address: str, told: tuple[str, str]) -> None:
    console = Console()
    console.print(f"{told[0]}. Ábrelo en el navegador:", highlight=False)
    console.print(address, soft_wrap=True, highlight=False, style="bold", markup=False)
    if told[1]:
        console.print(told[1], highlight=False)
