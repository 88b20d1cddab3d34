"""View lag: how many changes of orders the read model has not shown yet, turn by turn.

In a turn a checkout may begin, and every worker works once; the view's worker comes last, and for
some turns it does not come. Both sides are counted in the books after each turn.

Guarantee: real workers on real databases; the same counts in every run, because nobody looks at a
clock.
Not guaranteed: how long a lag lasts in milliseconds: a turn lasts as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from labkit.cleaner import Cleaner
from labkit.consumer import Consumer
from labkit.lab.bench import Bench
from labkit.lab.spanish import number
from labkit.service import Worker
from labkit.shop import checkout, fulfillment

ORDERS = 8
AWAY = range(5, 10)  # the turns in which nobody works on the view
_SKU, _CENTS = "BOOK-DDD", 3000


class Turn(NamedTuple):
    """After a turn: the changes that orders have seen, and those that the view shows.

    Changes after the first status, which is in the view as soon as the order exists.
    """

    number: int
    written: int
    shown: int

    @property
    def lag(self) -> int:
        """Return how many changes the view is behind."""
        return self.written - self.shown


def turns(bench: Bench, *, orders: int = ORDERS, away: Collection[int] = AWAY) -> list[Turn]:
    """Begin a checkout in each of the first turns; go on until the view has caught up.

    Args:
        bench: where; one with the checkout beside fulfillment, that is thrown away.
        orders: how many checkouts.
        away: the turns, from 1, in which the view's worker does nothing.
    """
    view, others = _workers(bench)
    found: list[Turn] = []
    with bench.staying():
        while not _has_come_to_rest(found, after=max(orders, *away)):
            number_of_this = len(found) + 1
            if number_of_this <= orders:
                _check_out(bench, f"ORD-{number_of_this}")
            for worker in others if number_of_this in away else [*others, *view]:
                worker.run_once()
            written, shown = _changes(bench, fulfillment.orders), _changes(bench, _VIEW)
            found.append(Turn(number_of_this, written, shown))
    return found


def lines(found: Sequence[Turn]) -> dict[str, list[tuple[float, float]]]:
    """Return the turns as lines of a figure.

    Args:
        found: from `turns`.
    """
    return {
        "en los pedidos": [(each.number, each.written) for each in found],
        "en la vista": [(each.number, each.shown) for each in found],
    }


def reading(found: Sequence[Turn], away: Collection[int] = AWAY) -> str:
    """Read how far the view was behind, with and without its worker.

    Args:
        found: from `turns`.
        away: the turns in which it did nothing.
    """
    usual = max(each.lag for each in found if each.number < min(away))
    worst = max(found, key=lambda each: each.lag)
    return (
        f"Con la proyección en marcha, la vista va como mucho {number(usual)} cambios detrás; "
        f"parada {number(len(away))} turnos, {number(worst.lag)} (turno {number(worst.number)}). "
        f"Acaban igual: {number(found[-1].written)} cambios, {number(found[-1].lag)} de desfase."
    )


_VIEW = fulfillment.view.table


def _has_come_to_rest(found: Sequence[Turn], after: int) -> bool:
    if len(found) <= after or found[-1].lag:
        return False
    return found[-1].written == found[-2].written == found[-3].written


def _workers(bench: Bench) -> tuple[list[Worker], list[Worker]]:
    """Return who works on the view, and everybody else who carries messages."""
    carrying = [worker for worker in bench.workers if not isinstance(worker, Cleaner)]
    view: list[Worker] = [worker for worker in carrying if isinstance(worker, Consumer)
            and worker.name == fulfillment.view.projection.name]  # fmt: skip
    return view, [worker for worker in carrying if worker not in view]


def _check_out(bench: Bench, order_id: str) -> None:
    with Session(bench.orders) as session, session.begin():
        checkout.check_out(session, order_id, [(_SKU, 1)], amount_cents=_CENTS)


def _changes(bench: Bench, table: Table) -> int:
    with bench.orders.connect() as connection:
        return int(connection.execute(select(func.sum(table.c.version - 1))).scalar_one())
