"""The checkout of lines `saga_*` written by hand: the least that applies each effect once.

Start: saga row and command in one statement. A relay per service: claim, one pipeline of XADD,
mark; woken by NOTIFY. Stock: inbox, `checkout.RESERVE`, answers in the outbox, commit,
acknowledge. Orchestrator: inbox, sagas changed if their version is still the awaited one, orders
of the granted ones, commit, acknowledge. A transaction takes all partitions.

It has no history, no deadline, no attempts, no way back behind the first step, no lease, no epoch,
holds nothing, and loses the message that fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from benchmarks.arena import raw_connection
from benchmarks.checkout import Checkout, Order, ordering, reserve, stock
from benchmarks.consuming import INBOX
from benchmarks.latency import thread_event
from labkit.messages import uuid7
from labkit.ports import Stream
from labkit.service import Service

BATCH = 1000
WAIT_S = 0.1
START = """
    with started as (
        insert into saga_by_hand (id, status, version)
        select id, 'RUNNING', 1 from unnest(%s::text[]) as id
    ), stored as (
        insert into outbox_messages (message_id, topic, key, partition, body)
        select * from unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::text[])
    )
    select pg_notify('labkit_outbox_messages', '')
"""
ANSWER = """
    with stored as (
        insert into outbox_messages (message_id, topic, key, partition, body)
        select * from unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::text[])
    )
    select pg_notify('labkit_outbox_messages', '')
"""
END = """
    with ended as (
        update saga_by_hand as s set status = r.status, version = s.version + 1
        from unnest(%s::text[], %s::text[]) as r(id, status)
        where s.id = r.id and s.version = 1
        returning s.id, s.status
    )
    insert into orders (id, state) select id, 'CONFIRMED' from ended where status = 'COMPLETED'
"""
CLAIM = """
    select seq, partition, body from outbox_messages
    where published_at is null order by seq limit %s
"""
MARK = "update outbox_messages set published_at = clock_timestamp() where seq = any(%s)"
ENDS = {"StockReserved": "COMPLETED", "StockRejected": "COMPENSATED"}
Read = dict[str, Any]
Handle = Callable[[Any, Sequence[Read]], None]


def start(connection: Any, orders: Sequence[Order]) -> None:
    """Begin sagas on a connection in autocommit mode: one statement is one transaction."""
    wanted = {order.id: ("ReserveStock", {"sku": order.sku, "qty": order.qty}) for order in orders}
    connection.execute(START, (list(wanted), *_rows(ordering.stream, wanted)))


def answer(connection: Any, messages: Sequence[Read]) -> None:
    """Reserve for requests, and answer."""
    requests = {each["correlationId"]: each["event"]["payload"] for each in messages}
    granted = reserve(connection, [(i, want["sku"], want["qty"]) for i, want in requests.items()])
    answers: dict[str, tuple[str, dict[str, Any]]] = {
        id_: ("StockReserved", {})
        if id_ in granted
        else ("StockRejected", {"reason": "OUT_OF_STOCK"})
        for id_ in requests
    }
    connection.execute(ANSWER, _rows(stock.stream, answers))


def end(connection: Any, messages: Sequence[Read]) -> None:
    """End sagas as the answers say."""
    ends = {each["correlationId"]: ENDS[each["event"]["type"]] for each in messages}
    connection.execute(END, (list(ends), list(ends.values())))


def _rows(stream: Stream, messages: dict[str, tuple[str, dict[str, Any]]]) -> list[list[Any]]:
    """Return ids, topics, keys, partitions and bodies."""
    ids = [uuid7() for _ in messages]
    bodies = [
        msgspec.json.encode(
            {
                "messageId": message_id,
                "correlationId": id_,
                "headers": {},
                "event": {"type": kind, "version": 1, "payload": payload},
            }
        ).decode()
        for message_id, (id_, (kind, payload)) in zip(ids, messages.items(), strict=True)
    ]
    topics = [kind for kind, _ in messages.values()]
    return [ids, topics, list(messages), [stream.partition_of(id_) for id_ in messages], bodies]


class Part(NamedTuple):
    """A service: the place of its database in the address, what it reads, how it handles that."""

    at: int
    service: Service
    source: Stream
    handle: Handle


STOCK = Part(1, stock, ordering.stream, answer)
ORDERING = Part(0, ordering, stock.stream, end)


def run_ordering(address: Sequence[str], _batch: int, ready: Any, stop: Any) -> None:
    """Run relay and orchestrator until told to stop."""
    _run(address, ORDERING, ready, thread_event(stop))


def run_stock(address: Sequence[str], _batch: int, ready: Any, stop: Any) -> None:
    """Run relay and stock until told to stop."""
    _run(address, STOCK, ready, thread_event(stop))


def _run(address: Sequence[str], part: Part, ready: Any, stop: threading.Event) -> None:
    place, url = Checkout(*address), address[part.at]
    relay = threading.Thread(
        target=relay_all, args=(place, url, _keys(place, part.service.stream), stop)
    )
    relay.start()
    keys = subscribe(place, part)
    ready.set()
    with raw_connection(url) as connection:
        connection.autocommit = False
        while not stop.is_set():
            consume(place, connection, keys, part)
    relay.join()
    place.close()


def subscribe(place: Checkout, part: Part) -> list[str]:
    """Let a part read from the beginning; return the keys of the partitions."""
    keys = _keys(place, part.source)
    for key in keys:
        place.client.xgroup_create(key, part.service.name, id="0", mkstream=True)
    return keys


def _keys(place: Checkout, stream: Stream) -> list[str]:
    return [place.streams.stream_key(stream, p) for p in range(stream.partitions)]


def relay_all(place: Checkout, url: str, keys: Sequence[str], stop: threading.Event) -> None:
    """Publish until told to stop, woken by NOTIFY."""
    with raw_connection(url) as connection, raw_connection(url) as listener:
        listener.execute("listen labkit_outbox_messages")
        wait = partial(listener.notifies, timeout=WAIT_S, stop_after=1)
        while not stop.is_set():
            if not publish(place, connection, keys):
                list(wait())


def publish(place: Checkout, connection: Any, keys: Sequence[str]) -> int:
    """Publish a batch of all partitions."""
    rows = connection.execute(CLAIM, (BATCH,)).fetchall()
    if rows:
        pipeline = place.client.pipeline(transaction=False)
        for _, partition, body in rows:
            pipeline.xadd(keys[partition], {"body": body})
        pipeline.execute()
        connection.execute(MARK, ([seq for seq, _, _ in rows],))
    return len(rows)


def consume(place: Checkout, connection: Any, keys: Sequence[str], part: Part) -> None:
    """Handle a batch of all partitions in a transaction."""
    group = part.service.name
    client: Any = place.client
    news = dict.fromkeys(keys, ">")
    reply = client.xreadgroup(group, "owner", news, count=BATCH, block=int(WAIT_S * 1000))
    bodies = [fields[b"body"] for _, entries in reply for _, fields in entries]
    if not bodies:
        return
    read: dict[str, Read] = {each["messageId"]: each for each in map(msgspec.json.decode, bodies)}
    noted = (group, list(read), [b""] * len(read))
    fresh = {row[0] for row in connection.execute(INBOX, noted)}
    part.handle(connection, [each for message_id, each in read.items() if message_id in fresh])
    connection.commit()
    pipeline = place.client.pipeline(transaction=False)
    for key, entries in reply:
        pipeline.xack(key, group, *(position for position, _ in entries))
    pipeline.execute()
