"""What only a shared breaker has: several processes' views, keys, events, cached mode."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pybreaker
import pytest
import redis
from hypothesis import HealthCheck, given, settings, strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from labkit.breaker import LocalBreaker, SharedBreaker, connect
from labkit.breaker.scripts import EVENTS_TTL_S, HELD_TTL_S, LEAST_TTL_S
from labkit.errors import ConfigurationError
from labkit.lab.servers import Stack
from tests.breaking import KINDS, PATIENT_S, Rig, attempt, decoding, fail, open_up, rig_of, work

SHARED = [kind for kind in KINDS if kind != "local"]


@pytest.fixture(params=SHARED)
def rig(request: pytest.FixtureRequest, servers: Stack) -> Iterator[Rig]:
    with rig_of(request.param, servers.redis_url) as made:
        yield made


@pytest.fixture
def strict(servers: Stack) -> Iterator[Rig]:
    with rig_of("strict", servers.redis_url) as made:
        yield made


@pytest.fixture
def cached(servers: Stack) -> Iterator[Rig]:
    with rig_of("cached", servers.redis_url) as made:
        yield made


def test_breakers_of_one_name_open_together(rig: Rig) -> None:
    one, other = rig.make(), rig.make()

    attempt(one, fail, 2)
    attempt(other, fail, 2)
    rig.clock.advance(0.05)

    assert attempt(other, work) == ["CircuitOpenError"]
    assert attempt(one, work) == ["CircuitOpenError"]


def test_breakers_of_other_names_are_left_alone(rig: Rig) -> None:
    one, other = rig.make(), rig.make(name=f"{rig.name}-stock")

    open_up(one)

    assert attempt(other, work) == ["done"]


def test_a_transition_is_told_once_however_many_notice_it(rig: Rig) -> None:
    heard = list[tuple[int, str, str]]()

    class Ear(pybreaker.CircuitBreakerListener):
        def __init__(self, number: int) -> None:
            self.number = number

        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.append((self.number, old_state.name, new_state.name))

    breakers = [rig.make(listeners=[Ear(number)]) for number in range(3)]
    open_up(breakers[0])
    for breaker in breakers * 2:
        attempt(breaker, work)

    assert sorted(heard) == [(number, "closed", "open") for number in range(3)]
    assert [each.after for each in breakers[1].events()] == ["open"]


def test_listeners_hear_calls_as_pybreaker_tells_them(rig: Rig) -> None:
    heard = list[Any]()

    class Ear(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            heard.append((func.__name__, args, kwargs))

        def success(self, cb: Any) -> None:
            heard.append("success")

        def failure(self, cb: Any, exc: BaseException) -> None:
            heard.append(type(exc).__name__)

    breaker = rig.make(listeners=[Ear()])
    attempt(breaker, fail)
    breaker.call(divmod, 7, 2)

    assert heard == [("fail", (), {}), "SickError", ("divmod", (7, 2), {}), "success"]


@pytest.mark.parametrize("decodes", [True, False])
def test_a_client_may_decode_responses_or_not(servers: Stack, strict: Rig, decodes: bool) -> None:
    client = decoding(servers.redis_url) if decodes else strict.client
    breaker = SharedBreaker(strict.name, client, **strict.settings, refresh_s=0)

    open_up(breaker)
    strict.advance(5.1)

    assert attempt(breaker, work) == ["done"]
    assert [each.after for each in breaker.events()] == ["open", "half-open", "closed"]
    assert breaker.seen() == (0, 0, 0)
    client.close()


def test_every_key_expires(strict: Rig) -> None:
    breaker = strict.make()
    tag = f"{{cb:{strict.name}}}"
    attempt(breaker, fail, 3)
    assert _ttl_s(strict, f"{tag}:window") == LEAST_TTL_S
    open_up(breaker)
    strict.advance(5.1)
    with breaker.calling():
        ttls = {str(key): _ttl_s(strict, key) for key in strict.client.scan_iter(match=f"{tag}*")}

    assert sorted(ttls.values()) == [LEAST_TTL_S, LEAST_TTL_S, EVENTS_TTL_S]


@pytest.mark.parametrize("hold", [lambda b: b.force_open("why"), lambda b: b.disable()])
def test_what_was_set_by_hand_is_kept_for_a_month(strict: Rig, hold: Any) -> None:
    hold(strict.make())

    assert _ttl_s(strict, f"{{cb:{strict.name}}}") == HELD_TTL_S


def _ttl_s(rig: Rig, key: Any) -> int:
    ttl_ms: float = rig.client.pttl(key)
    return round(ttl_ms / 1000)


def test_the_stream_of_events_is_capped(strict: Rig) -> None:
    breaker = strict.make()
    for _ in range(510):
        breaker.open()
        breaker.close()

    assert len(breaker.events()) == 1000


def test_old_buckets_do_not_pile_up(strict: Rig) -> None:
    breaker = strict.make(window_s=0.1)
    for _ in range(15):
        attempt(breaker, work)
        time.sleep(0.011)

    assert strict.client.hlen(f"{{cb:{strict.name}}}:window") <= 11


@pytest.mark.parametrize("kept", [True, False], ids=["events kept", "all lost"])
def test_a_breaker_whose_keys_are_lost_is_closed_and_says_so(rig: Rig, kept: bool) -> None:
    breaker = rig.make()
    open_up(breaker)
    for key in rig.client.scan_iter(match=f"{{cb:{rig.name}}}*"):
        if not (kept and key.endswith(b":events")):
            rig.client.delete(key)
    rig.clock.advance(0.05)

    assert attempt(breaker, work) == ["done"]
    last = breaker.events()[-1]
    assert (last.before, last.after, last.why) == ("open", "closed", "its keys were lost")


def test_a_late_result_stays_late_when_redis_was_restored_from_an_old_copy(strict: Rig) -> None:
    breaker = strict.make(min_calls=2, exclude=[LookupError])
    breaker.close()
    key = f"{{cb:{strict.name}}}"
    old: Any = strict.client.dump(key)

    def outlast_a_failover() -> None:
        breaker.open()
        breaker.close()
        strict.client.restore(key, 0, old, replace=True)
        # Admitted and not recorded.
        attempt(breaker, {}.popitem)
        fail()

    assert attempt(breaker, outlast_a_failover) == ["SickError"]
    assert breaker.seen() == (0, 0, 0)


def test_generations_rise_when_a_newcomer_finds_the_keys_lost(strict: Rig) -> None:
    strict.make().open()
    for _ in range(2):
        strict.client.delete(f"{{cb:{strict.name}}}")
        newcomer = strict.make()
        attempt(newcomer, work)
        newcomer.open()

    generations = [each.generation for each in newcomer.events()]
    assert len(generations) == 5
    assert generations == sorted(set(generations))


def test_a_closed_breaker_is_asked_once_per_refresh(cached: Rig) -> None:
    breaker = cached.make(refresh_s=0.05)
    attempt(breaker, work)
    before = _commands(cached)

    attempt(breaker, work, 1000)
    assert _commands(cached) - before == 0
    cached.clock.advance(0.05)
    attempt(breaker, work, 1000)
    assert _commands(cached) - before == 1
    assert breaker.seen().calls == 1001


def _commands(rig: Rig) -> int:
    """Return how many scripts were run."""
    stats: Any = rig.client.info("commandstats")
    calls: int = stats["cmdstat_evalsha"]["calls"]
    return calls


def test_an_open_breaker_refuses_without_asking(cached: Rig) -> None:
    breaker = cached.make()
    open_up(breaker)
    before = _commands(cached)

    assert attempt(breaker, work, 100) == ["CircuitOpenError"] * 100
    assert _commands(cached) == before


def test_a_process_learns_of_a_transition_within_its_refresh(cached: Rig) -> None:
    one, other = cached.make(), cached.make()
    attempt(other, work)
    open_up(one)

    assert attempt(other, work) == ["done"]
    cached.clock.advance(0.05)
    assert attempt(other, work) == ["CircuitOpenError"]
    one.close()
    cached.clock.advance(0.05)
    assert attempt(other, work) == ["done"]


def test_successes_of_a_process_that_ends_are_told_by_flush(cached: Rig) -> None:
    one, other = cached.make(), cached.make()
    attempt(one, work, 10)
    assert other.seen().calls == 0

    one.flush()

    assert other.seen().calls == 10


def test_successes_older_than_the_window_are_not_told(cached: Rig) -> None:
    breaker = cached.make(window_s=10.0)
    attempt(breaker, work, 10)

    cached.clock.advance(10.1)
    breaker.flush()

    assert breaker.seen().calls == 0


def test_successes_are_told_with_the_failure_that_follows(cached: Rig) -> None:
    breaker = cached.make(min_calls=4)

    attempt(breaker, work, 6)
    attempt(breaker, fail, 5)

    assert breaker.current_state == "closed"
    assert breaker.seen() == (11, 5, 0)


def test_a_late_failure_does_not_take_the_successes_of_today_with_it(cached: Rig) -> None:
    breaker = cached.make(min_calls=1)

    def outlast_an_outage() -> None:
        breaker.open()
        breaker.close()
        attempt(breaker, work, 5)
        fail()

    attempt(breaker, outlast_an_outage)
    breaker.flush()

    assert breaker.seen() == (5, 0, 0)


def test_a_listener_that_raises_does_not_hide_a_failure(rig: Rig) -> None:
    class Broken(pybreaker.CircuitBreakerListener):
        def failure(self, cb: Any, exc: BaseException) -> None:
            raise RuntimeError("out of disk")

    breaker = rig.make(listeners=[Broken()])

    assert attempt(breaker, fail, 5) == ["RuntimeError"] * 4 + ["CircuitOpenError"]


def test_threads_do_not_wait_for_each_other(rig: Rig) -> None:
    breaker = rig.make(min_calls=100)
    inside = threading.Barrier(8)
    threads = [
        threading.Thread(target=breaker.call, args=(inside.wait, PATIENT_S * 10)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT_S * 10)

    assert not inside.broken
    breaker.flush()
    assert breaker.seen() == (8, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({}, "socket_timeout is 5"),
        ({"socket_timeout": None}, "socket_timeout is None"),
        ({"socket_timeout": 1.5}, "socket_timeout is 1.5"),
        ({"socket_timeout": 0.1, "socket_connect_timeout": 3}, "socket_connect_timeout is 3"),
        ({"socket_timeout": 0.1, "retry": Retry(NoBackoff(), 3)}, "tries again by itself"),
    ],
)
def test_a_client_that_could_hang_a_call_is_refused(wrong: dict[str, Any], named: str) -> None:
    wanted: dict[str, Any] = {"socket_connect_timeout": 0.1, "retry": Retry(NoBackoff(), 0)}
    client = redis.Redis(**(wanted | wrong))

    with pytest.raises(ConfigurationError, match=named) as refused:
        SharedBreaker("payments", client)
    assert "labkit.breaker.connect(url)" in str(refused.value)


def test_a_pool_that_lets_calls_wait_is_refused() -> None:
    limits: dict[str, Any] = {"socket_timeout": 0.1, "socket_connect_timeout": 0.1, "timeout": 20}
    pool = redis.BlockingConnectionPool.from_url("redis://localhost", **limits)

    with pytest.raises(ConfigurationError, match="wait 20 s for a connection"):
        SharedBreaker("payments", redis.Redis(connection_pool=pool))


@pytest.mark.parametrize("url", ["http://x", "redis://host:port"])
def test_a_wrong_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no redis:// address"):
        connect(url)


# Even seconds: Redis goes on for some milliseconds meanwhile, and may so enter the next bucket.
STEPS = st.lists(
    st.one_of(
        st.sampled_from(["work", "fail", "slow", "ignored"]),
        st.sampled_from(["open", "close", "half_open", "disable"]),
        st.sampled_from([2.0, 6.0, 11.0]),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_memory_and_redis_give_the_same_answers(servers: Stack, steps: list[Any]) -> None:
    with rig_of("strict", servers.redis_url) as rig:
        same = rig.settings | {"slow_call_s": 1.0, "slow_rate": 0.6, "exclude": [LookupError]}
        shared = rig.make(**same)
        local = LocalBreaker(rig.name, **same)
        for step in steps:
            if isinstance(step, float):
                rig.advance(step)
                continue
            heard = [_do(breaker, step) for breaker in (shared, local)]
            assert heard[0] == heard[1]
            assert shared.current_state == local.current_state

        told = [
            [(each.before, each.after, each.why, each.wait_s) for each in breaker.events()]
            for breaker in (shared, local)
        ]
        assert told[0] == told[1]


def _do(breaker: Any, step: str) -> Any:
    if step in {"work", "fail", "slow", "ignored"}:
        return attempt(breaker, {"work": work, "fail": fail}.get(step) or _odd(breaker, step))
    return getattr(breaker, step)()


def _odd(breaker: Any, step: str) -> Any:
    """Return a call that is excluded, or one that takes a second of this breaker's time only."""
    real = breaker._monotonic_s

    def late() -> float:
        breaker._monotonic_s = real
        return float(real()) + 1.0

    def odd() -> str:
        if step == "ignored":
            raise LookupError
        breaker._monotonic_s = late
        return "late"

    return odd
