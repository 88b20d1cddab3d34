"""Late replies: what becomes of stock that is granted after somebody stopped waiting.

Two policies for the same schedule: inventory is away, the deadline passes, inventory comes back and
grants what was asked for. `ignoring` cancels the order and waits for nothing more; the checkout's
saga also asks for the release of what it never heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from sqlalchemy.orm import Session

from labkit.lab import saga_books
from labkit.lab.bench import Bench
from labkit.lab.relaying import relay_all
from labkit.lab.story_cast import CAST
from labkit.shop import fulfillment
from labkit.shop.order_book import CANCELLED


def give_up(session: Session, order_id: str) -> None:
    """Cancel an order whose answer did not come in time, and leave it at that.

    Wrong: no answer is not the same as no effect.
    """
    fulfillment.move_order(session, order_id, CANCELLED)


class Outcome(NamedTuple):
    """What a policy left behind: the order's status, and the units that inventory holds for it."""

    order_id: str
    status: str
    held: int


def ignoring(bench: Bench, order_id: str) -> Outcome:
    """Let an order's answer come after `give_up`, and look at what is left.

    Args:
        bench: where; one that is thrown away.
        order_id: which order of the story.
    """
    bench.place(order_id, *CAST[order_id].lines)
    relay_all(bench.orders, bench.transport)
    with Session(bench.orders) as session, session.begin():
        give_up(session, order_id)
    bench.settle()
    return outcome(bench, order_id)


def outcome(bench: Bench, order_id: str) -> Outcome:
    """Return what is left of an order in both databases.

    Args:
        bench: where.
        order_id: which order.
    """
    status = saga_books.in_two_databases(bench, order_id)["estado"].tolist()[0]
    return Outcome(order_id, status, saga_books.held(bench, order_id))


def table(outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Return what each policy left behind.

    Args:
        outcomes: policy to outcome.
    """
    rows = [
        {
            "política": policy,
            "orderId": left.order_id,
            "estado del pedido": left.status,
            "unidades retenidas": left.held,
            "unidades perdidas": left.held if left.status == CANCELLED else 0,
        }
        for policy, left in outcomes.items()
    ]
    return pd.DataFrame(rows)
