"""Lines `latency_*`: from the commit to a reader that blocks on the stream, at 200 events a second.

Writer and reader are threads of this process, so that one clock measures; the relay is a process
of its own. The ceilings claim, append and mark like the one of `relay`, woken by LISTEN, or asking
again after the same shortest pause.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from benchmarks.arena import Arena, arena, expect, measured, raw_connection
from benchmarks.lines import Line, Target, line_of, take_turns
from benchmarks.relaying import APPEND, pass_by_hand
from benchmarks.size import Size
from labkit.lab.servers import Stack
from labkit.relay import Relay

PER_SECOND = 200
POLL_S = (0.002, 0.1)
PATIENCE_S = 30.0
MS = 1000
Address = tuple[str, str, str]
Percentiles = tuple[float, float]


def measure(servers: Stack, size: Size, *, notify: bool) -> list[Line]:
    """Measure both percentiles of both sides in turns."""
    name = "latency_wakeup" if notify else "latency_poll"
    count = max(10, int(size.seconds * PER_SECOND))
    with arena(servers, notify=notify) as place:
        found: dict[Callable[..., None], list[Percentiles]] = {run_relay: [], run_by_hand: []}

        def side(worker: Callable[..., None]) -> float:
            place.begin_anew()
            with running([worker], place.address, notify):
                found[worker].append(percentiles(latencies(place, count)))
            expect(place.published()[1], count, "entries in the stream")
            return 0.0

        take_turns(name, size.runs, lambda: side(run_relay), lambda: side(run_by_hand))
    limits = (1.5, 5.0) if notify else (POLL_S[1] * MS, POLL_S[1] * MS)
    return [
        line_of(
            f"{name}_{percentile}",
            "ms",
            # The first round warmed up.
            [each[index] for each in found[run_relay][1:]],
            [each[index] for each in found[run_by_hand][1:]],
            Target("value", at_least=False, limit=limits[index]),
        )
        for index, percentile in enumerate(("p50", "p99"))
    ]


def percentiles(seconds: list[float]) -> Percentiles:
    """Return p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * MS, cuts[98] * MS


def latencies(place: Arena, count: int) -> list[float]:
    """Commit events at the rate, read them as they come; return the seconds between."""
    committed: dict[int, float] = {}
    seen: dict[int, float] = {}
    reader = threading.Thread(target=read_all, args=(place, count, seen))
    reader.start()
    started = time.perf_counter()
    for n in range(count):
        time.sleep(max(0.0, started + n / PER_SECOND - time.perf_counter()))
        event = measured(n)
        with Session(place.engine) as session, session.begin():
            place.outbox.add(session, event, key=event.key)
        committed[n] = time.perf_counter()
    reader.join()
    expect(len(seen), count, "events seen by the reader")
    return [max(0.0, seen[n] - committed[n]) for n in range(count)]


def read_all(place: Arena, count: int, seen: dict[int, float]) -> None:
    """Block on all partitions until every event was seen, or for so long that it never will."""
    client: Any = place.client
    after = dict.fromkeys(place.keys(), "0")
    end = time.perf_counter() + PATIENCE_S
    while len(seen) < count and time.perf_counter() < end:
        for key, entries in client.xread(after, block=MS) or []:
            now = time.perf_counter()
            for _, fields in entries:
                seen[msgspec.json.decode(fields[b"body"])["event"]["payload"]["n"]] = now
            after[key.decode()] = entries[-1][0]


@contextmanager
def running(workers: Sequence[Callable[..., None]], *arguments: Any) -> Iterator[None]:
    """Run workers in processes of their own that are ready when the block begins."""
    context = get_context("spawn")
    stop, readies = context.Event(), [context.Event() for _ in workers]
    processes = [
        context.Process(target=worker, args=(*arguments, ready, stop), daemon=True)
        for worker, ready in zip(workers, readies, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        for worker, ready in zip(workers, readies, strict=True):
            if not ready.wait(PATIENCE_S):
                raise RuntimeError(f"{worker.__name__} did not begin")
        yield
    finally:
        stop.set()
        for process in processes:
            process.join(PATIENCE_S)
            process.kill()


def thread_event(stop: Any) -> threading.Event:
    """Return an event of this process that follows one between processes."""
    mine = threading.Event()

    def follow() -> None:
        stop.wait()
        mine.set()

    threading.Thread(target=follow, daemon=True).start()
    return mine


def run_relay(address: Address, notify: bool, ready: Any, stop: Any) -> None:  # noqa: FBT001
    """Run labkit's relay until told to stop."""
    place = Arena(*address, notify=notify)
    relay = Relay(place.engine, place.outbox, place.streams.publisher(place.stream), poll_s=POLL_S)
    relay.leases.tick()
    relay.run_once()
    ready.set()
    relay.run(thread_event(stop))
    place.disconnect()


def run_by_hand(address: Address, notify: bool, ready: Any, stop: Any) -> None:  # noqa: FBT001
    """Run the hand-written relay until told to stop."""
    place = Arena(*address, notify=notify)
    append = place.client.register_script(APPEND)
    listener = raw_connection(address[0])
    listener.execute(f"listen {place.outbox.channel}")
    ready.set()
    while not stop.is_set():
        if pass_by_hand(place, append):
            continue
        if notify:
            for _ in listener.notifies(timeout=POLL_S[1], stop_after=1):
                pass
        else:
            time.sleep(POLL_S[0])
    listener.close()
    place.disconnect()
