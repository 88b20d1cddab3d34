"""One outage, eight real processes: how many trials reach the dependency in each half-open wave.

What the processes do is `labkit.lab.waves`; here they are started, waited for and counted. Each has
a pybreaker of its own and a view of one `SharedBreaker`, and calls through both in the same waves.

Guarantee: every call that reached the dependency is counted by the dependency; no process is left.
Not guaranteed: the moments; they are this machine's, and only the picture shows them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import redis

from labkit.breaker import OPEN, Transition, connect
from labkit.errors import LabkitError
from labkit.lab.bench import Bench
from labkit.lab.spanish import counted, number
from labkit.lab.waves import NOES, OWN, SHARED, WAVES, Setting, breaker_of, live_through_it
from labkit.testing import processes

PROCESSES = 8
__all__ = ["OWN", "PROCESSES", "SHARED", "Call", "Seen", "reading", "reading_of_noes", "run"]
_PATIENCE_S = 60.0


class Call(NamedTuple):
    """A call that reached the dependency; `wave` 0 is the time before a breaker opened."""

    kind: str
    wave: int
    process: int
    at_s: float


class Seen(NamedTuple):
    """What was counted.

    Args:
        calls: that reached the dependency, in order.
        transitions: of the shared breaker.
        opened_by_noes: whether a breaker opened that counts a business no, and one that does not.
    """

    calls: Sequence[Call]
    transitions: Sequence[Transition]
    opened_by_noes: tuple[bool, bool]

    def trials(self, kind: str) -> list[int]:
        """Return how many trials reached the dependency, by wave of the outage."""
        mine = [each.wave for each in self.calls if each.kind == kind]
        return [mine.count(wave) for wave in range(1, WAVES + 1)]

    def failures(self, kind: str) -> int:
        """Return how many calls failed before the breakers of a kind were open."""
        return sum(each.kind == kind and each.wave == 0 for each in self.calls)


def run(bench: Bench) -> Seen:
    """Let the processes live through one outage.

    Args:
        bench: whose Redis it is.

    Raises:
        LabkitError: when a process does not end well.
    """
    setting = Setting(bench.servers.redis_url, f"{bench.name}-outage")
    client = connect(setting.redis_url, 1.0)
    _forget(client, setting)
    try:
        _live(setting)
        return _look(client, setting)
    finally:
        _forget(client, setting)
        client.close()


def _live(setting: Setting) -> None:
    meeting = multiprocessing.get_context("forkserver").Barrier(PROCESSES)
    with ExitStack() as stack:
        started = []
        for number_ in range(PROCESSES):
            process = processes.start(live_through_it, setting, number_, meeting)
            stack.callback(processes.end, process)
            started.append(process)
        codes = [processes.wait(each, _PATIENCE_S) for each in started]
    if any(codes):
        raise LabkitError(f"a process ended badly: {codes}")


def _look(client: redis.Redis, setting: Setting) -> Seen:
    lines: list[bytes] = client.lrange(f"{setting.name}:calls", 0, -1)  # type: ignore[assignment]
    calls = []
    for line in lines:
        kind, wave, process, at = line.decode().split("|")
        calls.append(Call(kind, int(wave), int(process), float(at)))
    noes = [
        any(each.after == OPEN for each in breaker_of(setting, client, what).events())
        for what in ("counted", "excluded")
    ]
    events = breaker_of(setting, client, "payments").events()
    return Seen(calls, events, (noes[0], noes[1]))


def _forget(client: redis.Redis, setting: Setting) -> None:
    for pattern in (f"{setting.name}:calls", f"{{cb:{setting.name}-*"):
        for key in client.scan_iter(match=pattern):
            client.delete(key)


def reading(seen: Seen) -> str:
    """Read the trials of each wave, and what a business no does."""
    own, shared = (seen.trials(kind) for kind in (OWN, SHARED))
    return (
        f"{number(PROCESSES)} procesos, {number(WAVES)} oleadas de prueba durante la caída. "
        f"«{OWN}»: {', '.join(map(number, own))} pruebas. "
        f"«{SHARED}»: {', '.join(map(number, shared))}. "
        f"Antes de abrir fallaron {number(seen.failures(OWN))} llamadas con uno por proceso."
    )


def reading_of_noes(seen: Seen) -> str:
    """Say what so many business noes do to a breaker that counts them, and to one that does not."""
    words = {True: "se abre", False: "sigue cerrado"}
    counting, excluding = (words[opened] for opened in seen.opened_by_noes)
    return (
        f"Tras {counted(PROCESSES * NOES, 'noes')} del negocio, el que los cuenta como fallos "
        f"{counting}; el que los excluye {excluding}."
    )
