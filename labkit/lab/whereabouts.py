"""Where is an order? The same five questions in both styles, and how many queries they take.

In choreography nobody holds the course: one asks every place where the order could be, and
concludes. A saga has it in one row.

Guarantee: the queries are counted where they are executed; what is answered is what they returned.
Not guaranteed: that nobody could ask more cleverly; these are the tables that exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from labkit.clock import Clock
from labkit.lab.bench import Bench
from labkit.lab.relaying import relay_all
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import PRICE_CENTS
from labkit.saga import DO, Command, Request
from labkit.shop import checkout, fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT, INVENTORY, ReserveStockRequested
from labkit.shop.order_book import reservation_id_of

NOBODY_KNOWS = "no consta"
_SIDES = {FULFILLMENT: "fulfillment", INVENTORY: "inventory"}


class Answer(NamedTuple):
    """What is known of an order.

    Args:
        status: how it stands.
        step: what is under way.
        waits_for: who has to answer.
        since: when it began.
        until: when the wait is over.
        queries: how many were executed for it.
        databases: how many were asked.
    """

    status: str
    step: str
    waits_for: str
    since: datetime
    until: datetime | str
    queries: int
    databases: int


QUESTIONS: Mapping[str, str] = {
    "status": "¿cómo está?",
    "step": "¿qué está en curso?",
    "waits_for": "¿quién tiene que contestar?",
    "since": "¿desde cuándo?",
    "until": "¿hasta cuándo se espera?",
    "queries": "consultas",
    "databases": "bases de datos",
}


def danced(bench: Bench, order_id: str, clock: Clock) -> Answer:
    """Place an order of the story that inventory does not answer, and look for it.

    Args:
        bench: where; one that is thrown away.
        order_id: which.
        clock: the time of the orders.
    """
    bench.orders.update_execution_options(labkit_clock=clock)
    bench.place(order_id, *CAST[order_id].lines)
    relay_all(bench.orders, bench.transport)
    return in_choreography(bench, order_id)


def conducted(bench: Bench, order_id: str, clock: Clock) -> Answer:
    """Begin the saga of an order of the story that inventory does not answer, and look for it.

    Arguments as in `danced`.
    """
    bench.orders.update_execution_options(labkit_clock=clock)
    with Session(bench.orders) as session, session.begin():
        checkout.check_out(session, order_id, CAST[order_id].lines, amount_cents=PRICE_CENTS)
    relay_all(bench.orders, bench.transport)
    return in_saga(bench, order_id)


def in_choreography(bench: Bench, order_id: str) -> Answer:
    """Ask every place where an order's request could be.

    Args:
        bench: where.
        order_id: which.
    """
    with _counting(bench) as queries:
        shown = _one(bench.orders, _row_of_the_view(order_id))
        asked = _one(bench.orders, _request(order_id))
        handled = _one(bench.stock, _noted(asked.message_id))
        answers = _one(bench.stock, _answers(order_id))
    on_the_way = "pedir stock" if asked.published_at else "pedir stock, sin publicar"
    step = "aplicar la respuesta" if answers.count else on_the_way
    waits_for = "fulfillment" if handled or not asked.published_at else "inventory"
    return Answer(
        shown.status, step, waits_for, shown.updated_at, NOBODY_KNOWS,
        queries=len(queries), databases=len(set(queries)),
    )  # fmt: skip


def in_saga(bench: Bench, order_id: str) -> Answer:
    """Read the row of an order's saga; who has to answer is in the definition.

    Args:
        bench: where.
        order_id: which.
    """
    table = checkout.sagas.store.table
    mine = select(table).where(table.c.id == reservation_id_of(order_id))
    with _counting(bench) as queries:
        row = _one(bench.orders, mine)
    command = checkout.CHECKOUT.action(Request(row.step, DO))
    source = command.source if isinstance(command, Command) else None
    return Answer(
        row.status, row.step, _SIDES[source] if source else "–", row.started_at, row.due_at,
        queries=len(queries), databases=len(set(queries)),
    )  # fmt: skip


def table(answers: Mapping[str, Answer]) -> pd.DataFrame:
    """Return the questions, and what each style answers.

    Args:
        answers: style to answer.
    """
    rows = [
        {"pregunta": question} | {style: getattr(said, name) for style, said in answers.items()}
        for name, question in QUESTIONS.items()
    ]
    return pd.DataFrame(rows, dtype=object)


@contextmanager
def _counting(bench: Bench) -> Iterator[list[str]]:
    """Note the database of every query that is executed."""
    seen: list[str] = []

    def note(connection: Any, *_: object) -> None:
        seen.append(str(connection.engine.url.database))

    for engine in (bench.orders, bench.stock):
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in (bench.orders, bench.stock):
            event.remove(engine, "before_cursor_execute", note)


def _one(engine: Engine, query: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(query).one_or_none()


def _row_of_the_view(order_id: str) -> Any:
    return select(fulfillment.view.table).where(fulfillment.view.table.c.order_id == order_id)


def _request(order_id: str) -> Any:
    columns = fulfillment.service.outbox.table.c
    mine = (columns.key == reservation_id_of(order_id)) & (
        columns.topic == ReserveStockRequested.topic
    )
    return select(columns.message_id, columns.published_at).where(mine)


def _noted(message_id: str) -> Any:
    columns = inventory.service.inbox.table.c
    return select(columns.handled_at).where(columns.message_id == message_id)


def _answers(order_id: str) -> Any:
    columns = inventory.service.outbox.table.c
    return select(func.count().label("count")).where(columns.key == reservation_id_of(order_id))
