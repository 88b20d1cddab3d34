"""A poisoned message: set aside with its reason, its key waits, the others flow; then redriven.

`flow` runs the shop's real workers over a bench of 24 orders, one of them poisoned and four of them
cancelled, and counts after every round where the requests to inventory are.

Guarantee: the counts are read from outbox, inbox and held messages; they add up to what was sent.
Not guaranteed: in how many rounds; that depends on the workers' batches.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select, update

from labkit.dead_letters import Wanted
from labkit.lab.bench import STOCK, Bench
from labkit.lab.charts_axes import Points
from labkit.lab.spanish import number
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import ReleaseReservationRequested, ReserveStockRequested
from labkit.shop.order_book import reservation_id_of
from labkit.testing.audit import audit

ORDERS = tuple(f"ORD-{n}" for n in range(1001, 1025))
SICK = "ORD-1012"
CANCELLED = (SICK, "ORD-1003", "ORD-1008", "ORD-1020")
BATCH = 2
_ASKED = (ReserveStockRequested.topic, ReleaseReservationRequested.topic)


def poison(bench: Bench, order_id: str, sane: str, poisoned: str = '"qty":"dos"') -> None:
    """Spoil the unpublished request of an order, as a careless writer would have.

    Args:
        bench: where.
        order_id: which.
        sane: what its body says.
        poisoned: what it says afterwards.
    """
    table = fulfillment.service.outbox.table
    mine = table.c.key == reservation_id_of(order_id)
    with bench.orders.begin() as connection:
        body = connection.execute(select(table.c.body).where(mine)).scalar_one()
        connection.execute(update(table).where(mine).values(body=body.replace(sane, poisoned)))


def cure(bench: Bench, sane: str, poisoned: str = '"qty":"dos"') -> int:
    """Correct inventory's dead letters and ask for them again; return how many."""
    held, letters = inventory.service.held.table, inventory.service.dead_letters
    wanted = Wanted(consumer=inventory.service.name)
    with bench.stock.begin() as connection:
        found = letters.find(connection, wanted)
        for letter in found:
            body = letter.body.replace(poisoned.encode(), sane.encode())
            mine = held.c.position == letter.position
            connection.execute(update(held).where(mine).values(body=body))
        return len(letters.redrive_all(connection, wanted).flagged)


class Stock(NamedTuple):
    """Where the requests to inventory are."""

    unhandled: int
    dead: int
    behind: int
    handled: int


class Flow(NamedTuple):
    """What a run showed.

    Args:
        rounds: the stock of messages after each round of the workers.
        cured_at: the round after which the dead letter was corrected and redriven.
        wrong: what the audit found at the end.
        answers: what inventory answered to the poisoned order, in order.
    """

    rounds: list[Stock]
    cured_at: int
    wrong: list[str]
    answers: list[str]


def flow(bench: Bench) -> Flow:
    """Let the poisoned message and the others flow, correct it, and let all end.

    Args:
        bench: with `batch=BATCH`; one that is thrown away.
    """
    for order_id in ORDERS:
        bench.place(order_id, ("BOOK-DDD", 1))
    poison(bench, SICK, '"qty":1')
    for order_id in CANCELLED:
        bench.cancel(order_id)
    rounds = [look(bench), *_work(bench)]
    cured_at = len(rounds) - 1
    cure(bench, '"qty":1')
    rounds += _work(bench)
    bench.settle()  # gives the partitions back
    found = audit(bench.orders, bench.stock, bench.transport, STOCK)
    wrong = [f"{name}: {why}" for name, why in found.items() if why]
    return Flow(rounds, cured_at, wrong, _answers(bench, SICK))


def _work(bench: Bench) -> list[Stock]:
    rounds = []
    while sum(bool(worker.run_once()) for worker in bench.workers):
        rounds.append(look(bench))
    return rounds


def look(bench: Bench) -> Stock:
    """Count where the requests to inventory are."""
    sent, held = fulfillment.service.outbox.table.c, inventory.service.held.table.c
    with bench.orders.connect() as connection:
        asked = select(func.count()).where(sent.topic.in_(_ASKED))
        total: int = connection.execute(asked).scalar_one()
    mine = held.consumer == inventory.service.name
    with bench.stock.connect() as connection:
        states = connection.execute(select(held.state).where(mine)).scalars().all()
        noted = inventory.service.inbox.table.c.consumer == inventory.service.name
        handled: int = connection.execute(select(func.count()).where(noted)).scalar_one()
    dead = states.count("parked")
    return Stock(total - len(states) - handled, dead, len(states) - dead, handled)


def _answers(bench: Bench, order_id: str) -> list[str]:
    said = inventory.service.outbox.table.c
    mine = select(said.topic).where(said.key == reservation_id_of(order_id)).order_by(said.seq)
    with bench.stock.connect() as connection:
        return [topic.split(".")[1] for topic in connection.execute(mine).scalars()]


def lines(found: Flow) -> dict[str, Points]:
    """Return the stock of messages by round."""
    names = {"sin atender": "unhandled", "atendidos": "handled", "muertos y detrás": ""}
    return {
        name: [(n, _count(stock, field)) for n, stock in enumerate(found.rounds)]
        for name, field in names.items()
    }


def _count(stock: Stock, field: str) -> int:
    return getattr(stock, field) if field else stock.dead + stock.behind


def reading(found: Flow) -> str:
    """Read what waited, what flowed meanwhile, and the end."""
    before, end = found.rounds[found.cured_at], found.rounds[-1]
    total = sum(end)
    return (
        f"Antes de corregirlo: {number(before.handled)} de {number(total)} mensajes atendidos, "
        f"{number(before.dead)} muerto y {number(before.behind)} detrás, de su misma clave. "
        f"Al final: {number(end.handled)} atendidos y {number(total - end.handled)} en espera. "
        f"{SICK} recibe, en orden: {', '.join(found.answers)}."
    )
