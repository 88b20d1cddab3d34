"""Several processes on one port, as Node's `cluster` does it, beside the same in Python.

Either the parent accepts every connection and hands it to a worker in turn; that is what Node does
unless told otherwise (`SCHED_RR`). Or the kernel decides: Node's workers accept from one shared
socket (`SCHED_NONE`), Python's listen on sockets of their own on one port (`SO_REUSEPORT`), and the
kernel takes a hash of the addresses. A hundred connections come one after the other.

Node's figures are measured when Node is there, and read from `node/stored.jsonl` when it is not:
what `node/cluster.js` printed on the version of Node that the file names.

Guarantee: each connection was answered by a real process; all have ended afterwards.
Not guaranteed: how the kernel decides. macOS gives all to one socket, and Windows has neither way;
and what is even here are connections: with keep-alive, one may carry a thousand requests.

Source: Node.js, *Cluster: how it works*; Linux, socket(7), `SO_REUSEPORT`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from itertools import cycle
from typing import NamedTuple

import msgspec

from labkit.errors import LabkitError
from labkit.lab.scaling import acceptors
from labkit.testing import processes

WORKERS, CONNECTIONS = 4, 100
IN_TURN, KERNEL = "por turno", "el sistema"
_NODES_WORDS = {IN_TURN: "rr", KERNEL: "none"}
_SERIES = ("del primero", "del segundo", "del tercero", "del cuarto")
_PATIENCE_S = 20.0


class Shared(NamedTuple):
    """How many connections each worker got.

    Args:
        counts: who decided (`IN_TURN`, `KERNEL`), and the connections of each worker.
        source: where the figures come from.
    """

    counts: Mapping[str, tuple[int, ...]]
    source: str

    def in_turn(self) -> Shared:
        """Return only what the parent decided, which is the same every time."""
        return Shared({IN_TURN: self.counts[IN_TURN]}, self.source)


class _Printed(msgspec.Struct):
    node: str
    policy: str
    requests: tuple[int, ...]


def node(command: str | None = None) -> Shared:
    """Return what Node's `cluster` does, measured now or stored.

    Args:
        command: Node's program; by default the one on the path, if there is one.

    Raises:
        LabkitError: Node is there, and fails.
    """
    found = command or shutil.which("node")
    if found is None:
        return stored()
    return _read([_run(found, word) for word in _NODES_WORDS.values()], "medido ahora, con {}")


def stored() -> Shared:
    """Return what was stored of Node's `cluster`."""
    return _read(_file("stored.jsonl").splitlines(), "guardado, de {}")


def listing() -> str:
    """Return the script that Node runs."""
    return _file("cluster.js")


def python(connections: int = CONNECTIONS) -> Shared:
    """Do the same in Python.

    Args:
        connections: how many, one after the other.
    """
    counts = {}
    for name, way in _WAYS.items():
        with way() as connect:
            answered = [connect() for _ in range(connections)]
        counts[name] = tuple(answered.count(worker) for worker in range(WORKERS))
    return Shared(counts, "medido ahora, con Python")


@contextmanager
def handed_in_turn() -> Iterator[Callable[[], int]]:
    """Accept here, and hand each connection to the next worker.

    Yields:
        A function that connects, and returns the worker that answered.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        turns = cycle([_worker_with_channel(stack, number) for number in range(WORKERS)])

        def connect() -> int:
            with socket.create_connection(listening.getsockname(), _PATIENCE_S) as client:
                accepted, _ = listening.accept()
                with accepted:
                    socket.send_fds(next(turns), [b"."], [accepted.fileno()])
                return _answer(client)

        yield connect


def _worker_with_channel(stack: ExitStack, number: int) -> socket.socket:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    with theirs:
        worker = processes.start(acceptors.take_what_is_handed, theirs, number)
    stack.callback(processes.end, worker)
    return ours


@contextmanager
def spread_by_the_kernel() -> Iterator[Callable[[], int]]:
    """Let each worker listen on the same port.

    Yields:
        A function that connects, and returns the worker that answered.
    """
    with ExitStack() as stack:
        port = 0
        for number in range(WORKERS):
            with socket.create_server(("127.0.0.1", port), reuse_port=True) as listening:
                port = listening.getsockname()[1]
                worker = processes.start(acceptors.accept, listening, number)
            stack.callback(processes.end, worker)
        yield lambda: _connect(port)


def _connect(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as client:
        return _answer(client)


def _answer(client: socket.socket) -> int:
    said = client.recv(1)
    if not said:
        raise LabkitError("a connection was closed without an answer")
    return said[0]


_WAYS = {IN_TURN: handed_in_turn, KERNEL: spread_by_the_kernel}


def rows(**shared: Shared) -> dict[str, dict[str, int]]:
    """Return what `charts.stacked_bars` draws.

    Args:
        shared: by language.
    """
    return {
        f"{language}, {way}": dict(zip(_SERIES, counts, strict=True))
        for language, found in shared.items()
        for way, counts in found.counts.items()
    }


def reading(**shared: Shared) -> str:
    """Read how many connections each worker got.

    Args:
        shared: by language.
    """
    said = [
        f"«{language}, {way}» {', '.join(map(str, counts))}"
        for language, found in shared.items()
        for way, counts in found.counts.items()
    ]
    sources = "; ".join(f"{language}: {found.source}" for language, found in shared.items())
    return f"Conexiones por proceso: {'; '.join(said)}. ({sources}.)"


def _run(command: str, policy: str) -> str:
    with resources.as_file(resources.files("labkit.lab.scaling.node") / "cluster.js") as script:
        done = subprocess.run(
            [command, str(script), policy, str(CONNECTIONS)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    if done.returncode:
        raise LabkitError(f"node ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout


def _read(lines: list[str], source: str) -> Shared:
    printed = [msgspec.json.decode(line, type=_Printed) for line in lines]
    ways = {word: way for way, word in _NODES_WORDS.items()}
    counts = {ways[each.policy]: each.requests for each in printed}
    return Shared(counts, source.format(f"Node {printed[0].node}"))


def _file(name: str) -> str:
    return (resources.files("labkit.lab.scaling.node") / name).read_text("utf-8")
