"""How an order and its event leave a service: two ways that lie, and the outbox.

`lab.still_open(order)` is where a transaction may stay open for a while, or roll back;
`may_die_here(...)` is where the schedule may kill the process.
"""

from __future__ import annotations

from labkit.crash import point as may_die_here
from labkit.testing import sample
from labkit.testing.antipatterns.lab import Lab
from labkit.testing.sample import OrderPlaced


def commit_then_publish(lab: Lab, order: OrderPlaced) -> None:
    """Dual write: who dies in between has an order that nobody hears of."""
    with lab.source.begin() as connection:
        sample.insert_order(connection, order)
        lab.still_open(order)
        may_die_here("write.before_commit")
    may_die_here("write.after_commit")
    lab.publish(order)


def publish_then_commit(lab: Lab, order: OrderPlaced) -> None:
    """Tells the world before it is true: a rollback does not take it back."""
    with lab.source.begin() as connection:
        sample.insert_order(connection, order)
        lab.publish(order)
        lab.still_open(order)
        may_die_here("write.before_commit")
    may_die_here("write.after_commit")


def write_to_outbox(lab: Lab, order: OrderPlaced) -> None:
    """Order and event are one transaction; the relay does the rest."""
    with lab.source.begin() as connection:
        sample.insert_order(connection, order)
        sample.sender.outbox.add(connection, order, key=order.customer, message_id=order.order_id)
        lab.still_open(order)
        may_die_here("write.before_commit")
    may_die_here("write.after_commit")
