"""Two small services for tests: `source` says that something happened, `target` writes it down.

An event tells its handler how to behave, so that a test can order a failure by message.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from sqlalchemy import BigInteger, Column, Engine, Identity, Integer, Table, Text, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.errors import PermanentError
from labkit.messages import Event, Message, Registry
from labkit.ports import Stream
from labkit.service import Service

SOURCE = Stream("source.events", partitions=4)


class Happened(Event, frozen=True):
    """Number `n` of its key happened; `behaviour` is what the handler does about it."""

    topic: ClassVar[str] = "source.happened.v1"

    key: str
    n: int
    behaviour: str = "record"


class Ignored(Event, frozen=True):
    """Nobody handles this."""

    topic: ClassVar[str] = "source.ignored.v1"


REGISTRY = Registry(Happened, Ignored)
source = Service("source", REGISTRY, stream=SOURCE)
target = Service("target", REGISTRY)

counters = Table(
    "counters",
    source.metadata,
    Column("key", Text, primary_key=True),
    Column("n", Integer, nullable=False),
)
effects = Table(
    "effects",
    target.metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("n", Integer, nullable=False),
)
# What handlers saw, and behaviours that a test has repaired.
seen: list[Message[Happened]] = []
repaired: set[str] = set()
hooks: dict[str, Callable[[Session], None]] = {}
SLEEP = "sleep"


@target.on(Happened, source=SOURCE)
def write_down(session: Session, message: Message[Happened]) -> None:
    """Record an effect, then behave as the event says."""
    seen.append(message)
    event = message.event
    row = {"message_id": message.message_id, "key": event.key, "n": event.n}
    session.execute(insert(effects), row)
    if event.behaviour == SLEEP:
        session.execute(text("select pg_sleep(2)"))
    elif event.behaviour in hooks:
        hooks[event.behaviour](session)
    elif event.behaviour not in repaired:
        _behave(event.behaviour, message.attempt)


def _behave(behaviour: str, attempt: int) -> None:
    verb, _, argument = behaviour.partition(" ")
    if verb == "permanent":
        raise PermanentError(behaviour)
    if verb == "fail" or (verb == "until" and attempt < int(argument)):
        raise RuntimeError(behaviour)
    if verb == "exit":
        os._exit(9)


def happen(engine: Engine, key: str, *numbers: int, behaviour: str = "record") -> list[str]:
    """Commit one event per number, each in its own transaction; return the message ids."""
    ids = []
    for n in numbers:
        with Session(engine) as session, session.begin():
            event = Happened(key=key, n=n, behaviour=behaviour)
            ids.append(source.outbox.add(session, event, key=key))
    return ids


def happen_next(session: Session, key: str) -> int:
    """Add the next number of a key in the caller's transaction, counted under its row lock."""
    first = insert(counters).values(key=key, n=1)
    bump = first.on_conflict_do_update(index_elements=["key"], set_={"n": counters.c.n + 1})
    n: int = session.execute(bump.returning(counters.c.n)).scalar_one()
    source.outbox.add(session, Happened(key=key, n=n), key=key)
    return n


def effects_of(engine: Engine, key: str | None = None) -> list[int]:
    """Return the recorded numbers in the order of their effects."""
    query = select(effects.c.n).order_by(effects.c.seq)
    with engine.connect() as connection:
        return list(
            connection.execute(
                query if key is None else query.where(effects.c.key == key)
            ).scalars()
        )
