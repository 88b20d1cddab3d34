"""What constructors are given by mistake: refused on the spot, by name, with what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

from labkit import db, limits
from labkit.clock import FakeClock
from labkit.consumer import Consumer
from labkit.errors import ConfigurationError
from labkit.handlers import Handler
from labkit.held import Backoff, Held
from labkit.inbox import Inbox
from labkit.lease import Leases, owner_name
from labkit.messages import Event, Message, Registry
from labkit.outbox import Outbox
from labkit.ports import Stream
from labkit.projection import Projection
from labkit.relay import Relay
from labkit.service import Service
from labkit.transports.redis_streams import RedisStreams, connect

NAN, INF = math.nan, math.inf
STREAM = Stream("test.events")
ADDRESS = "postgresql+psycopg://user@localhost/nowhere"
ENGINE = create_engine(ADDRESS)
TRANSPORT = RedisStreams(connect("redis://localhost:1"))
BAD_NAMES = ["", None, 7, b"x", "a\0b", "\ud800", "a b", "{a}", "a\n", "x" * 101]
BAD_TABLES = ["", None, 7, "a\0b", "\ud800", "a\nb", "x" * 52, "ñ" * 26]


class Known(Event, frozen=True):
    topic: ClassVar[str] = "test.known.v1"


REGISTRY = Registry(Known)


def relay(**options: Any) -> Relay:
    return Relay(ENGINE, Outbox(MetaData(), STREAM), TRANSPORT.publisher(STREAM), **options)


def consumer(**options: Any) -> Consumer:
    usual: dict[str, Any] = {
        "name": "me",
        "handlers": {},
        "registry": REGISTRY,
        "inbox": Inbox(MetaData()),
        "held": Held(MetaData()),
    }
    return Consumer(ENGINE, TRANSPORT.subscription(STREAM, "me", "0"), STREAM, **usual | options)


def leases(**options: Any) -> Leases:
    fence = TRANSPORT.publisher(STREAM)
    return Leases(ENGINE, fence, kind="relay", name="test", partitions=8, **options)


def refused(make: Callable[[], object], *named: str) -> None:
    """Check that a mistake is named in one short line."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    said = str(caught.value)
    assert all(each in said for each in named), said
    assert len(said) < 250
    assert "\n" not in said


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_cannot_be_a_key_is_refused(name: Any) -> None:
    refused(lambda: Stream(name), "stream's name", repr(name)[:20])
    refused(lambda: Service(name, REGISTRY), "service's name")
    refused(lambda: consumer(name=name), "consumer's name")
    if name != "":
        refused(lambda: RedisStreams(TRANSPORT.client, name), "prefix")


@pytest.mark.parametrize("name", ["inventory.events", "ñandú-1", "demo_1:", "A.b-c_d", "x" * 100])
def test_a_name_of_letters_digits_and_dots_is_taken(name: str) -> None:
    assert Stream(name, partitions=1).partition_of("k") == 0
    assert RedisStreams(TRANSPORT.client, name).prefix == name


@pytest.mark.parametrize("partitions", [0, -1, 1025, 10_000, 10**30, "8", 8.0, None, True, NAN])
def test_a_number_of_partitions_that_cannot_be_owned_is_refused(partitions: Any) -> None:
    refused(lambda: Stream("s", partitions), "partitions", "from 1 to 1024", repr(partitions)[:20])


@pytest.mark.parametrize("make", [relay, consumer, leases])
@pytest.mark.parametrize("lease_s", [0, -1, 1e9, NAN, INF, "10", None, True])
def test_a_lease_that_cannot_work_is_refused(make: Any, lease_s: Any) -> None:
    refused(lambda: make(lease_s=lease_s), "lease_s", repr(lease_s))
    refused(lambda: db.connect(ADDRESS, lease_s=lease_s), "lease_s")


@pytest.mark.parametrize("make", [relay, consumer])
@pytest.mark.parametrize("batch", [0, -1, 10_001, 1.5, "100", None, True])
def test_a_batch_that_is_none_is_refused(make: Any, batch: Any) -> None:
    refused(lambda: make(batch=batch), "batch", "from 1 to 10000", repr(batch))


@pytest.mark.parametrize("make", [relay, consumer])
@pytest.mark.parametrize(
    "poll_s", [(0, 0), (1, 0.5), (-1, 1), (NAN, 1), (0.1, NAN), (0.1, 60), 0.1, None, (1,), "ab"]
)
def test_pauses_that_burn_a_processor_or_outlast_the_lease_are_refused(
    make: Any, poll_s: Any
) -> None:
    refused(lambda: make(poll_s=poll_s), "poll_s")


