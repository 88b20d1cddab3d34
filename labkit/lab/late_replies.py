"""Late replies: what becomes of stock that is granted after somebody stopped waiting.

Two policies for the same schedule: inventory is away, the deadline passes, inventory comes back and
grants what was asked for. `ignoring` cancels the order and waits for nothing more; the checkout's
saga also asks for the release of what it never heard of.
"""

from __future__ import annotations

import pandas as pd
from sqlalchemy.orm import Session

from labkit.lab import saga_books
from labkit.lab.bench import Bench
from labkit.lab.relaying import relay_all
from labkit.lab.story_cast import CAST
from labkit.shop import fulfillment
from labkit.shop.order_book import CANCELLED

IGNORE, COMPENSATE = "ignorar", "compensar"


def give_up(session: Session, order_id: str) -> None:
    """Cancel an order whose answer did not come in time, and leave it at that.

    Wrong: no answer is not the same as no effect.
    """
    fulfillment.move_order(session, order_id, CANCELLED)


def ignoring(bench: Bench, order_id: str) -> None:
    """Let an order's answer come after `give_up`.

    Args:
        bench: where; one that is thrown away.
        order_id: which order of the story.
    """
    bench.place(order_id, *CAST[order_id].lines)
    relay_all(bench.orders, bench.transport)
    with Session(bench.orders) as session, session.begin():
        give_up(session, order_id)
    bench.settle()


def outcome(bench: Bench, policy: str, order_id: str) -> pd.DataFrame:
    """Return what a policy left behind of an order.

    Args:
        bench: where.
        policy: its name.
        order_id: which order.
    """
    facts = saga_books.in_two_databases(bench, order_id)
    row = {
        "respuesta tardía": policy,
        "orderId": order_id,
        "estado del pedido": facts["estado"].tolist()[0],
        "retenido en inventario": saga_books.held(bench, order_id),
    }
    return pd.DataFrame([row])
