"""Experiments: what the notebooks count, run on the switchboard's real processes.

Each function runs variants of `labkit.testing.antipatterns` on databases of its own, never on the
story's, and returns counts with the words that the class uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.testing.antipatterns import Mishap, Outcome, cross, effects_of_one, run

SEED = 7
_DATABASES = "experimentos"


def fate_of_orders(variant: str, *, orders: int) -> dict[str, int]:
    """Place orders in one way while processes die; count what became of their events.

    Args:
        variant: one of the switchboard's.
        orders: how many are tried; some roll back, as orders do.

    Returns:
        How many events arrived, were lost and were invented.
    """
    outcome = run(variant, SEED, orders=orders, databases=_DATABASES)
    counts = outcome.counts
    return {"llegaron": outcome.right, "perdidos": counts["lost"], "inventados": counts["phantom"]}


def effects(receivers: Mapping[str, str], mishaps: Mapping[str, Mishap]) -> dict[str, dict[str, int]]:
    """Let each receiver handle one message under each mishap; count the effects.

    Args:
        receivers: label to variant.
        mishaps: label to mishap.

    Returns:
        Receiver's label, mishap's label, number of effects: one is right.
    """
    return {
        label: {
            mishap: effects_of_one(variant, kind, databases=_DATABASES)
            for mishap, kind in mishaps.items()
        }
        for label, variant in receivers.items()
    }


def crossed(
    senders: Mapping[str, str], receivers: Mapping[str, str]
) -> dict[str, dict[str, Outcome]]:
    """Let every receiver read what every sender sent, processes dying on both sides.

    Args:
        senders: label to variant.
        receivers: label to variant.

    Returns:
        Sender's label, receiver's label, outcome.
    """
    found = cross(list(senders.values()), list(receivers.values()), SEED, databases=_DATABASES)
    return {
        sender: {receiver: found[one, other] for receiver, other in receivers.items()}
        for sender, one in senders.items()
    }


def verdict(outcome: Outcome) -> str:
    """Say in one line what was wrong, or that nothing was."""
    counts = outcome.counts
    words = {"lost": "perdidos", "phantom": "inventados", "doubled": "repetidos"}
    wrong = [f"{counts[kind]} {word}" for kind, word in words.items() if counts[kind]]
    return ", ".join(wrong) or "correcto"
