"""A service refuses at once what its workers would only find out later."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine

from labkit.errors import ConfigurationError
from labkit.messages import Event, Registry
from labkit.ports import Stream
from labkit.projection import Projection
from labkit.retention import Retention
from labkit.service import Role, Service, Worker
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


ENGINE = create_engine("postgresql+psycopg://localhost/nowhere")
TRANSPORT = RedisStreams(connect("redis://localhost:1"))


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'boss' is none of relay, consumer"):
        Service("me", Registry(Known)).workers("boss", ENGINE, TRANSPORT)  # type: ignore[arg-type]


# --- beside another one ---


def two_services() -> tuple[Service, Service]:
    first = Service("first", Registry(Known), stream=SOURCE, retention=Retention(window_s=999_999))
    return first, Service("second", Registry(Known), beside=first)


def projection(name: str) -> Projection:
    key, version = Column("id", Text, primary_key=True), Column("version", Integer)
    return Projection(name, Table(name, MetaData(), key, version))


def crew(service: Service, role: Role = "all") -> list[str]:
    return [repr(each) for each in service.workers(role, ENGINE, TRANSPORT)]


def test_a_service_beside_another_shares_its_stream_and_tables() -> None:
    first, second = two_services()

    shared = ("stream", "retention", "metadata", "outbox", "inbox", "held", "dead_letters")

    assert [name for name in shared if getattr(first, name) is not getattr(second, name)] == []
    assert (second.name, second.context.name) == ("second", "first")


def test_a_service_beside_another_leaves_relay_and_cleaner_to_it() -> None:
    first, second = two_services()
    for service in (first, second):
        service.on(Known, source=SOURCE)(lambda _session, _message: None)
    second.add_projection(projection("view"))

    assert crew(second) == ["consumer second of source.events", "consumer view of source.events"]
    assert crew(first) == [
        "relay of source.events",
        "consumer first of source.events",
        "cleaner of first",
    ]


@pytest.mark.parametrize("role", ["relay", "cleaner"])
def test_a_service_beside_another_says_who_runs_what_it_shares(role: Role) -> None:
    _, second = two_services()

    with pytest.raises(ConfigurationError, match=f"has no {role} of its own: run that of first"):
        second.workers(role, ENGINE, TRANSPORT)


def test_a_service_may_stand_beside_one_that_stands_beside_another() -> None:
    first, second = two_services()

    assert Service("third", Registry(Known), beside=second).context is first.context


@pytest.mark.parametrize("name", ["first", "second", "view"])
def test_a_name_that_another_consumer_of_the_context_has_is_refused(name: str) -> None:
    first, _ = two_services()
    first.add_projection(projection("view"))

    with pytest.raises(ConfigurationError, match=f"{name} is taken: name the service otherwise"):
        Service(name, Registry(Known), beside=first)


@pytest.mark.parametrize("name", ["first", "second", "view"])
def test_a_projection_named_as_another_consumer_of_the_context_is_refused(name: str) -> None:
    first, second = two_services()
    first.add_projection(projection("view"))

    with pytest.raises(ConfigurationError, match=f"{name} is taken: name the projection otherwise"):
        second.add_projection(projection(name))


@pytest.mark.parametrize(
    ("name", "own"), [("stream", SOURCE), ("retention", Retention()), ("notify", True)]
)
def test_what_is_shared_cannot_be_given_to_a_service_beside_another(name: str, own: Any) -> None:
    first, _ = two_services()

    with pytest.raises(ConfigurationError, match=f"shares its {name}: leave {name}= out"):
        Service("third", Registry(Known), beside=first, **{name: own})


def test_beside_wants_a_service() -> None:
    with pytest.raises(ConfigurationError, match="beside must be a Service"):
        Service("me", Registry(Known), beside="first")  # type: ignore[arg-type]


# --- roles of one's own ---


def test_a_worker_that_is_added_works_in_its_role_and_in_all() -> None:
    service = Service("me", Registry(Known))
    given: list[dict[str, Any]] = []

    def make(engine: Engine, transport: Any, **options: Any) -> Worker:
        given.append(options)
        return service.cleaner(engine, transport)

    service.add_role("saga", make)

    assert [repr(w) for w in service.workers("saga", ENGINE, TRANSPORT, batch=7)] == [
        "cleaner of me"
    ]
    assert crew(service) == ["relay of me.events", "cleaner of me", "cleaner of me"]
    assert crew(service, "consumer") == []
    assert given == [{"batch": 7}, {}]


@pytest.mark.parametrize(("role", "why"), [("boss", "is none of"), ("all", "all has every worker")])
def test_a_worker_for_no_role_is_refused(role: Any, why: str) -> None:
    service = Service("me", Registry(Known))

    with pytest.raises(ConfigurationError, match=why):
        service.add_role(role, service.relay)
