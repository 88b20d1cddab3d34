"""Redis is away, or hangs: calls stay protected, nothing waits for long, and it heals."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.exceptions import RedisError

from labkit.breaker import SharedBreaker, connect
from labkit.breaker.shared import AWAY_S
from labkit.clock import FakeClock
from labkit.errors import BrokerUnavailableError
from labkit.signals import Signal, Signals
from tests.breaking import PATIENT_S, SickError, attempt, fail, open_up, work
from tests.own_valkey import OwnValkey

NOBODY = "redis://127.0.0.1:1"
TIMEOUT_S = 0.2
MODES = pytest.mark.parametrize("refresh_s", [0, 0.05], ids=["strict", "cached"])


@pytest.fixture
def valkey() -> Iterator[OwnValkey]:
    with OwnValkey() as made:
        yield made


@contextmanager
def frozen(valkey: OwnValkey) -> Iterator[None]:
    """Let Redis hang, and forget nothing."""
    valkey.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        valkey.process.send_signal(signal.SIGCONT)


def make(url: str, clock: FakeClock, timeout_s: float = PATIENT_S, **settings: Any) -> Any:
    few: dict[str, Any] = {"min_calls": 2, "random": lambda: 0.5, "clock": clock}
    return SharedBreaker("payments", connect(url, timeout_s), **(few | settings))


def test_a_breaker_is_built_while_redis_is_away(clock: FakeClock) -> None:
    breaker = make(NOBODY, clock)

    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"


@MODES
def test_calls_are_protected_alone_while_redis_is_away(clock: FakeClock, refresh_s: float) -> None:
    breaker = make(NOBODY, clock, refresh_s=refresh_s)
    reached = list[int]()

    def sick() -> None:
        reached.append(1)
        raise SickError

    attempt(breaker, sick, 50)

    assert len(reached) == 2
    assert breaker.current_state == "open"


def test_alone_it_makes_its_own_trials(clock: FakeClock) -> None:
    breaker = make(NOBODY, clock, open_s=5.0)
    open_up(breaker)

    clock.advance(5.1)

    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"


@MODES
def test_each_loss_and_each_return_is_told_in_one_line(
    valkey: OwnValkey, clock: FakeClock, caplog: pytest.LogCaptureFixture, refresh_s: float
) -> None:
    heard = list[Signal]()
    breaker = make(valkey.url, clock, refresh_s=refresh_s, signals=Signals(heard.append))
    attempt(breaker, work)
    with caplog.at_level(logging.DEBUG, logger="labkit.breaker"):
        valkey.end()
        clock.advance(0.1)
        attempt(breaker, work, 20)
        valkey.start()
        clock.advance(AWAY_S)
        attempt(breaker, work, 20)

    assert [each.what for each in heard] == ["degraded", "recovered"]
    assert [line.split(":")[0] for line in caplog.messages] == ["payments"] * 2
    assert "Redis is away" in caplog.messages[0]
    assert "Redis answers again" in caplog.messages[1]


@MODES
def test_a_redis_that_hangs_delays_one_call_by_its_time_limit(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    breaker = make(valkey.url, clock, TIMEOUT_S, refresh_s=refresh_s)
    attempt(breaker, work)
    clock.advance(0.1)
    began_s = time.monotonic()
    with frozen(valkey):
        heard = attempt(breaker, fail, 50)

    # One call waits for an answer; all the others go on alone.
    assert time.monotonic() - began_s < 3 * TIMEOUT_S
    assert heard == ["SickError"] * 2 + ["CircuitOpenError"] * 48


@MODES
def test_a_result_that_cannot_be_told_does_not_hide_the_result(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    breaker = make(valkey.url, clock, refresh_s=refresh_s)

    def outlive_redis() -> str:
        valkey.end()
        return "done"

    assert attempt(breaker, outlive_redis) == ["done"]
    with pytest.raises(SickError):
        breaker.call(fail)


@MODES
@pytest.mark.parametrize("how", ["open", "force_open"])
def test_what_was_open_stays_open_when_redis_goes_away(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float, how: str
) -> None:
    breaker = make(valkey.url, clock, refresh_s=refresh_s)
    breaker.open() if how == "open" else breaker.force_open("maintenance")

    valkey.end()
    clock.advance(0.1)

    assert attempt(breaker, work, 2) == ["CircuitOpenError"] * 2


@MODES
def test_what_was_open_opens_no_longer_because_redis_goes_away(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    breaker = make(valkey.url, clock, refresh_s=refresh_s, open_s=50.0)
    breaker.open()
    clock.advance(40)
    valkey.end()

    assert attempt(breaker, work) == ["CircuitOpenError"]
    clock.advance(10.1)
    assert attempt(breaker, work) == ["done"]


@MODES
def test_what_others_decided_counts_again_when_redis_is_back(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    breaker = make(valkey.url, clock, refresh_s=refresh_s)
    other = make(valkey.url, clock)
    attempt(breaker, work)
    valkey.end()
    clock.advance(0.1)
    open_up(breaker)
    valkey.start()
    other.force_open("maintenance")
    other.close()
    clock.advance(AWAY_S)

    assert attempt(breaker, work) == ["done"]
    other.force_open("maintenance")
    clock.advance(0.1)
    assert attempt(breaker, work) == ["CircuitOpenError"]


@MODES
def test_the_shared_state_is_news_when_redis_is_back(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    heard = list[Signal]()
    signals = Signals(heard.append)
    breaker = make(valkey.url, clock, TIMEOUT_S, refresh_s=refresh_s, signals=signals)
    attempt(breaker, work)
    clock.advance(0.1)
    with frozen(valkey):
        open_up(breaker)
    clock.advance(AWAY_S)

    assert attempt(breaker, work) == ["done"]
    assert [each.what for each in heard] == ["degraded", "open", "recovered", "closed"]


@MODES
def test_a_result_from_the_time_alone_does_not_count_when_redis_is_back(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    heard = list[Signal]()
    settings: dict[str, Any] = {"refresh_s": refresh_s, "signals": Signals(heard.append)}
    breaker = make(valkey.url, clock, TIMEOUT_S, min_calls=1, **settings)
    attempt(breaker, work)
    clock.advance(0.1)

    def outlast_the_outage() -> None:
        valkey.process.send_signal(signal.SIGCONT)
        clock.advance(AWAY_S)
        attempt(breaker, work)
        fail()

    with frozen(valkey):
        attempt(breaker, outlast_the_outage)

    assert [each.what for each in heard] == ["degraded", "recovered"]
    assert attempt(breaker, work) == ["done"]


@MODES
def test_a_call_that_ends_while_redis_hangs_does_not_wait_for_it_again(
    valkey: OwnValkey, clock: FakeClock, refresh_s: float
) -> None:
    breaker = make(valkey.url, clock, PATIENT_S, refresh_s=refresh_s)

    def live_through_it() -> None:
        valkey.process.send_signal(signal.SIGSTOP)
        clock.advance(0.1)
        attempt(breaker, work)
        fail()

    began_s = time.monotonic()
    try:
        attempt(breaker, live_through_it)
    finally:
        valkey.process.send_signal(signal.SIGCONT)

    assert time.monotonic() - began_s < 1.8 * PATIENT_S


def test_whoever_changes_the_state_by_hand_is_told_that_it_did_not_happen(
    clock: FakeClock,
) -> None:
    breaker = make(NOBODY, clock)

    for change in (breaker.open, breaker.close, breaker.disable, breaker.events, breaker.seen):
        with pytest.raises(BrokerUnavailableError, match="payments: its state is in Redis"):
            change()


def test_a_key_of_another_type_is_like_a_redis_that_is_away(
    valkey: OwnValkey, clock: FakeClock
) -> None:
    breaker = make(valkey.url, clock)
    connect(valkey.url, PATIENT_S).set("{cb:payments}", "no hash")

    assert attempt(breaker, fail, 3) == ["SickError", "SickError", "CircuitOpenError"]


def test_successes_that_cannot_be_told_are_no_error(valkey: OwnValkey, clock: FakeClock) -> None:
    breaker = make(valkey.url, clock)
    attempt(breaker, work, 5)
    valkey.end()

    breaker.flush()

    with pytest.raises(RedisError):
        connect(valkey.url).ping()
    assert attempt(breaker, work) == ["done"]
