"""What is wrong with pybreaker 1.4 when processes share it: shown on it, and right on ours.

The numbers are those of docs/adr/0012-shared-breaker.md. Each test runs on both breakers: `plain`
expects the defect, so a version of pybreaker without it turns the test red.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pybreaker
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labkit.breaker import SharedBreaker
from labkit.errors import ConfigurationError
from labkit.lab.servers import Stack
from tests.breaking import PATIENT_S, Rig, SickError, attempt, decoding, fail, rig_of, work
from tests.own_valkey import OwnValkey

PLAIN = "plain"
REFUSED = {"CircuitBreakerError", "CircuitOpenError"}
BOTH = pytest.mark.parametrize("kind", [PLAIN, "ours"])
NOBODY = "redis://127.0.0.1:1"
OPEN_S = 5.0


class Pair:
    """Makes breakers of both kinds on the same Redis; each is another process' view."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def make(self, kind: str, fail_max: int = 4, **settings: Any) -> Any:
        if kind == "ours":
            return self.rig.make(min_calls=fail_max, open_s=OPEN_S, **settings)
        storage = pybreaker.CircuitRedisStorage("closed", self.rig.client, self.rig.name)
        return pybreaker.CircuitBreaker(fail_max, OPEN_S, state_storage=storage, **settings)

    def pass_time(self, kind: str, breaker: Any, seconds: float) -> None:
        """Make what is stored older."""
        if kind == "ours":
            self.rig.advance(seconds)
        else:
            opened_at = int(datetime.now(UTC).timestamp() - seconds)
            self.rig.client.set(breaker._state_storage._namespace("opened_at"), opened_at)


@pytest.fixture
def pair(servers: Stack) -> Iterator[Pair]:
    with rig_of("strict", servers.redis_url) as rig:
        yield Pair(rig)
        for key in rig.client.scan_iter(match=f"{rig.name}:*"):
            rig.client.delete(key)


def together(breakers: list[Any], inside: Callable[[], Any]) -> int:
    """Call through all breakers at the same time; return how many calls were refused."""
    with ThreadPoolExecutor(len(breakers)) as pool:
        heard = list(pool.map(lambda breaker: attempt(breaker, inside)[0], breakers))
    return sum(each in REFUSED for each in heard)


def crowd(count: int) -> Callable[[], None]:
    """Return a call that ends when so many are inside, or after half a second."""
    barrier = threading.Barrier(count)

    def inside() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.5)

    return inside


@BOTH
def test_01_no_lock_is_held_during_a_call(pair: Pair, kind: str) -> None:
    breaker, met = pair.make(kind), list[bool]()
    barrier = threading.Barrier(2)

    def meet() -> None:
        try:
            barrier.wait(0.3)
        except threading.BrokenBarrierError:
            met.append(False)
        else:
            met.append(True)

    together([breaker, breaker], meet)

    assert met == [kind == "ours"] * 2


@BOTH
def test_02_one_trial_runs_in_all_processes(pair: Pair, kind: str) -> None:
    breakers = [pair.make(kind) for _ in range(8)]
    breakers[0].open()
    pair.pass_time(kind, breakers[0], OPEN_S + 1)

    refused = together(breakers, crowd(8))

    assert refused == (0 if kind == PLAIN else 7)


@BOTH
def test_03_a_dead_prober_is_followed_by_one_trial(pair: Pair, kind: str) -> None:
    breakers = [pair.make(kind) for _ in range(6)]
    breakers[0].half_open()
    if kind == "ours":
        breakers[0]._store.admit()
        pair.pass_time(kind, breakers[0], breakers[0].rules.lease_s + 0.1)

    refused = together(breakers, crowd(6))

    assert refused == (0 if kind == PLAIN else 5)


@BOTH
def test_04_a_late_result_changes_nothing(pair: Pair, kind: str) -> None:
    early, late = pair.make(kind, fail_max=1), pair.make(kind, fail_max=1)

    def outlast_an_outage() -> None:
        late.open()
        late.close()
        fail()

    attempt(early, outlast_an_outage)

    assert early.current_state == ("open" if kind == PLAIN else "closed")


@BOTH
def test_05_noticing_a_change_resets_no_counter(pair: Pair, kind: str) -> None:
    breakers = [pair.make(kind, success_threshold=3) for _ in range(4)]
    breakers[0].half_open()

    for number in (0, 0, 1, 2, 3):
        attempt(breakers[number], work)

    assert breakers[0].current_state == ("half-open" if kind == PLAIN else "closed")


@BOTH
def test_06_a_success_of_one_does_not_hide_the_failures_of_another(pair: Pair, kind: str) -> None:
    sick, mixed = pair.make(kind, fail_max=6), pair.make(kind, fail_max=6)

    for number in range(60):
        attempt(sick, fail)
        attempt(mixed, fail if number % 3 else work)

    assert sick.current_state == ("closed" if kind == PLAIN else "open")


