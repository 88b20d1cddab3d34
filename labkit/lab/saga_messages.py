"""Saga messages: what sagas and the release policy send, driven and followed on a story's bench.

Guarantee: journeys are the recorded ones; whoever is away here does nothing, and then works again.
Not guaranteed: that workers are away for a time that somebody measured: the story's clock jumps
from one deadline to the next.
"""

from __future__ import annotations

from collections.abc import Collection

from labkit.lab import observations
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import PRICE_CENTS, Story
from labkit.lab.trace import Trace, Traced
from labkit.shop import checkout, choreography, inventory, payments
from labkit.shop.checkout import Checkout
from labkit.shop.contracts import Line, OrderStatusChanged
from labkit.shop.order_book import reservation_id_of

_BESIDE = (checkout.service, payments.service, choreography.service)


def checkout_of(order_id: str) -> Checkout:
    """Return what the saga of an order is made from.

    Args:
        order_id: of the story.
    """
    lines = tuple(Line(*line) for line in CAST[order_id].lines)
    amount_cents = PRICE_CENTS * sum(line.qty for line in lines)
    return Checkout(order_id, reservation_id_of(order_id), lines, amount_cents)


def from_the_rejection(story: Story, order_id: str) -> Trace:
    """Follow what the rejection of an order caused.

    Args:
        story: where.
        order_id: which.

    Raises:
        LookupError: when it caused nothing.
    """
    journey = observations.traced(story, reservation_id_of(order_id), beside=_BESIDE)
    for node in journey.root.walk():
        if node.type == OrderStatusChanged.event_type and node.caused:
            return Trace(node, journey.notes)
    raise LookupError(f"no change of {order_id} caused anything")


def of_the_saga(story: Story, order_id: str) -> Trace:
    """Follow an order's saga through all services; what only the read model hears is left out.

    Args:
        story: where.
        order_id: which.
    """
    journey = observations.traced(story, reservation_id_of(order_id), beside=_BESIDE)
    return Trace(_without(journey.root, {OrderStatusChanged.event_type}), journey.notes)


def _without(node: Traced, types: Collection[str]) -> Traced:
    node.caused = [_without(each, types) for each in node.caused if each.type not in types]
    return node


def release_in_vain(story: Story, *, deadlines: int) -> None:
    """Let a declined checkout give its stock back while inventory is away.

    Args:
        story: where the checkout has begun.
        deadlines: how many pass until inventory works again.
    """
    with story.staying():
        story.settle(without=payments.service)
        story.settle(without=inventory.service)
        story.pass_deadlines(deadlines)
        story.settle()


def answer_late(story: Story, *, deadlines: int) -> None:
    """Let inventory answer a checkout only after so many deadlines.

    Args:
        story: where the checkout has begun.
        deadlines: how many pass until inventory works again.
    """
    with story.staying():
        story.settle(without=inventory.service)
        story.pass_deadlines(deadlines)
        story.settle()
