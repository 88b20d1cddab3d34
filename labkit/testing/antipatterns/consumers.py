"""How a message becomes an effect: four ways that lose or double it, and labkit's consumer.

`delivery` is one entry of the stream with its order; `lab.is_new` inserts the inbox row and says
whether it was missing. All of them read what is pending before what is new.
"""

from __future__ import annotations

from labkit.crash import point as may_die_here
from labkit.testing import sample
from labkit.testing.antipatterns.lab import Delivery, Lab


def inbox_then_effect(lab: Lab, delivery: Delivery) -> None:
    """Note it, commit, apply it: who dies in between has noted what was never done."""
    with lab.target.begin() as connection:
        is_new = lab.is_new(connection, delivery)
    may_die_here("consumer.between")
    if is_new:
        with lab.target.begin() as connection:
            sample.insert_effect(connection, delivery.order)
    lab.ack(delivery)


def effect_then_inbox(lab: Lab, delivery: Delivery) -> None:
    """Apply it, commit, note it: who dies in between applies it again."""
    with lab.target.begin() as connection:
        if not lab.is_known(connection, delivery):
            sample.insert_effect(connection, delivery.order)
    may_die_here("consumer.between")
    with lab.target.begin() as connection:
        lab.is_new(connection, delivery)
    lab.ack(delivery)


def ack_first(lab: Lab, delivery: Delivery) -> None:
    """Acknowledge, then work: who dies in between is not asked again."""
    lab.ack(delivery)
    may_die_here("consumer.between")
    with lab.target.begin() as connection:
        if lab.is_new(connection, delivery):
            sample.insert_effect(connection, delivery.order)


def no_inbox(lab: Lab, delivery: Delivery) -> None:
    """Trust that each message comes once: who dies before the acknowledgement gets it again."""
    with lab.target.begin() as connection:
        sample.insert_effect(connection, delivery.order)
    may_die_here("consumer.between")
    lab.ack(delivery)
