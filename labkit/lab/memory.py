"""Where a consumer keeps what was answered: in a dictionary, or in a table. Then it dies.

Both read the same answers to RES-2 from the stream, each in a group of its own, and acknowledge
each answer when they are done with it. `what_is_known` is the bench's notepad: what a process
knows when it begins, and after each answer. Apart from `restarts`, so that a process starts without
what only draws.

Crash window: after an acknowledgement, at "memory.after_answer"; whoever comes next gets the
answers that are left, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

from sqlalchemy import Column, Engine, Identity, Integer, MetaData, Table, Text, insert

from labkit.crash import point as may_die_here
from labkit.shop.contracts import INVENTORY, REGISTRY, StockReserved
from labkit.shop.order_book import RESERVED, status_of
from labkit.translation import Correlator
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope

ORDER, RESERVATION = "ORD-2", "RES-2"
LINES = ("BOOK-DDD", "BOOK-EDA")
POINT = "memory.after_answer"
FIRST, SECOND = "primero", "segundo"

metadata = MetaData()
what_is_known = Table(
    "what_is_known",
    metadata,
    Column("step", Integer, Identity(), primary_key=True),
    Column("kept_in", Text, nullable=False),
    Column("process", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("status", Text, nullable=False),
)
correlator = Correlator(metadata, "respuestas")


class Memory(Protocol):
    """What a consumer knows of the lines of RES-2."""

    def note(self, sku: str, result: str) -> None:
        """Keep a line's result."""

    def known(self) -> Mapping[str, str | None]:
        """Return every line with its result, None while there is none."""


class InADictionary:
    """Keeps the results in this process."""

    def __init__(self, _engine: Engine) -> None:
        self.results: dict[str, str | None] = dict.fromkeys(LINES)

    def note(self, sku: str, result: str) -> None:
        """Keep a line's result."""
        self.results[sku] = result

    def known(self) -> Mapping[str, str | None]:
        """Return what this process has noted."""
        return self.results


class InATable:
    """Keeps the results in the correlator's table."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def note(self, sku: str, result: str) -> None:
        """Keep a line's result, in a transaction."""
        with self.engine.begin() as connection:
            correlator.answer(connection, RESERVATION, sku, result)

    def known(self) -> Mapping[str, str | None]:
        """Return what any process has noted."""
        with self.engine.connect() as connection:
            return correlator.answers(connection, RESERVATION)


WAYS: Mapping[str, Callable[[Engine], Memory]] = {"diccionario": InADictionary, "tabla": InATable}


def attend(engine: Engine, transport: RedisStreams, way: str, process: str) -> None:
    """Take the answers that nobody of this group has taken yet, one by one."""
    memory = WAYS[way](engine)
    _write_down(engine, way, process, memory)
    answers = transport.subscription(INVENTORY, way, "0")
    partition = INVENTORY.partition_of(RESERVATION)
    epoch = answers.epoch(partition) + 1
    answers.raise_epoch(partition, epoch)
    while found := answers.read_new(partition, epoch=epoch, count=1):
        memory.note(_article(found[0].body or b""), RESERVED)
        answers.ack(partition, [found[0].position])
        _write_down(engine, way, process, memory)
        may_die_here(POINT)


def _write_down(engine: Engine, way: str, process: str, memory: Memory) -> None:
    known = memory.known()
    row = {
        "kept_in": way,
        "process": process,
        "lines": len([result for result in known.values() if result is not None]),
        "status": status_of(known.values()),
    }
    with engine.begin() as connection:
        connection.execute(insert(what_is_known).values(row))


def _article(body: bytes) -> str:
    return cast("StockReserved", REGISTRY.decode(decode_envelope(body))).sku