def test_07_the_time_of_opening_has_milliseconds(pair: Pair) -> None:
    plain, ours = pair.make(PLAIN), pair.make("ours")
    opened_at = datetime(2026, 2, 17, 16, 40, 0, 900_000, tzinfo=UTC)
    plain._state_storage.opened_at = opened_at
    ours.open()

    assert opened_at - plain._state_storage.opened_at == timedelta(milliseconds=900)
    told = ours.events()[-1]
    until_ms = int(pair.rig.client.hget(ours._store.keys[0], "open_until") or 0)
    assert until_ms == round(told.at.timestamp() * 1000) + OPEN_S * 1000


def test_08_a_clock_an_hour_ahead_keeps_nothing_open(pair: Pair) -> None:
    plain, ours = pair.make(PLAIN, fail_max=1), pair.make("ours", fail_max=1)
    plain._state_storage.opened_at = datetime.now(UTC) + timedelta(hours=1)
    attempt(plain, fail)
    pair.rig.clock.advance(hours=1)
    attempt(ours, fail)

    opened_at = plain._state_storage.opened_at
    assert opened_at - datetime.now(UTC) > timedelta(minutes=59)
    assert abs(ours.events()[-1].at - datetime.now(UTC)) < timedelta(minutes=1)
    pair.rig.advance(OPEN_S + 0.1)
    assert attempt(ours, work) == ["done"]


@BOTH
def test_09_of_two_that_see_the_threshold_one_opens(pair: Pair, kind: str) -> None:
    opened = list[str]()

    class Ear(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            opened.append(new_state.name)

    one = pair.make(kind, fail_max=2, listeners=[Ear()])
    other = pair.make(kind, fail_max=2, listeners=[Ear()])

    def fail_second() -> None:
        attempt(other, fail, 2)
        fail()

    attempt(one, fail_second)

    # Both tell their listeners; only ours can say that it was one transition.
    assert opened == ["open", "open"]
    assert kind == PLAIN or [each.after for each in one.events()] == ["open"]


@BOTH
def test_10_it_is_built_while_redis_is_down(kind: str) -> None:
    client = _client(NOBODY)
    if kind == PLAIN:
        with pytest.raises(redis.ConnectionError):
            pybreaker.CircuitRedisStorage("closed", client)
    else:
        assert attempt(SharedBreaker("payments", client), work) == ["done"]


@BOTH
def test_11_calls_stay_protected_when_redis_goes_down(kind: str) -> None:
    with OwnValkey() as valkey:
        breaker = _on(kind, valkey.url)
        valkey.end()

        heard = attempt(breaker, fail, 50)

    assert heard.count("SickError") == (50 if kind == PLAIN else 4)


def test_12_a_fallback_to_open_does_not_recurse(caplog: pytest.LogCaptureFixture) -> None:
    # It logs a thousand stacks of up to a thousand frames.
    caplog.set_level(logging.CRITICAL, logger="pybreaker")
    with OwnValkey() as valkey:
        client = _client(valkey.url)
        storage = pybreaker.CircuitRedisStorage("closed", client, None, "open")
        plain = pybreaker.CircuitBreaker(reset_timeout=0, state_storage=storage)
        ours = SharedBreaker("payments", client)
        ours.force_open("maintenance")
        valkey.end()

        assert attempt(plain, work) == ["RecursionError"]
        assert attempt(ours, work) == ["CircuitOpenError"]


@BOTH
def test_13_lost_keys_are_an_event(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind)
    breaker.open()
    pair.rig.client.delete(f"{pair.rig.name}:pybreaker:opened_at", f"{{cb:{pair.rig.name}}}")

    # Both let the call pass: nobody knows any more until when it was open. Ours says so.
    assert attempt(breaker, work) == ["done"]
    assert kind == PLAIN or breaker.events()[-1].why == "its keys were lost"


@BOTH
def test_14_keys_expire(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind)
    attempt(breaker, fail)
    pattern = f"{pair.rig.name}:*" if kind == PLAIN else f"{{cb:{pair.rig.name}}}*"

    ttls: list[Any] = [pair.rig.client.ttl(key) for key in pair.rig.client.scan_iter(pattern)]

    assert ttls
    assert all((ttl == -1) == (kind == PLAIN) for ttl in ttls)


@BOTH
def test_15_one_name_does_not_open_another(pair: Pair, kind: str) -> None:
    payments, stock = (
        pair.make(kind, name=f"{pair.rig.name}-{end}") for end in ("payments", "stock")
    )

    payments.open()

    assert stock.current_state == ("open" if kind == PLAIN else "closed")


@BOTH
def test_16_a_client_may_decode_responses(servers: Stack, pair: Pair, kind: str) -> None:
    with contextlib.closing(decoding(servers.redis_url)) as client:
        if kind == PLAIN:
            storage = pybreaker.CircuitRedisStorage("closed", client, pair.rig.name)
            with pytest.raises(AttributeError):
                pybreaker.CircuitBreaker(state_storage=storage)
        else:
            assert attempt(SharedBreaker(pair.rig.name, client), work) == ["done"]


@BOTH
def test_17_a_class_with_a_metaclass_excludes_its_own_only(pair: Pair, kind: str) -> None:
    class BusinessNo(Exception, metaclass=abc.ABCMeta):  # noqa: N818 - a no, not an error
        pass

    breaker = pair.make(kind, exclude=[BusinessNo])

    attempt(breaker, fail, 4)

    assert breaker.current_state == ("closed" if kind == PLAIN else "open")


@BOTH
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_18_an_interruption_is_no_failure(
    pair: Pair, kind: str, error: type[BaseException]
) -> None:
    plainly: dict[str, Any] = {"throw_new_error_on_trip": False} if kind == PLAIN else {}
    breaker = pair.make(kind, fail_max=1, **plainly)

    def interrupted() -> None:
        raise error

    with pytest.raises(error):
        breaker.call(interrupted)

    assert breaker.current_state == ("open" if kind == PLAIN else "closed")


@BOTH
def test_19_a_business_no_hides_no_failures(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind, exclude=[LookupError])

    for _ in range(10):
        attempt(breaker, fail, 3)
        attempt(breaker, {}.popitem)

    assert breaker.current_state == ("closed" if kind == PLAIN else "open")


@BOTH
def test_20_a_coroutine_function_is_protected(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind)

    @breaker  # type: ignore[untyped-decorator]
    async def sick() -> None:
        fail()

    heard = [type(_raised(sick)).__name__ for _ in range(10)]

    reached = 10 if kind == PLAIN else 4
    assert heard == ["SickError"] * reached + ["CircuitOpenError"] * (10 - reached)


def _raised(func: Any) -> BaseException:
    with pytest.raises(Exception, match=r".") as raised:
        asyncio.run(func())
    return raised.value


@BOTH
def test_21_the_call_that_opens_it_raises_its_own_error(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind, fail_max=1)

    assert attempt(breaker, fail) == ["CircuitBreakerError" if kind == PLAIN else "SickError"]
    assert breaker.current_state == "open"


@BOTH
def test_22_the_open_time_grows(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind, fail_max=1)
    attempt(breaker, fail)
    pair.pass_time(kind, breaker, OPEN_S + 1)
    attempt(breaker, fail)
    pair.pass_time(kind, breaker, OPEN_S + 1)

    assert attempt(breaker, work) == ["done" if kind == PLAIN else "CircuitOpenError"]


@BOTH
def test_23_forced_open_does_not_close_by_itself(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind)
    breaker.open() if kind == PLAIN else breaker.force_open("maintenance")

    pair.pass_time(kind, breaker, OPEN_S + 1)

    assert attempt(breaker, work) == ["done" if kind == PLAIN else "CircuitOpenError"]


@BOTH
def test_24_a_generator_is_not_unprotected_in_silence(pair: Pair, kind: str) -> None:
    breaker = pair.make(kind)

    def pieces() -> Iterator[int]:
        yield 1
        fail()

    if kind == PLAIN:
        half_read = breaker.call(pieces)
        assert next(half_read) == 1
        assert (breaker.fail_counter, breaker.success_counter) == (0, 0)
        with pytest.raises(SickError):
            next(half_read)
    else:
        with pytest.raises(TypeError, match="generators are not supported"):
            breaker.call(pieces)


@pytest.mark.parametrize(
    ("kind", "refresh_s", "commands"), [(PLAIN, 0, 200), ("ours", 0, 200), ("ours", 0.05, 0)]
)
def test_25_a_good_call_costs_no_more_than_two_commands(
    pair: Pair, kind: str, refresh_s: float, commands: int
) -> None:
    mode: dict[str, Any] = {} if kind == PLAIN else {"refresh_s": refresh_s}
    breaker = pair.make(kind, **mode)
    attempt(breaker, work)
    before = _sent(pair)

    attempt(breaker, work, 100)

    assert _sent(pair) - before == commands


def _sent(pair: Pair) -> int:
    """Return how many commands were sent, of those that the breakers send."""
    stats: Any = pair.rig.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in COMMANDS)


