"""Redis Streams as a transport: whole batches, one owner, nothing skipped."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from labkit.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    HeadMismatchError,
    LeaseLostError,
    RefusedByBrokerError,
)
from labkit.lab.binaries import valkey_program
from labkit.lab.home import find_home
from labkit.lab.servers import Stack
from labkit.ports import Entry, Stream
from labkit.transports import redis_streams
from labkit.transports.redis_streams import (
    MAX_ENTRY_BYTES,
    RedisPublisher,
    RedisStreams,
    RedisSubscription,
)

STREAM = Stream("test.events", 4)
CLOSED_PORT = "redis://:wrong-secret@127.0.0.1:1/0"


@pytest.fixture
def publisher(transport: RedisStreams) -> RedisPublisher:
    made = transport.publisher(STREAM)
    made.raise_epoch(0, 1)
    return made


@pytest.fixture
def subscription(transport: RedisStreams) -> RedisSubscription:
    made = transport.subscription(STREAM, "readers", "0")
    made.raise_epoch(0, 1)
    return made


def publish(publisher: RedisPublisher, *bodies: str) -> None:
    head = publisher.head(0)
    publisher.publish(0, epoch=1, head=head, batch=(head or 0) + 1, bodies=bodies)


def stream(transport: RedisStreams, partition: int = 0) -> list[Any]:
    client: Any = transport.client
    return [fields[b"body"] for _, fields in client.xrange(transport.stream_key(STREAM, partition))]


def bodies(entries: list[Entry]) -> list[bytes | None]:
    return [entry.body for entry in entries]


def test_a_batch_is_appended_in_order_and_raises_the_head(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    publisher.publish(0, epoch=1, head=None, batch=5, bodies=["1", "2", "ñ"])

    assert stream(transport) == [b"1", b"2", "ñ".encode()]
    assert publisher.head(0) == 5


def test_a_new_partition_has_neither_head_nor_epoch(publisher: RedisPublisher) -> None:
    assert (publisher.head(1), publisher.epoch(1)) == (None, 0)


def test_an_older_epoch_publishes_nothing(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    publisher.raise_epoch(0, 2)

    with pytest.raises(LeaseLostError):
        publisher.publish(0, epoch=1, head=None, batch=1, bodies=["1"])

    assert stream(transport) == []


def test_a_fence_that_was_lost_is_a_lost_lease(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    transport.client.delete(f"{transport.stream_key(STREAM, 0)}:relay")

    with pytest.raises(LeaseLostError, match="emptied, or restored"):
        publisher.publish(0, epoch=1, head=None, batch=1, bodies=["1"])


def test_an_epoch_that_the_broker_never_saw_is_a_lost_lease(publisher: RedisPublisher) -> None:
    with pytest.raises(LeaseLostError, match="emptied, or restored"):
        publisher.publish(0, epoch=2, head=None, batch=1, bodies=["1"])


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_another_head_publishes_nothing(
    publisher: RedisPublisher, transport: RedisStreams, expected: int | None
) -> None:
    publisher.publish(0, epoch=1, head=None, batch=2, bodies=["1"])

    with pytest.raises(HeadMismatchError) as raised:
        publisher.publish(0, epoch=1, head=expected, batch=4, bodies=["2"])

    assert raised.value.head == 2
    assert stream(transport) == [b"1"]


@pytest.mark.parametrize("body", ["x" * (MAX_ENTRY_BYTES + 1), "é" * (MAX_ENTRY_BYTES // 2 + 1)])
def test_a_body_that_is_too_large_refuses_the_batch_and_names_itself(
    publisher: RedisPublisher, transport: RedisStreams, body: str
) -> None:
    with pytest.raises(RefusedByBrokerError) as raised:
        publish(publisher, "1", body)

    assert raised.value.index == 1
    assert stream(transport) == []


def test_the_largest_body_is_published(publisher: RedisPublisher, transport: RedisStreams) -> None:
    publish(publisher, "é" * (MAX_ENTRY_BYTES // 2))

    assert len(stream(transport)) == 1


def test_an_epoch_is_raised_and_never_lowered(publisher: RedisPublisher) -> None:
    publisher.raise_epoch(0, 4)

    with pytest.raises(LeaseLostError):
        publisher.raise_epoch(0, 3)

    assert publisher.epoch(0) == 4


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_stream_that_was_deleted_has_no_head(
    publisher: RedisPublisher, transport: RedisStreams, made_anew: bool
) -> None:
    publish(publisher, "1")
    transport.client.delete(transport.stream_key(STREAM, 0))
    if made_anew:
        transport.subscription(STREAM, "readers", "0").raise_epoch(0, 1)

    with pytest.raises(HeadMismatchError):
        publisher.publish(0, epoch=1, head=1, batch=2, bodies=["2"])

    assert publisher.head(0) is None


def test_transports_with_other_prefixes_do_not_meet(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    other = RedisStreams(transport.client, f"{transport.prefix}other:").publisher(STREAM)
    publish(publisher, "1")

    assert (other.head(0), other.epoch(0)) == (None, 0)


def test_another_number_of_partitions_is_refused(publisher: RedisPublisher) -> None:
    publisher.epoch(0)
    other = publisher._streams.publisher(Stream(STREAM.name, 5))

    with pytest.raises(ConfigurationError, match="has 4 partitions, not 5"):
        other.epoch(0)


def test_keys_of_a_partition_share_a_hash_slot(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    keys = [transport.stream_key(STREAM, 0), publisher._fence(0), subscription._fence(0)]

    assert len({key_slot(key.encode()) for key in keys}) == 1


def test_new_entries_are_read_in_order_and_once(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    publish(publisher, "1", "2", "3")

    pages = [subscription.read_new(0, epoch=1, count=2) for _ in range(3)]

    assert [bodies(page) for page in pages] == [[b"1", b"2"], [b"3"], []]


def test_an_older_epoch_reads_nothing_and_leaves_nothing_pending(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    publish(publisher, "1")
    subscription.raise_epoch(0, 2)

    with pytest.raises(LeaseLostError):
        subscription.read_new(0, epoch=1, count=10)

    assert subscription.read_pending(0, epoch=2, after="0", count=10) == []
    assert bodies(subscription.read_new(0, epoch=2, count=10)) == [b"1"]


def test_pending_entries_are_read_again_in_order_page_by_page(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    publish(publisher, "1", "2", "3")
    subscription.read_new(0, epoch=1, count=10)

    first = subscription.read_pending(0, epoch=1, after="0", count=2)
    second = subscription.read_pending(0, epoch=1, after=first[-1].position, count=2)

    assert [bodies(first), bodies(second)] == [[b"1", b"2"], [b"3"]]


def test_the_next_owner_finds_what_the_last_one_left_pending(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    publish(publisher, "1")
    subscription.read_new(0, epoch=1, count=10)
    successor = transport.subscription(STREAM, "readers", "0")
    successor.raise_epoch(0, 2)

    assert bodies(successor.read_pending(0, epoch=2, after="0", count=10)) == [b"1"]


def test_an_acknowledged_entry_is_not_pending(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    publish(publisher, "1", "2")
    first, _ = subscription.read_new(0, epoch=1, count=10)

    subscription.ack(0, [first.position, "1-1", "99-0"])
    subscription.ack(0, [])

    assert bodies(subscription.read_pending(0, epoch=1, after="0", count=10)) == [b"2"]


def test_a_pending_entry_that_was_deleted_has_no_body(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    publish(publisher, "1", "2", "3")
    read = subscription.read_new(0, epoch=1, count=10)
    transport.client.xdel(transport.stream_key(STREAM, 0), read[1].position)

    again = subscription.read_pending(0, epoch=1, after="0", count=10)

    assert again == [read[0], Entry(read[1].position, None), read[2]]


def test_an_entry_of_a_stranger_has_an_empty_body(
    subscription: RedisSubscription, transport: RedisStreams
) -> None:
    transport.client.xadd(transport.stream_key(STREAM, 0), {"hello": "world"})

    assert bodies(subscription.read_new(0, epoch=1, count=10)) == [b""]


def test_groups_read_the_same_entries(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    other = transport.subscription(STREAM, "others", "0")
    other.raise_epoch(0, 1)
    publish(publisher, "1")

    assert bodies(subscription.read_new(0, epoch=1, count=10)) == [b"1"]
    assert bodies(other.read_new(0, epoch=1, count=10)) == [b"1"]


def test_a_new_group_begins_where_it_was_told(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    publish(publisher, "1")
    late = transport.subscription(STREAM, "late", "$")
    late.raise_epoch(0, 1)
    publish(publisher, "2")

    assert bodies(late.read_new(0, epoch=1, count=10)) == [b"2"]


def test_a_group_is_created_once_by_ten_threads(transport: RedisStreams) -> None:
    made = [transport.subscription(STREAM, "racing", "0") for _ in range(10)]
    gate = threading.Barrier(10)
    failures: list[Exception] = []

    def create(subscription: RedisSubscription) -> None:
        gate.wait(10)
        try:
            subscription.raise_epoch(0, 1)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=create, args=(each,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    client: Any = transport.client
    assert failures == []
    assert len(client.xinfo_groups(transport.stream_key(STREAM, 0))) == 1


def test_a_lost_group_is_made_again_and_skips_nothing(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    publish(publisher, "1")
    subscription.read_new(0, epoch=1, count=10)
    transport.client.xgroup_destroy(transport.stream_key(STREAM, 0), "readers")
    publish(publisher, "2")

    assert subscription.read_new(0, epoch=1, count=10) == []
    assert bodies(subscription.read_new(0, epoch=1, count=10)) == [b"1", b"2"]


def test_a_lost_stream_is_read_from_its_new_beginning(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    publish(publisher, "1")
    subscription.read_new(0, epoch=1, count=10)
    transport.client.delete(transport.stream_key(STREAM, 0))
    publish(publisher, "2")

    subscription.read_new(0, epoch=1, count=10)

    assert bodies(subscription.read_new(0, epoch=1, count=10)) == [b"2"]


def test_a_later_owner_of_a_lost_group_reads_from_the_beginning(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    publish(publisher, "1")
    late = transport.subscription(STREAM, "late", "$")

    late.raise_epoch(0, 2)

    assert bodies(late.read_new(0, epoch=2, count=10)) == [b"1"]


def waited_s(subscription: RedisSubscription, timeout_s: float) -> float:
    started_s = time.monotonic()
    subscription.wait([0], timeout_s)
    return time.monotonic() - started_s


def test_a_wait_ends_when_its_time_is_over(subscription: RedisSubscription) -> None:
    assert 0.04 < waited_s(subscription, 0.05) < 1


def test_a_wait_ends_for_an_entry_added_since_the_last_read(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    publish(publisher, "1")
    subscription.read_new(0, epoch=1, count=10)
    publish(publisher, "2")

    assert waited_s(subscription, 1) < 0.5


def test_a_wait_ends_for_an_entry_added_before_the_first_read(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    subscription.read_new(0, epoch=1, count=10)
    publish(publisher, "1")

    assert waited_s(subscription, 1) < 0.5


def test_a_wait_ends_for_an_entry_that_comes_meanwhile(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    later = threading.Timer(0.05, publish, (publisher, "1"))
    later.start()

    assert waited_s(subscription, 1) < 0.8
    later.join()


def test_a_wait_is_not_woken_by_what_another_owner_read(
    publisher: RedisPublisher, subscription: RedisSubscription, transport: RedisStreams
) -> None:
    """Else a worker that got its partition back would turn in circles."""
    publish(publisher, "1")
    subscription.read_new(0, epoch=1, count=10)
    between = transport.subscription(STREAM, "readers", "0")
    between.raise_epoch(0, 2)
    publish(publisher, "2")
    between.read_new(0, epoch=2, count=10)

    subscription.raise_epoch(0, 3)

    assert subscription.read_new(0, epoch=3, count=10) == []
    assert waited_s(subscription, 0.05) > 0.04


def test_a_long_wait_ends_before_the_client_gives_up(subscription: RedisSubscription) -> None:
    assert waited_s(subscription, 60) < 3


def test_a_client_that_decodes_is_refused(servers: Stack) -> None:
    client = redis.Redis.from_url(servers.redis_url, decode_responses=True)

    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStreams(client)


def test_a_wrong_password_is_named_and_not_shown(servers: Stack) -> None:
    address = servers.redis_url.rpartition("@")[2]
    client = redis_streams.connect(f"redis://:wrong-secret@{address}")

    with pytest.raises(ConfigurationError, match="LABKIT_REDIS_URL") as raised:
        RedisStreams(client).publisher(STREAM).epoch(0)

    assert "wrong-secret" not in str(raised.value) + repr(raised.value.__cause__)


@pytest.mark.parametrize("url", ["http://:my-secret@host/0", "redis://:my-secret/part@host:1/0"])
def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        redis_streams.connect(url)

    assert raised.value.__cause__ is None
    assert "my-secret" not in str(raised.value)


def test_a_server_that_is_away_is_unavailable_at_once() -> None:
    publisher = RedisStreams(redis_streams.connect(CLOSED_PORT)).publisher(STREAM)
    started_s = time.monotonic()

    with pytest.raises(BrokerUnavailableError) as raised:
        publisher.head(0)

    assert time.monotonic() - started_s < 1
    assert "wrong-secret" not in str(raised.value)


def test_a_key_of_another_type_needs_a_person(
    publisher: RedisPublisher, transport: RedisStreams
) -> None:
    transport.client.set(transport.stream_key(STREAM, 0), "no stream")

    with pytest.raises(ConfigurationError, match="another type"):
        publish(publisher, "1")


@pytest.fixture(scope="module")
def private() -> Iterator[redis.Redis]:
    """A Valkey of this module's own, whose settings may be changed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tempfile.mkdtemp(prefix="labkit-valkey-")
    program = str(valkey_program(find_home(place)))
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", place]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    client = redis_streams.connect(f"redis://127.0.0.1:{port}/0")
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.01)
    yield client
    client.close()
    process.terminate()
    process.wait(10)
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize(
    ("setting", "value", "back"),
    [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")],
)
def test_a_server_that_takes_no_writes_is_unavailable_and_takes_nothing(
    private: redis.Redis, setting: str, value: str, back: str
) -> None:
    transport = RedisStreams(private, f"{setting}:")
    publisher = transport.publisher(STREAM)
    publisher.raise_epoch(0, 1)
    private.config_set(setting, value)

    with pytest.raises(BrokerUnavailableError):
        publish(publisher, "1", "2")

    private.config_set(setting, back)
    assert (stream(transport), publisher.head(0)) == ([], None)
    publish(publisher, "1", "2")
    assert stream(transport) == [b"1", b"2"]


def test_a_replica_is_unavailable(private: redis.Redis) -> None:
    transport = RedisStreams(private, "replica:")
    publisher, subscription = transport.publisher(STREAM), transport.subscription(STREAM, "g", "0")
    publisher.raise_epoch(0, 1)
    subscription.raise_epoch(0, 1)
    private.replicaof("127.0.0.1", "1")

    with pytest.raises(BrokerUnavailableError):
        publish(publisher, "1")
    with pytest.raises(BrokerUnavailableError):
        subscription.read_new(0, epoch=1, count=1)
    with pytest.raises(BrokerUnavailableError):
        subscription.raise_epoch(0, 2)

    private.replicaof("no", "one")


def test_a_user_without_rights_needs_a_person(private: redis.Redis) -> None:
    private.acl_setuser(
        "reader", enabled=True, passwords=["+pass"], keys=["*"], commands=["+get", "+ping"]
    )
    port = private.get_connection_kwargs()["port"]
    client = redis_streams.connect(f"redis://reader:pass@127.0.0.1:{port}/0")

    with pytest.raises(ConfigurationError, match="NoPermissionError"):
        RedisStreams(client).publisher(STREAM).head(0)


def test_a_script_that_the_server_forgot_is_sent_again(private: redis.Redis) -> None:
    transport = RedisStreams(private, "scripts:")
    publisher = transport.publisher(STREAM)
    publisher.raise_epoch(0, 1)
    publish(publisher, "1")

    private.script_flush()
    publish(publisher, "2")

    assert stream(transport) == [b"1", b"2"]


def test_a_look_says_which_partitions_have_news(
    publisher: RedisPublisher, subscription: RedisSubscription
) -> None:
    assert subscription.wait([0], 0.0) == []
    publish(publisher, "1")
    assert subscription.wait([0], 0.0) == [0]
    subscription.read_new(0, epoch=1, count=10)
    assert subscription.wait([0], 0.0) == []
