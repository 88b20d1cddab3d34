"""A service refuses at once what its workers would only find out later."""

from __future__ import annotations

from typing import ClassVar

import pytest
from sqlalchemy import create_engine

from labkit.errors import ConfigurationError
from labkit.messages import Event, Registry
from labkit.ports import Stream
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams, connect

SOURCE = Stream("source.events")


class Known(Event, frozen=True):
    topic: ClassVar[str] = "test.known.v1"


class Stranger(Event, frozen=True):
    topic: ClassVar[str] = "test.stranger.v1"


def test_a_handler_of_an_event_that_cannot_be_read_is_refused() -> None:
    service = Service("me", Registry(Known))

    with pytest.raises(ConfigurationError, match="me cannot read Stranger"):
        service.on(Stranger, source=SOURCE)


def test_a_batch_handler_of_an_event_that_cannot_be_read_is_refused() -> None:
    service = Service("me", Registry(Known))

    with pytest.raises(ConfigurationError, match="me cannot read Stranger"):
        service.on_batch(Stranger, source=SOURCE)


def test_a_batch_handler_beside_a_handler_of_the_same_event_is_refused() -> None:
    service = Service("me", Registry(Known))
    service.on(Known, source=SOURCE)(lambda _session, _message: None)

    with pytest.raises(ConfigurationError, match="handles Known twice"):
        service.on_batch(Known, source=SOURCE)(lambda _session, _messages: None)


def test_a_second_handler_of_an_event_is_refused() -> None:
    service = Service("me", Registry(Known))
    service.on(Known, source=SOURCE)(lambda _session, _message: None)

    with pytest.raises(ConfigurationError, match="handles Known twice"):
        service.on(Known, source=SOURCE)(lambda _session, _message: None)


def test_a_role_that_does_not_exist_is_refused() -> None:
    engine = create_engine("postgresql+psycopg://localhost/nowhere")
    transport = RedisStreams(connect("redis://localhost:1"))

    with pytest.raises(ConfigurationError, match="'boss' is none of relay, consumer"):
        Service("me", Registry(Known)).workers("boss", engine, transport)  # type: ignore[arg-type]
