"""The proxy does to a connection what it says, and labkit keeps its promise behind it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, make_url, text

from labkit import db
from labkit.errors import CommitUnknownError
from labkit.lab.servers import Stack
from labkit.testing import sample
from labkit.testing.proxy import Proxy
from labkit.transports.redis_streams import RedisStreams
from tests.testing.conftest import Pair
from tests.waiting import eventually

IMPATIENCE_S = 0.3


@pytest.fixture
def echo() -> Iterator[int]:
    """Return the port of a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1024):
                    connection.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo) as made:
        yield made


def _dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(1024)


def test_bytes_pass_and_are_counted(proxy: Proxy) -> None:
    with _dial(proxy) as connection:
        assert _echoed(connection, b"hello") == b"hello"

    counts = proxy.counts
    assert (counts.connections, counts.to_server, counts.to_client) == (1, 5, 5)


def test_latency_counts_in_both_directions_and_can_change(proxy: Proxy) -> None:
    with _dial(proxy) as connection:
        proxy.latency_s = 0.05
        started_s = time.monotonic()
        _echoed(connection, b"x")
        took_s = time.monotonic() - started_s

    assert took_s >= 0.1


def test_a_slow_line_takes_its_time_per_byte(proxy: Proxy) -> None:
    proxy.bytes_per_s = 1000
    with _dial(proxy) as connection:
        started_s = time.monotonic()
        _echoed(connection, b"x" * 100)

    assert time.monotonic() - started_s >= 0.2


def test_a_black_hole_keeps_the_connection_and_lets_nothing_pass(proxy: Proxy) -> None:
    with _dial(proxy) as connection:
        _echoed(connection, b"x")
        proxy.drop = True
        connection.settimeout(IMPATIENCE_S)

        with pytest.raises(TimeoutError):
            _echoed(connection, b"y")
        proxy.drop = False
        assert _echoed(connection, b"z") == b"z"


