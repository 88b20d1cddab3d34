"""Firm orders: what is created once the stock of an order is set aside.

A firm order that is called off keeps its row, with both times: a compensation is a further fact,
not a deletion of the first one.

Guarantee: done twice, each verb changes nothing more.
Not guaranteed: that the stock is there; whoever makes an order firm has been told so.
"""

from __future__ import annotations

from sqlalchemy import Column, DateTime, ForeignKey, Table, Text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.shop import fulfillment
from labkit.shop.order_book import CANCELLED, RESERVED, now_of

firm_orders = Table(
    "firm_orders",
    fulfillment.service.metadata,
    Column("order_id", Text, ForeignKey("orders.order_id"), primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("called_off_at", DateTime(timezone=True)),
)


def make_firm(session: Session, order_id: str) -> None:
    """Make an order firm whose stock is set aside, in your transaction.

    Args:
        session: your transaction.
        order_id: which order.

    Raises:
        OrderError: when there is no such order.
    """
    fulfillment.move_order(session, order_id, RESERVED)
    row = insert(firm_orders).values(order_id=order_id, made_at=now_of(session))
    session.execute(row.on_conflict_do_nothing())


def call_off(session: Session, order_id: str) -> None:
    """Call a firm order off, in your transaction; its stock is another matter.

    Args:
        session: your transaction.
        order_id: which order.

    Raises:
        OrderError: when there is no such order.
    """
    fulfillment.move_order(session, order_id, CANCELLED)
    mine = (firm_orders.c.order_id == order_id) & firm_orders.c.called_off_at.is_(None)
    session.execute(update(firm_orders).where(mine).values(called_off_at=now_of(session)))
