"""A bad network: a TCP proxy on 127.0.0.1 between a client and PostgreSQL or Redis.

    with Proxy("127.0.0.1", 6379) as proxy:
        client = connect(f"redis://127.0.0.1:{proxy.port}/0")
        proxy.lose_answer_to(b"XADD")

What it can do, changeable at any time: `latency_s`, `jitter_s`, `bytes_per_s` and `drop` (a black
hole: connections stay open, nothing passes) are attributes; `refuse`, `accept`, `reset`,
`cut_after` and `lose_answer_to` are methods. `counts` says what passed.

Guarantee: bytes that pass are unchanged and in order; leaving the block ends every connection
and thread. With one seed, the jitter of one connection is the same in every run.
Not guaranteed: that a cut falls at the edge of a packet; that is what TCP is like.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Direction = Literal["to_server", "to_client"]
_CHUNK = 65_536
_POLL_S = 0.05
_JOIN_S = 5.0
# Closing a socket that lingers for no time sends RST instead of FIN.
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Counts:
    """What passed so far, over all connections."""

    connections: int = 0
    to_server: int = 0
    to_client: int = 0
    dropped: int = 0
    cuts: int = 0


@dataclass
class _Pair:
    client: socket.socket
    server: socket.socket
    answer_is_lost: bool = False


class Proxy:
    """Forwards connections to one server, as badly as told; use it as a context manager.

    Args:
        host: the server's address.
        port: the server's port.
        seed: for the jitter.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.latency_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.drop = False
        self.counts = Counts()
        self.port = 0
        self._server = (host, port)
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pairs: list[_Pair] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._cuts: dict[Direction, int] = {}
        self._needle: bytes | None = None

    def __enter__(self) -> Self:
        """Start to listen, on a free port."""
        self.accept()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every connection and thread."""
        self._closed.set()
        self.refuse()
        self.reset()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def refuse(self) -> None:
        """Refuse new connections from now on, as a port where nobody listens."""
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):  # wakes accept() where it is possible
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def accept(self) -> None:
        """Accept connections (again), on the same port."""
        if self._listener is None:
            self._listener = listener = socket.create_server(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            listener.settimeout(_POLL_S)
            self._start(self._listen, listener)

    def reset(self) -> None:
        """End all connections that are open now, with RST."""
        for pair in self._open_pairs():
            self._end(pair)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Let so many more bytes pass in a direction, then reset the connection that sends more.

        Args:
            count: bytes from now on, over all connections; 0 cuts at the next byte.
            direction: `to_server` or `to_client`.
        """
        with self._lock:
            self._cuts[direction] = count

    def lose_answer_to(self, needle: bytes) -> None:
        """Let the next request that holds these bytes pass, and lose its answer, once.

        The connection is reset when the answer comes: by then the server has done its work.
        """
        with self._lock:
            self._needle = needle

    def _listen(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server, timeout=_JOIN_S)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server)
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.append(pair)
            self.counts.connections += 1
            seeds = self._rng.random(), self._rng.random()
        self._start(self._pump, pair, "to_server", random.Random(seeds[0]))
        self._start(self._pump, pair, "to_client", random.Random(seeds[1]))

    def _pump(self, pair: _Pair, direction: Direction, rng: random.Random) -> None:
        ends = (pair.client, pair.server)
        source, sink = ends if direction == "to_server" else reversed(ends)
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._delay(len(data), rng)
                passing, cut = self._judge(pair, direction, data)
                sink.sendall(passing)
                if cut:
                    break
        self._end(pair)

    def _delay(self, size: int, rng: random.Random) -> None:
        pause_s = self.latency_s + rng.uniform(0, self.jitter_s)
        if self.bytes_per_s:
            pause_s += size / self.bytes_per_s
        if pause_s:
            self._closed.wait(pause_s)

    def _judge(self, pair: _Pair, direction: Direction, data: bytes) -> tuple[bytes, bool]:
        """Return what of these bytes passes, and whether the connection ends then."""
        with self._lock:
            if self.drop:
                self.counts.dropped += len(data)
                return b"", False
            if direction == "to_server" and self._needle and self._needle in data:
                self._needle, pair.answer_is_lost = None, True
            allowed = self._cuts.get(direction, len(data))
            if direction == "to_client" and pair.answer_is_lost:
                allowed = 0
            passing = data[:allowed]
            cut = len(passing) < len(data)
            if cut:
                self._cuts.pop(direction, None)
                self.counts.cuts += 1
            elif direction in self._cuts:
                self._cuts[direction] -= len(passing)
            passed = getattr(self.counts, direction) + len(passing)
            setattr(self.counts, direction, passed)
            return passing, cut

    def _end(self, pair: _Pair) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
        for each in (pair.client, pair.server):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                # Why not close() alone: the other thread's recv() would keep the socket open.
                # Why not SHUT_RDWR: it would say goodbye with a FIN.
                each.shutdown(socket.SHUT_RD)
            each.close()

    def _open_pairs(self) -> list[_Pair]:
        with self._lock:
            return list(self._pairs)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