@pytest.mark.parametrize("make", [relay, consumer, leases])
@pytest.mark.parametrize("owner", [7, "a\0b", "\ud800", "x" * 10_000, b"me"], ids=ascii)
def test_an_owner_that_cannot_be_written_down_is_refused(make: Any, owner: Any) -> None:
    refused(lambda: make(owner=owner), "owner", ascii(owner)[:10] if owner != "\ud800" else "")


def test_the_owner_that_a_worker_is_given_by_default_is_good() -> None:
    limits.lease(10, owner_name())

    assert relay(lease_s=0.2, poll_s=(0.01, 0.1)).leases.lease_s == 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        *({"attempts": n} for n in (0, -1, 1.5, "3", None, True)),
        *({"first_s": s} for s in (-1, NAN, INF, "1", None)),
        *({"cap_s": s} for s in (-0.1, NAN, INF, 1e300, "1", None)),
    ],
    ids=repr,
)
def test_a_backoff_that_cannot_wait_is_refused(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()

    refused(lambda: Backoff(**wrong), name, repr(value))


@pytest.mark.parametrize("make", [lambda m, t: Outbox(m, STREAM, table=t), Inbox, Held])
@pytest.mark.parametrize("name", BAD_TABLES, ids=ascii)
def test_a_table_name_that_postgresql_would_cut_or_not_store_is_refused(
    make: Any, name: Any
) -> None:
    refused(lambda: make(MetaData(), name), "table's name")


@pytest.mark.parametrize("max_bytes", [0, -1, NAN, "1", None, 1_048_577])
def test_a_size_that_no_broker_takes_is_refused(max_bytes: Any) -> None:
    refused(lambda: Outbox(MetaData(), STREAM, max_bytes=max_bytes), "max_bytes")


def test_a_text_in_the_place_of_a_thing_is_refused() -> None:
    service = Service("me", REGISTRY)
    text: Any = "fulfillment.events"

    refused(lambda: Outbox(MetaData(), text), "stream must be a Stream", text)
    refused(lambda: Outbox(text, STREAM), "metadata must be a MetaData")
    refused(lambda: Service("me", text), "registry must be a Registry")
    refused(lambda: service.on(Known, source=text), "source must be a Stream")
    refused(lambda: service.on(text, source=STREAM), "event")
    refused(lambda: service.on(Known(), source=STREAM), "event")  # type: ignore[arg-type]
    refused(lambda: service.add_projection(text), "projection must be a Projection")
    refused(lambda: RedisStreams(text), "client must be a Redis")


def good(_session: Any, _message: Message[Known]) -> None:
    """Do nothing, as it should."""


async def waits(_session: Any, _message: Any) -> None:
    """Return something that nobody awaits."""


def yields(_session: Any, _message: Any) -> Any:
    yield


@pytest.mark.parametrize(
    "handle", [None, 7, lambda: None, lambda _message: None, lambda _a, _b, _c: None, waits, yields]
)
def test_a_handler_that_could_never_have_an_effect_is_refused(handle: Any) -> None:
    service = Service("me", REGISTRY)
    never: Any = waits

    refused(lambda: service.on(Known, source=STREAM)(handle), "handler" if handle else "")
    refused(lambda: Handler(good, lock_first=handle or never))

    service.on(Known, source=STREAM)(good)
    assert service.consumers(ENGINE, TRANSPORT)


def test_a_projection_whose_table_cannot_guard_its_rows_is_refused() -> None:
    keyless = Table("keyless", MetaData(), Column("version", Integer))
    unversioned = Table("unversioned", MetaData(), Column("id", Integer, primary_key=True))

    for table in (keyless, unversioned):
        refused(lambda table=table: Projection("view", table), table.name, "'version'")  # type: ignore[misc]
    refused(lambda: Projection("a b", keyless), "projection's name")


@pytest.mark.parametrize("pool_size", [0, -1, 1.5, "5", None, 10**9])
def test_a_pool_without_connections_is_refused(pool_size: Any) -> None:
    refused(lambda: db.connect(ADDRESS, pool_size=pool_size), "pool_size")


@pytest.mark.parametrize("step", [-1, NAN, INF, 1e300])
def test_a_clock_that_would_go_back_or_nowhere_is_refused(step: float) -> None:
    clock = FakeClock()
    before = clock.now()

    refused(lambda: clock.advance(step), "step")
    refused(lambda: FakeClock("noon"), "no time zone")  # type: ignore[arg-type]

    clock.advance(hours=1)
    assert (clock.now() - before).total_seconds() == 3600
