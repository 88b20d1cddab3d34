"""The ways to build the flow: each replaces one piece, its `culprit`; the rest is labkit's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.testing.antipatterns import consumers, relays, writers
from labkit.testing.antipatterns.lab import Delivery, Lab
from labkit.testing.findings import Kind
from labkit.testing.sample import OrderPlaced


@dataclass(frozen=True)
class Variant:
    """One way to build the flow.

    Args:
        description: what it does, in a sentence.
        finds: the kind of finding that it must lead to; None when it must hold.
        write: places an order.
        relay: one pass from outbox to stream.
        consume: handles one delivery; None leaves it to labkit's consumer.
        keeps_inbox: whether it notes what was handled.
    """

    description: str
    finds: Kind | None
    write: Callable[[Lab, OrderPlaced], None] = writers.write_to_outbox
    relay: Callable[[Lab], bool] = relays.labkit_relay
    consume: Callable[[Lab, Delivery], None] | None = None
    keeps_inbox: bool = True

    @property
    def culprit(self) -> Callable[..., Any]:
        """Return the function that makes the difference; for labkit, its way to write."""
        if self.consume:
            return self.consume
        replaced = self.relay not in {relays.labkit_relay, relays.no_relay}
        return self.relay if replaced else self.write

    @property
    def has_frozen_relay(self) -> bool:
        """Say whether a second relay is frozen: where the relay is in question."""
        return self.finds is None or self.relay is relays.relay_without_owner


VARIANTS: dict[str, Variant] = {
    "dual_write": Variant(
        "Commits the order, then publishes the event.",
        "lost",
        write=writers.commit_then_publish,
        relay=relays.no_relay,
    ),
    "publish_before_commit": Variant(
        "Publishes the event, then commits the order.",
        "phantom",
        write=writers.publish_then_commit,
        relay=relays.no_relay,
    ),
    "cursor_relay": Variant(
        "Relays the rows behind the last one it saw.", "lost", relay=relays.relay_by_cursor
    ),
    "unfenced_relays": Variant(
        "Lets relays share the rows without owning them.",
        "reordered",
        relay=relays.relay_without_owner,
    ),
    "inbox_before_effect": Variant(
        "Notes the message in a transaction before its effect.",
        "lost",
        consume=consumers.inbox_then_effect,
    ),
    "inbox_after_effect": Variant(
        "Notes the message in a transaction after its effect.",
        "doubled",
        consume=consumers.effect_then_inbox,
    ),
    "ack_first": Variant(
        "Acknowledges the message before its effect.", "lost", consume=consumers.ack_first
    ),
    "no_inbox": Variant(
        "Applies every delivery.", "doubled", consume=consumers.no_inbox, keeps_inbox=False
    ),
    "labkit": Variant("Outbox, fenced relay, inbox in the transaction of the effect.", None),
}
