"""Eight real processes share a breaker; some of them are killed at the worst moment."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

from labkit.breaker import SharedBreaker
from labkit.clock import SystemClock
from labkit.lab.servers import Stack
from tests.breaking import Rig, attempt, rig_of, work
from tests.breaking_processes import Dependency, call_well_and_wait, keep_calling
from tests.crash.conftest import until

PROCESSES = 8
OPEN_S, LEASE_S = 0.3, 1.0
WAVES = 4
RULES: dict[str, Any] = {
    "min_calls": 4,
    "open_s": OPEN_S,
    "max_open_s": OPEN_S,
    "trial_lease_s": LEASE_S,
}
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.breaking_processes"])


class Callers:
    """Processes that share a breaker with this test."""

    def __init__(self, rig: Rig, url: str) -> None:
        self.rig, self._url = rig, url
        self.dependency = Dependency(rig.client, rig.name)
        self.running: list[ForkServerProcess] = []

    def start(self, target: Callable[..., None], *more: Any, **settings: Any) -> ForkServerProcess:
        arguments = (self._url, self.rig.name, RULES | settings, *more)
        process = _processes.Process(target=target, args=arguments)
        process.start()
        self.running.append(process)
        return process

    def breaker(self, **settings: Any) -> SharedBreaker:
        return SharedBreaker(self.rig.name, self.rig.client, **(RULES | settings))

    def end(self) -> None:
        self.dependency.become("gone")
        for process in self.running:
            process.join(10)
            process.kill()
            process.join()
            process.close()


@pytest.fixture
def callers(servers: Stack) -> Iterator[Callers]:
    with rig_of("strict", servers.redis_url) as rig:
        made = Callers(rig, servers.redis_url)
        yield made
        made.end()


@pytest.mark.parametrize("refresh_s", [0.0, 0.05], ids=["strict", "cached"])
def test_eight_processes_make_one_trial_per_wave_and_close_together(
    callers: Callers, refresh_s: float
) -> None:
    breaker = callers.breaker()
    callers.dependency.become("sick")
    for _ in range(PROCESSES):
        # A lease that no busy machine outlasts: here nobody dies.
        callers.start(keep_calling, refresh_s=refresh_s, trial_lease_s=30.0)
    until(lambda: _waves(breaker) >= WAVES, "some trials have failed")
    callers.dependency.become("well")
    until(lambda: breaker.current_state == "closed", "it is closed")

    assert _trials(breaker, callers.dependency) == [1] * _waves(breaker)
    told = [(each.before, each.after) for each in breaker.events()]
    wave = [("open", "half-open"), ("half-open", "open")]
    assert told == [
        ("closed", "open"),
        *wave * _waves(breaker),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


def _waves(breaker: SharedBreaker) -> int:
    """Return how many trials failed."""
    return sum((each.before, each.after) == ("half-open", "open") for each in breaker.events())


def _trials(breaker: SharedBreaker, dependency: Dependency) -> list[int]:
    """Return how many calls the dependency saw in each half-open state that did not end well."""
    events, calls = breaker.events(), dependency.calls_ms()
    return [
        sum(_ms(begun.at) <= call <= _ms(ended.at) for call in calls)
        for begun, ended in itertools.pairwise(events)
        if (begun.after, ended.after) == ("half-open", "open")
    ]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@pytest.mark.parametrize("refresh_s", [0.0, 0.05], ids=["strict", "cached"])
def test_a_killed_prober_is_followed_by_another_within_its_lease(
    callers: Callers, refresh_s: float
) -> None:
    breaker, dependency = callers.breaker(), callers.dependency
    breaker.half_open()
    dependency.become("hanging")
    prober = callers.start(keep_calling, refresh_s=refresh_s)
    until(lambda: len(dependency.calls_ms()) == 1, "the prober hangs")
    prober.kill()
    dependency.become("well")
    for _ in range(PROCESSES):
        callers.start(keep_calling, refresh_s=refresh_s)
    until(lambda: breaker.current_state == "closed", "the next trial went well")

    first, second = dependency.calls_ms()[:2]
    # The lease began when the trial was admitted, a moment before it called.
    assert 0.8 * LEASE_S <= (second - first) / 1000 <= LEASE_S + 0.5


class _Behind(SystemClock):
    """The clock of a host that was set back an hour."""

    def now(self) -> datetime:
        return super().now() - timedelta(hours=1)


def test_a_host_whose_clock_is_an_hour_behind_closes_in_time(callers: Callers) -> None:
    callers.breaker(open_s=0.2, clock=SystemClock()).open()
    behind = callers.breaker(refresh_s=0, clock=_Behind())
    assert attempt(behind, work) == ["CircuitOpenError"]

    until(lambda: attempt(behind, work) == ["done"], "a trial went well")

    opened, *_, closed = behind.events()
    assert (opened.after, closed.after) == ("open", "closed")
    assert 0.18 <= (closed.at - opened.at).total_seconds() <= 1.0


def test_a_process_killed_with_untold_successes_leaves_the_breaker_as_it_was(
    callers: Callers,
) -> None:
    breaker = callers.breaker(refresh_s=0)
    callers.dependency.become("well")
    process = callers.start(call_well_and_wait, 500, refresh_s=60.0)
    until(lambda: callers.dependency.mood == "counted", "it has counted")

    process.kill()
    process.join()

    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"
    assert breaker.seen() == (1, 0, 0)
