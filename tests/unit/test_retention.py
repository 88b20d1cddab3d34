"""Retention refuses times that contradict each other, and names the one to change."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import create_engine

from labkit.errors import ConfigurationError
from labkit.held import Backoff
from labkit.messages import Registry
from labkit.retention import DAY_S, Retention
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams, connect
from tests import toy


def test_everything_follows_from_the_window() -> None:
    kept = Retention(400)

    assert (kept.published_s, kept.delivery_s, kept.dead_letters_s) == (200, 100, 400)
    assert (kept.stream_s, kept.resend_s) == (300, 300)


def test_the_default_window_is_two_weeks() -> None:
    assert Retention().window_s == 14 * DAY_S


@pytest.mark.parametrize(
    ("times", "remedy"),
    [
        ({"window_s": 0}, "above 0"),
        ({"window_s": -1}, "above 0"),
        ({"window_s": math.inf}, "above 0"),
        ({"window_s": math.nan}, "above 0"),
        ({"window_s": 100, "dead_letters_s": 0}, "dead_letters_s=0"),
        ({"window_s": 100, "published_s": 75}, "raise window_s"),
        ({"window_s": 100, "published_s": 50, "delivery_s": 50}, "raise window_s"),
        ({"window_s": 100, "published_s": 20, "delivery_s": 30}, "raise published_s"),
        ({"window_s": 100, "dead_letters_s": 101}, "raise window_s"),
    ],
)
def test_times_that_contradict_each_other_are_refused(times: dict[str, float], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        Retention(**times)


def test_retries_that_take_longer_than_a_delivery_are_refused() -> None:
    service = Service("target", toy.REGISTRY, retention=Retention(100))
    service.on(toy.Happened, source=toy.SOURCE)(lambda _session, _message: None)
    engine = create_engine("postgresql+psycopg://localhost/nowhere")
    transport = RedisStreams(connect("redis://localhost:1"))

    with pytest.raises(ConfigurationError, match="fewer attempts or a lower cap_s"):
        service.consumers(engine, transport, backoff=Backoff(attempts=3, cap_s=10))
    assert service.consumers(engine, transport, backoff=Backoff(attempts=2, cap_s=10))


def test_a_service_tells_how_old_a_dead_letter_may_be_redriven() -> None:
    service = Service("target", toy.REGISTRY, retention=Retention(100, dead_letters_s=60))

    assert service.dead_letters.window_s == 60


def test_a_service_hands_its_retention_to_its_workers() -> None:
    kept = Retention(4000)
    engine = create_engine("postgresql+psycopg://localhost/nowhere")
    transport = RedisStreams(connect("redis://localhost:1"))
    service = Service("me", Registry(), retention=kept)

    assert service.relay(engine, transport)._resend_s == kept.resend_s
    assert service.cleaner(engine, transport).retention is kept
