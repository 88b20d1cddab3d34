"""The one schedule that every variant has to live through: orders, and what befalls them.

Seeded, so that a run can be repeated. Some transactions roll back, some stay open while the next
order commits and the relay looks; processes die in fixed places (`LIVES`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

from labkit.testing.sample import OrderPlaced

ORDERS = 40
CUSTOMERS = tuple(f"customer-{letter}" for letter in "abcde")
Fate = Literal["commits", "rolls back", "commits late"]


@dataclass(frozen=True)
class Step:
    """An order, and how its transaction ends."""

    order: OrderPlaced
    fate: Fate


class Life(NamedTuple):
    """What one process is there for, and the fault that ends it, if any."""

    jobs: tuple[str, ...]
    faults: str


def schedule(seed: int) -> list[Step]:
    """Return the orders; neighbours have different customers, so that they never wait in line."""
    rng = random.Random(seed)
    fates: list[Fate] = ["commits"] * ORDERS
    # Every fourth order is special; the others commit, among them the one behind it.
    for place in range(1, ORDERS - 1, 4):
        fates[place + rng.randrange(2)] = "rolls back" if place % 8 == 1 else "commits late"
    steps: list[Step] = []
    customer, numbers = "", dict.fromkeys(CUSTOMERS, 0)
    for place, fate in enumerate(fates, start=1):
        customer = rng.choice([each for each in CUSTOMERS if each != customer])
        numbers[customer] += 1
        order = OrderPlaced(order_id=f"ORD-{place}", customer=customer, n=numbers[customer])
        steps.append(Step(order, fate))
    return steps


def lives(seed: int) -> list[Life]:
    """Return the processes, one after the other: all but the last are killed by SIGKILL."""
    rng = random.Random(seed)
    early, late = rng.randint(3, 6), rng.randint(3, 8)
    first, second = rng.randint(1, 5), rng.randint(1, 5)
    return [
        Life(("write",), f"write.before_commit:kill:@{early}"),
        Life(("write",), f"write.after_commit:kill:@{late}"),
        Life(("write", "relay"), "relay.after_publish:kill:@2"),
        Life(
            ("write", "relay", "consume"),
            f"consumer.before_commit:kill:@2,consumer.between:kill:@{first}",
        ),
        Life(
            ("relay", "consume"),
            f"consumer.after_commit:kill:@2,consumer.between:kill:@{second}",
        ),
        Life(("relay", "consume"), ""),
    ]