# None of them is used by a script, whose commands the server counts too.
COMMANDS = ("get", "set", "evalsha")


@BOTH
def test_26_a_redis_that_hangs_cannot_hang_a_call(kind: str) -> None:
    with OwnValkey() as valkey:
        client = redis.Redis.from_url(valkey.url, socket_timeout=None)
        if kind == "ours":
            with pytest.raises(ConfigurationError, match="would hang every protected call"):
                SharedBreaker("payments", client)
            return
        plain = _plain(client)
        valkey.process.send_signal(signal.SIGSTOP)
        call = threading.Thread(target=attempt, args=(plain, work))
        call.start()
        call.join(0.5)
        hangs = call.is_alive()
        valkey.process.send_signal(signal.SIGCONT)
        call.join(PATIENT_S * 10)

        assert hangs


def _client(url: str) -> redis.Redis:
    limits: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **limits)


def _plain(client: redis.Redis) -> pybreaker.CircuitBreaker:
    storage = pybreaker.CircuitRedisStorage("closed", client)
    return pybreaker.CircuitBreaker(4, OPEN_S, state_storage=storage)


def _on(kind: str, url: str) -> Any:
    client = _client(url)
    return _plain(client) if kind == PLAIN else SharedBreaker("payments", client, min_calls=4)
