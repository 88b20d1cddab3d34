"""Headless Chromium, driven by its DevTools protocol with the WebSocket client of JupyterLab.

Why not playwright: its wheel downloads a browser of its own, which a machine without a network, or
with a registry only, does not get. Any Chromium, Chrome or Edge that is installed will do.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
START_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 120.0
# Nothing here speaks to anybody outside: no update, no account, no list of bad addresses.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--lang=es",
)


def installed() -> str | None:
    """Return the browser: LABKIT_BROWSER, else the first that is installed."""
    candidates = (os.environ.get("LABKIT_BROWSER") or "", *NAMES, MACOS)
    return next((found for each in candidates if each and (found := shutil.which(each))), None)


class Page:
    """One page of the browser."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._sent = 0

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call the browser and wait for its answer; events in between are dropped."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._sent:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def ask(self, javascript: str) -> Any:
        """Return the value of an expression, awaited."""
        asked = {"expression": javascript, "awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, javascript: str, timeout_s: float = 30.0) -> None:
        """Poll until an expression is true; an expression that throws is not true yet."""
        guarded = f"(() => {{ try {{ return Boolean({javascript}) }} catch {{ return false }} }})()"
        end_s = time.monotonic() + timeout_s
        while not self.ask(guarded):
            assert time.monotonic() < end_s, f"after {timeout_s} s still not: {javascript}"
            time.sleep(0.1)

    def shoot(self, path: Path) -> None:
        """Save what the window shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def opened(browser: str, profile: Path) -> Iterator[Page]:
    """Start the browser with an empty profile; end it and all of its processes."""
    argv = [browser, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    profile.mkdir(parents=True)
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with closing(websocket.create_connection(_first_page(profile, process))) as socket:
            socket.settimeout(RUN_TIMEOUT_S)
            page = Page(socket)
            # As a person's window has it; JupyterLab's contents follow the notebook in focus.
            page.send("Emulation.setFocusEmulationEnabled", enabled=True)
            yield page
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_page(profile: Path, process: subprocess.Popen[bytes]) -> str:
    place = profile / "DevToolsActivePort"
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s and process.poll() is None:
        if place.exists() and (lines := place.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                pages = [each for each in json.load(answer) if each["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError(f"no browser: {(profile / 'log').read_text(errors='replace')[-2000:]}")
