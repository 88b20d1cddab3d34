"""JupyterLab for the workbook: in Spanish, on notebook 01, and nothing written in the user's home.

Guarantee: one JupyterLab per home; whoever asks second gets the address of the one that runs.
Settings, layout, kernels' history and caches lie in the home's `.labkit/jupyter/`. It listens on
127.0.0.1 only, behind a random token.
Not guaranteed: to find one that runs in another container on the same disk.
Crash window: a launcher that is killed leaves JupyterLab running; the next one finds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from labkit.lab.home import Home, ServerError, read_json, runs_as_root, wait_for_lock
from labkit.lab.processes import find, wait_until

WORKSPACE = "sesion-7"
START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT_S = 2.0
_PATIENCE_S = 10.0
# Who shares it sees one notebook's code in another's history: each home has its own.
_PLACES = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "IPYTHONDIR": "ipython",
    "MPLCONFIGDIR": "matplotlib",
}
_QUIET = (
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.answer_yes=True",
    "--LabApp.extension_manager=readonly",
    # It would run npm, which writes in the user's home.
    "--LanguageServerManager.autodetect=False",
    "--log-level=ERROR",
    "--LabApp.log_level=ERROR",
)
# Why not the environment's proxy: it would be asked for 127.0.0.1.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Running:
    """A JupyterLab that answered a moment ago.

    Args:
        url: where it is, such as `http://127.0.0.1:8888/`.
        token: who knows it may run code.
    """

    url: str
    token: str

    def address(self, notebook: str = "") -> str:
        """Return what to open in a browser.

        Args:
            notebook: file name of the notebook to show; the layout decides by default.
        """
        tree = f"/tree/{notebook}" if notebook else ""
        return f"{self.url}lab/workspaces/{WORKSPACE}{tree}?token={self.token}"


def notebooks() -> Path:
    """Return the folder of the notebooks.

    Raises:
        ServerError: labkit was installed without its repository.
    """
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not any(folder.glob("*.ipynb")):
        raise ServerError(
            f"en {folder} no hay cuadernos: clona el repositorio y ejecuta `make lab` en él"
        )
    return folder


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Keep every other starter of this home's JupyterLab out.

    Args:
        home: whose.

    Raises:
        ServerError: another one has not finished in time.
    """
    home.create()
    place = home.state / "jupyter"
    place.mkdir(exist_ok=True)
    handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not wait_for_lock(handle, START_TIMEOUT_S):
            raise ServerError("otra terminal lleva minuto y medio arrancando: ciérrala y repite")
        yield
    finally:
        os.close(handle)


def running(home: Home) -> Running | None:
    """Find this home's JupyterLab.

    Args:
        home: whose.

    Returns:
        The one that answers, or None when none runs.

    Raises:
        ServerError: it runs and does not answer.
    """
    for process in find(lambda command: _workspaces(home) in command, None):
        wait_until(
            lambda: not process.is_alive() or _answering(home, process.pid) is not None,  # noqa: B023 - called at once
            _PATIENCE_S,
        )
        if found := _answering(home, process.pid):
            return found
        if process.is_alive():
            raise ServerError(
                f"JupyterLab (proceso {process.pid}) no contesta: termínalo con "
                f"`kill -9 {process.pid}` y repite"
            )
    return None


def start(
    home: Home, folder: Path, arguments: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], Running]:
    """Start JupyterLab and wait until it answers.

    Args:
        home: where its state goes.
        folder: the notebooks.
        arguments: more of its options.

    Returns:
        Its process, to be ended with `stop`, and where it is. It has a session of its own: a
        Ctrl-C at the terminal reaches only us, who then end it in good order.

    Raises:
        ServerError: it does not start; with the end of its log.
    """
    _lay_out(home)
    log = home.state / "jupyter" / "jupyterlab.log"
    argv = [sys.executable, "-m", "jupyterlab", _workspaces(home), *_QUIET]
    argv += [f"--ServerApp.root_dir={folder}", *(["--allow-root"] if runs_as_root() else [])]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *arguments],
            env=environment(home, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process, _first_answer(process, home, log)
    except BaseException:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """End JupyterLab and its kernels.

    Args:
        process: what `start` returned; it may have ended by itself.
    """
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment(home: Home, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that keeps JupyterLab and its kernels out of the user's home.

    Args:
        home: where everything goes instead.
        inherited: the environment of whoever starts it.
    """
    state = home.state / "jupyter"
    shipped = str(resources.files("labkit.lab").joinpath("jupyter_config"))
    others = inherited.get("JUPYTER_CONFIG_PATH")
    return {
        **inherited,
        **{name: str(state / folder) for name, folder in _PLACES.items()},
        "JUPYTER_CONFIG_PATH": os.pathsep.join([shipped, *([others] if others else [])]),
        "LABKIT_HOME": str(home.root),
    }


def _workspaces(home: Home) -> str:
    """Return the argument by which this home's JupyterLab is recognised."""
    return f"--LabApp.workspaces_dir={home.state / 'jupyter' / 'workspaces'}"


def _lay_out(home: Home) -> None:
    """Put the first layout there; one that the student has changed stays."""
    # Why not at the top: `labkit up` and the workers need no JupyterLab installed.
    from jupyterlab_server.workspaces_handler import WorkspacesManager  # noqa: PLC0415

    for folder in _PLACES.values():
        (home.state / "jupyter" / folder).mkdir(exist_ok=True, mode=0o700)
    kept = WorkspacesManager(str(home.state / "jupyter" / "workspaces"))
    if not kept.load(WORKSPACE)["data"]:
        shipped = resources.files("labkit.lab").joinpath("jupyter_config/workspace.json")
        kept.save(WORKSPACE, shipped.read_text("utf-8"))


def _first_answer(process: subprocess.Popen[bytes], home: Home, log: Path) -> Running:
    wait_until(
        lambda: process.poll() is not None or _answering(home, process.pid) is not None,
        START_TIMEOUT_S,
    )
    if found := _answering(home, process.pid):
        return found
    tail = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-12:])
    raise ServerError(f"JupyterLab no arranca. El final de {log}:\n{tail or '(vacío)'}")


def _answering(home: Home, pid: int) -> Running | None:
    """Ask the JupyterLab of a process; None when there is no answer."""
    told = read_json(home.state / "jupyter" / "runtime" / f"jpserver-{pid}.json")
    if not told:
        return None
    found = Running(str(told["url"]), str(told["token"]))
    headers = {"Authorization": f"token {found.token}"}
    request = urllib.request.Request(f"{found.url}api/status", headers=headers)  # noqa: S310 - from its own record
    try:
        _direct.open(request, timeout=_ANSWER_TIMEOUT_S).close()
    except OSError:
        return None
    return found
