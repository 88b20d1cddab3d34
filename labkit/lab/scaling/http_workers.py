"""HTTP workers of loopback: processes that answer one request at a time, after a while.

Who comes while one is answered waits in the queue of the worker's socket.

Guarantee: a worker that was started has ended when `workers` does; nothing listens beyond loopback.
Not guaranteed: that a request takes exactly so long: the system may wake a sleeper later.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from labkit.errors import LabkitError
from labkit.testing import processes

_PATIENCE_S = 20.0
# Loopback, whatever proxy the machine has.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(address: str) -> None:
    """Send a request and wait for its answer.

    Args:
        address: of a worker.

    Raises:
        OSError: nobody answers there.
    """
    with _direct.open(address, timeout=_PATIENCE_S):
        pass


def serve(told: Connection, service_s: float) -> None:
    """Be a worker until killed; tell the port that the system gave us.

    Args:
        told: where to tell it.
        service_s: how long a request takes.
    """
    server = HTTPServer(("127.0.0.1", 0), _answering(service_s))
    told.send(server.server_port)
    server.serve_forever()


def _answering(service_s: float) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(service_s)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: it would land in somebody's cell."""

    return Answer


@contextmanager
def workers(services_s: Sequence[float]) -> Iterator[list[str]]:
    """Start a worker for each service time; end them all.

    Args:
        services_s: how long a request takes at each.

    Yields:
        Their addresses.

    Raises:
        LabkitError: when a worker does not begin.
    """
    started = []
    try:
        ends = []
        for service_s in services_s:
            ours, theirs = Pipe(duplex=False)
            started.append(processes.start(serve, theirs, service_s))
            theirs.close()
            ends.append(ours)
        yield [f"http://127.0.0.1:{_heard(end)}/" for end in ends]
    finally:
        for process in started:
            processes.end(process)


def _heard(end: Connection) -> int:
    with end:
        if not end.poll(_PATIENCE_S):
            raise LabkitError(f"a worker has no port after {_PATIENCE_S:g} s")
        return int(end.recv())