def test_a_refused_connection_is_refused_until_it_is_accepted_again(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        _dial(proxy)

    proxy.accept()

    with _dial(proxy) as connection:
        assert _echoed(connection, b"x") == b"x"


def test_a_reset_ends_the_open_connections(proxy: Proxy) -> None:
    with _dial(proxy) as connection:
        _echoed(connection, b"x")
        proxy.reset()

        with pytest.raises(ConnectionResetError):
            connection.recv(1024)


@pytest.mark.parametrize(("direction", "passed"), [("to_server", (3, 3)), ("to_client", (6, 3))])
def test_a_cut_lets_exactly_so_many_bytes_pass(
    proxy: Proxy, direction: Any, passed: tuple[int, int]
) -> None:
    with _dial(proxy) as connection:
        proxy.cut_after(3, direction)
        connection.sendall(b"abcdef")
        eventually(lambda: proxy.counts.cuts, 1)

    assert proxy.counts.to_server == passed[0]
    assert proxy.counts.to_client <= passed[1]


def test_only_the_answer_to_the_named_request_is_lost(proxy: Proxy) -> None:
    proxy.lose_answer_to(b"COMMIT")
    with _dial(proxy) as connection:
        assert _echoed(connection, b"begin") == b"begin"
        connection.sendall(b"COMMIT")
        with pytest.raises(ConnectionResetError):
            connection.recv(1024)

    assert (proxy.counts.to_server, proxy.counts.to_client) == (11, 5)


def test_nothing_is_left_running(echo: int) -> None:
    before = set(threading.enumerate())
    with Proxy("127.0.0.1", echo) as made:
        connection = _dial(made)
        _echoed(connection, b"x")
        ours = set(threading.enumerate()) - before

    connection.close()
    assert len(ours) >= 3
    assert not [thread for thread in ours if thread.is_alive() and thread in made._threads]


@pytest.fixture
def postgres(pair: Pair) -> Iterator[tuple[Proxy, Engine]]:
    """Return a proxy before PostgreSQL, and the sender's engine behind it."""
    url = make_url(pair.source.url.render_as_string(hide_password=False))
    with Proxy(url.host or "127.0.0.1", url.port or 5432) as made:
        engine = db.connect(url.set(host="127.0.0.1", port=made.port))
        yield made, engine
        engine.dispose()


@pytest.fixture
def broker(servers: Stack, pair: Pair) -> Iterator[tuple[Proxy, RedisStreams]]:
    """Return a proxy before Redis, and an impatient transport behind it."""
    where = urlsplit(servers.redis_url)
    with Proxy(where.hostname or "127.0.0.1", where.port or 6379) as made:
        user, _, _ = where.netloc.rpartition("@")
        netloc = f"{user}@127.0.0.1:{made.port}" if user else f"127.0.0.1:{made.port}"
        client = redis.Redis.from_url(
            where._replace(netloc=netloc).geturl(),
            socket_timeout=IMPATIENCE_S,
            retry=Retry(NoBackoff(), 0),
        )
        yield made, RedisStreams(client, pair.transport.prefix)
        client.close()


def test_a_commit_whose_answer_is_lost_names_its_transaction(
    pair: Pair, postgres: tuple[Proxy, Engine]
) -> None:
    proxy, engine = postgres
    proxy.lose_answer_to(b"COMMIT")
    order = sample.OrderPlaced(order_id="a-1", customer="a", n=1)

    with pytest.raises(CommitUnknownError) as caught:
        sample.place(engine, order)

    with pair.source.connect() as connection:
        asked = text("select pg_xact_status(cast(cast(:xid as text) as xid8))")
        assert connection.execute(asked, {"xid": str(caught.value.xid)}).scalar() == "committed"
    pair.settle()
    findings = pair.audit()
    assert (findings.holds, findings.judged) == (True, 1)


def test_a_commit_that_never_arrived_leaves_nothing(
    pair: Pair, postgres: tuple[Proxy, Engine]
) -> None:
    proxy, engine = postgres
    order = sample.OrderPlaced(order_id="a-1", customer="a", n=1)
    with engine.connect() as connection:
        sample.insert_order(connection, order)
        sample.sender.outbox.add(connection, order, key="a", message_id="a-1")
        proxy.cut_after(0, "to_server")
        with pytest.raises(CommitUnknownError):
            connection.commit()

    pair.settle()

    assert pair.audit().judged == 0


def test_a_publish_whose_answer_is_lost_is_recognised_and_keeps_its_order(
    pair: Pair, broker: tuple[Proxy, RedisStreams]
) -> None:
    proxy, transport = broker
    pair.place("a", 1, 2)
    relay = sample.sender.relay(pair.source, transport, owner="relay", poll_s=(0.001, 0.002))
    relay.run_once()  # takes the partitions, and looks at their heads
    pair.place("a", 3, 4)
    proxy.lose_answer_to(b"OrderPlaced")

    _drain(pair, relay.run_once)

    pair.settle()
    findings = pair.audit()
    assert (proxy.counts.cuts, findings.holds, findings.repeated) == (1, True, 2)


def test_a_connection_that_breaks_mid_batch_publishes_it_whole_and_once(
    pair: Pair, broker: tuple[Proxy, RedisStreams]
) -> None:
    proxy, transport = broker
    pair.place("a", 1)
    relay = sample.sender.relay(pair.source, transport, owner="relay", poll_s=(0.001, 0.002))
    _drain(pair, relay.run_once)
    pair.place("a", *range(2, 40))
    proxy.cut_after(2000, "to_server")

    relay.run_once()
    broken = pair.transport.client.xlen(pair.stream_of("a"))
    _drain(pair, relay.run_once)

    pair.settle()
    findings = pair.audit()
    assert (proxy.counts.cuts, broken, findings.holds, findings.repeated) == (1, 1, True, 0)


def test_latency_makes_nothing_wrong(pair: Pair, broker: tuple[Proxy, RedisStreams]) -> None:
    proxy, transport = broker
    proxy.latency_s, proxy.jitter_s = 0.001, 0.003
    for customer in "abc":
        pair.place(customer, 1, 2, 3)

    Pair(pair.source, pair.target, transport).settle()

    findings = pair.audit()
    assert (findings.holds, findings.judged) == (True, 9)


def test_a_black_hole_ends_by_time_limits_and_the_loop_goes_on(
    pair: Pair, broker: tuple[Proxy, RedisStreams], caplog: pytest.LogCaptureFixture
) -> None:
    proxy, transport = broker
    relay = sample.sender.relay(pair.source, transport, owner="relay", poll_s=(0.001, 0.01))
    stop = threading.Event()
    worker = threading.Thread(target=relay.run, args=(stop,))
    with caplog.at_level(logging.WARNING):
        pair.place("a", 1)
        worker.start()
        eventually(lambda: _unpublished(pair), 0)
        proxy.drop = True
        pair.place("a", 2)
        eventually(lambda: "Redis did not take it" in caplog.text, wanted=True)
        proxy.drop = False
        eventually(lambda: _unpublished(pair), 0)
        stop.set()
        worker.join()

    pair.settle()
    assert pair.audit().holds


def _drain(pair: Pair, work: Callable[[], object]) -> None:
    """Let a relay work until everything is published."""

    def left() -> int:
        work()
        return _unpublished(pair)

    eventually(left, 0)


def _unpublished(pair: Pair) -> int:
    with pair.source.connect() as connection:
        query = text("select count(*) from outbox_messages where published_at is null")
        found: int = connection.execute(query).scalar_one()
        return found
