"""Whatever stands in a stream, whatever Redis is like: no consumer ends, no neighbour is lost."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import Engine, delete

from labkit.errors import BrokerUnavailableError, ConfigurationError
from labkit.transports import redis_streams
from labkit.transports.redis_streams import RedisStreams
from tests import toy
from tests.flow import Flow
from tests.integration.test_redis_streams import private
from tests.toy import SOURCE, happen

__all__ = ["private"]

KEY = "k"


def stream(flow: Flow) -> str:
    return flow.transport.stream_key(SOURCE, SOURCE.partition_of(KEY))


def deliver_around(flow: Flow, engine: Engine, *foreign: dict[Any, Any]) -> None:
    """Deliver a good message, foreign entries, and another good message."""
    happen(engine, KEY, 1)
    flow.relay.run_once()
    for fields in foreign:
        flow.transport.client.xadd(stream(flow), fields)
    happen(engine, KEY, 2)
    flow.deliver(flow.consumer())


@pytest.mark.parametrize(
    "fields",
    [
        {"other": "field"},
        {"body": ""},
        {"body": random.Random(7).randbytes(64)},
        {b"\xff\xfe": b"\x00"},
        {"body": "[" * 200_000},
        {
            "body": '{"messageId":"M","event":{"type":"Happened","version":1,"payload":'
            + "[" * 99_999
        },
        {"body": "x" * 5_000_000},
        {"body": '{"messageId":"M","headers":{"key":"a\\u0000"}}'},
        {"body": '{"event":{"type":"Happened","version":1,"payload":{"key":"k","n":1}}}'},
        {"body": '{"messageId":"\\ud800","event":{"type":"Happened","version":1,"payload":{}}}'},
    ],
    ids=lambda fields: ascii(fields)[:40],
)
def test_a_foreign_entry_is_a_dead_letter_between_two_good_messages(
    flow: Flow, engine: Engine, fields: dict[Any, Any]
) -> None:
    deliver_around(flow, engine, fields)

    assert flow.effects(KEY) == [1, 2]
    ((_, reason),) = flow.dead_letters()
    assert reason.startswith("InvalidMessageError: ")
    assert flow.pending() == 0


noise = st.binary(max_size=200) | st.text().map(lambda text: text.encode(errors="replace"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("Happened"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messageId", "event", "type", "version", "payload", "headers", "key", "n"]
            )
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
payloads = st.fixed_dictionaries({"key": values | st.just(KEY), "n": values | st.integers(10, 99)})
near = st.fixed_dictionaries(
    {
        "messageId": st.text(min_size=1, max_size=9) | values,
        "correlationId": st.text(max_size=9) | st.none(),
        "headers": st.none() | st.dictionaries(st.sampled_from(["key", "a"]), values),
        "event": st.fixed_dictionaries(
            {"type": st.just("Happened") | values, "version": st.just(1) | values}
            | {"payload": payloads | values, "occurredAt": st.none() | values}
        ),
    }
)
bodies = noise | (values | near).map(msgspec.json.encode)
entries = st.dictionaries(st.just(b"body") | st.binary(min_size=1, max_size=8), bodies, min_size=1)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(foreign=st.lists(entries, min_size=1, max_size=5))
def test_no_foreign_entry_ends_a_consumer_or_costs_a_neighbour(
    flow: Flow, engine: Engine, foreign: list[dict[bytes, bytes]]
) -> None:
    flow.lose_redis()
    for database, service in ((engine, toy.source), (flow.target, toy.target)):
        with database.begin() as connection:
            for table in service.metadata.sorted_tables:
                connection.execute(delete(table))
    flow.relay = toy.source.relay(engine, flow.transport)
    # A key of its own, since a dead letter may stand in the lane of any other.
    mine = f"{KEY} of the neighbours that nobody can guess"
    happen(engine, mine, 1)
    flow.relay.run_once()
    for fields in foreign:
        key = flow.transport.stream_key(SOURCE, SOURCE.partition_of(mine))
        flow.transport.client.xadd(key, fields)  # type: ignore[arg-type]
    happen(engine, mine, 2)
    flow.deliver(flow.consumer())

    assert flow.effects(mine) == [1, 2]
    assert flow.pending() == 0


@pytest.mark.parametrize("suffix", ["", ":relay", ":group:target"])
def test_a_key_of_another_type_is_named_with_the_way_out_and_nothing_is_lost(
    flow: Flow, engine: Engine, suffix: str
) -> None:
    key = f"{stream(flow)}{suffix}"
    flow.transport.client.set(key, "not ours")
    happen(engine, KEY, 1)

    with pytest.raises(ConfigurationError, match="holds another type: give RedisStreams") as caught:
        flow.deliver(flow.consumer(owner="one"))

    assert stream(flow) in str(caught.value)
    flow.transport.client.delete(key)
    flow.relay.leases.hurry()
    flow.expire_leases()
    flow.deliver(flow.consumer(owner="two"))
    assert flow.effects(KEY) == [1]


@pytest.mark.parametrize("field", ["epoch", "head"])
def test_a_number_that_somebody_overwrote_is_named_with_the_way_out(
    flow: Flow, engine: Engine, field: str
) -> None:
    consumer = flow.consumer()
    happen(engine, KEY, 1)
    flow.deliver(consumer)
    key = f"{stream(flow)}:relay"
    flow.transport.client.hset(key, field, "abc")
    happen(engine, KEY, 2)

    with pytest.raises(ConfigurationError, match="holds no number of ours") as caught:
        getattr(flow.transport.publisher(SOURCE), field)(SOURCE.partition_of(KEY))

    assert key in str(caught.value)
    flow.transport.client.delete(key)
    for _ in range(3):  # it finds its fence gone, takes the partition anew, and looks at the log
        flow.relay.run_once()
    flow.deliver(consumer)
    assert flow.effects(KEY) == [1, 2]


def test_a_full_redis_loses_nothing_and_goes_on_when_it_has_room(
    flow: Flow, engine: Engine, private: redis.Redis
) -> None:
    flow.transport = RedisStreams(private, "full:")
    flow.relay = toy.source.relay(engine, flow.transport, poll_s=(0.001, 0.001), clock=flow.clock)
    consumer = flow.consumer()
    happen(engine, KEY, 1)
    flow.deliver(consumer)
    private.config_set("maxmemory", "1")
    happen(engine, KEY, 2)

    assert flow.relay.run_once().published == 0
    with suppress(BrokerUnavailableError):
        consumer.run_once()  # refused, or nothing to be read: both lose nothing
    private.config_set("maxmemory", "0")
    flow.clock.advance(1)
    flow.relay.run_once()
    flow.deliver(consumer)

    assert flow.effects(KEY) == [1, 2]
    assert flow.dead_letters() == []


def test_an_address_of_something_else_is_no_redis(servers: Any) -> None:
    place = servers.database_url.rpartition("@")[2].partition("/")[0]
    client = redis_streams.connect(f"redis://:my-secret@{place}/0")

    with pytest.raises((BrokerUnavailableError, ConfigurationError)) as caught:
        RedisStreams(client).publisher(SOURCE).epoch(0)

    assert "my-secret" not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("url", [None, 7, b"redis://x", "", "host:6379", "redis://h:port/0"])
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="LABKIT_REDIS_URL is no redis:// address"):
        redis_streams.connect(url)
