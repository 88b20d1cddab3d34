"""Whoever listens to a breaker or judges its errors may call it and raise; a policy hears it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pybreaker
import pytest

from labkit.lab.servers import Stack
from labkit.policy import Policy
from labkit.signals import Signal, Signals
from tests.breaking import KINDS, Rig, attempt, fail, open_up, rig_of, work

SOON_S = 30.0  # a test that waits this long hangs


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, servers: Stack) -> Iterator[Rig]:
    with rig_of(request.param, servers.redis_url) as made:
        yield made


class Raises(pybreaker.CircuitBreakerListener):
    """Raises at one kind of news, as long as it is told to."""

    def __init__(self, news: str) -> None:
        self.active = False
        setattr(self, news, self.fail)

    def fail(self, *_: Any, **__: Any) -> None:
        if self.active:
            raise RuntimeError("out of disk")


def test_a_listener_may_call_the_breaker_that_it_listens_to(rig: Rig) -> None:
    heard = list[str]()

    class Caller(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.extend([new_state.name, *attempt(cb, work)])

    opened_by, breaker = rig.make(), rig.make(listeners=[Caller()])
    open_up(breaker if rig.kind == "local" else opened_by)
    # In a thread, because it may hang.
    caller = threading.Thread(target=attempt, args=(breaker, work), daemon=True)
    caller.start()
    caller.join(SOON_S)

    assert not caller.is_alive()
    assert heard == ["open", "CircuitOpenError"]


@pytest.mark.parametrize("news", ["before_call", "state_change"])
def test_a_listener_that_raises_before_a_trial_gives_its_permit_back(rig: Rig, news: str) -> None:
    listener = Raises(news)
    breaker = rig.make(listeners=[listener])
    open_up(breaker)
    rig.advance(5.1)
    listener.active = True
    assert attempt(breaker, work) == ["RuntimeError"]
    listener.active = False

    assert attempt(breaker, work) == ["done"]
    assert breaker.current_state == "closed"


def test_a_failure_counts_when_the_exclusion_cannot_judge_it(rig: Rig) -> None:
    breaker = rig.make(exclude=[lambda error: error.status == 404])

    assert attempt(breaker, fail, 5) == ["AttributeError"] * 4 + ["CircuitOpenError"]


def test_a_breaker_without_a_bus_is_heard_on_that_of_its_policy(rig: Rig) -> None:
    heard, own = list[Signal](), list[Signal]()
    breaker, other = rig.make(), rig.make(name=f"{rig.name}-o", signals=Signals(own.append))
    Policy("stock", breaker=breaker, signals=Signals(heard.append))
    Policy("stock", breaker=other, signals=Signals(heard.append))

    open_up(breaker)
    open_up(other)

    assert [(each.name, each.what) for each in heard] == [(rig.name, "open")]
    assert [(each.name, each.what) for each in own] == [(f"{rig.name}-o", "open")]
