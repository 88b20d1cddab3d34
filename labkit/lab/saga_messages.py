"""Saga messages: what sagas and the release policy send, driven and followed on a story's bench.

Guarantee: journeys are the recorded ones; whoever is away here does nothing, and then works again.
Not guaranteed: that workers are away for a time that somebody measured: the story's clock jumps
from one deadline to the next.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from labkit.lab import observations
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import PRICE_CENTS, Story
from labkit.lab.trace import Trace, Traced
from labkit.service import Service
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
    """Follow what the rejection of an order caused, to whoever does something about it.

    Args:
        story: where.
        order_id: which.

    Raises:
        LookupError: when it caused nothing.
    """
    journey = observations.traced(story, reservation_id_of(order_id), beside=_BESIDE)
    for node in journey.root.walk():
        if node.type == OrderStatusChanged.event_type and node.caused:
            return Trace(_seen_by(node, {choreography.service, inventory.service}), journey.notes)
    raise LookupError(f"no change of {order_id} caused anything")


def of_the_saga(story: Story, order_id: str) -> Trace:
    """Follow an order's saga; what only the order's own books hear is left out.

    Args:
        story: where.
        order_id: which.
    """
    journey = observations.traced(story, reservation_id_of(order_id), beside=_BESIDE)
    acting = {checkout.service, payments.service, inventory.service}
    return Trace(_seen_by(journey.root, acting), journey.notes)


def _seen_by(node: Traced, services: Collection[Service]) -> Traced:
    """Leave out who else received a message, and messages that nobody of these received."""
    names = {each.name for each in services}
    kept = [each for each in node.moments if each.what != "received" or each.where in names]
    caused = [each for each in node.caused if names & {moment.where for moment in each.moments}]
    return replace(node, moments=kept, caused=[_seen_by(each, services) for each in caused])


def last_unit(story: Story, first: str, second: str) -> None:
    """Let two orders want the last unit, one after the other.

    Args:
        story: where.
        first: who gets it.
        second: who comes too late.
    """
    with story.staying():
        for order_id in (first, second):
            story.check_out(order_id)
            story.settle()


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
