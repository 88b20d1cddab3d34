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


def schedule(seed: int, orders: int = ORDERS) -> list[Step]:
    """Return the orders; neighbours have different customers, so that they never wait in line.

    Args:
        seed: another seed is another schedule.
        orders: how many; every fourth is special.
    """
    rng = random.Random(seed)
    fates: list[Fate] = ["commits"] * orders
    # The one behind a special order commits: a late one must be overtaken.
    for place in range(1, orders - 1, 4):
        fates[place + rng.randrange(2)] = "rolls back" if place % 8 == 1 else "commits late"
    steps: list[Step] = []
    customer, numbers = "", dict.fromkeys(CUSTOMERS, 0)
    for place, fate in enumerate(fates, start=1):
        customer = rng.choice([each for each in CUSTOMERS if each != customer])
        numbers[customer] += 1
        order = OrderPlaced(order_id=f"ORD-{place}", customer=customer, n=numbers[customer])
        steps.append(Step(order, fate))
    return steps


def sending(seed: int, orders: int = ORDERS) -> list[Life]:
    """Return the processes that write and relay; all but the last are killed by SIGKILL.

    One dies before a commit; one for every `ORDERS` orders dies after a commit; then a relay dies
    between publishing and marking.
    """
    rng = random.Random(seed)
    early = rng.randint(3, 6)
    late = [rng.randint(3, max(8, orders // 8)) for _ in range(max(1, orders // ORDERS))]
    return [
        Life(("write",), f"write.before_commit:kill:@{early}"),
        *(Life(("write",), f"write.after_commit:kill:@{each}") for each in late),
        Life(("write", "relay"), "relay.after_publish:kill:@2"),
        Life(("write", "relay"), ""),
    ]


def receiving(seed: int) -> list[Life]:
    """Return the processes that consume; all but the last are killed by SIGKILL."""
    rng = random.Random(seed)
    first, second = rng.randint(1, 5), rng.randint(1, 5)
    return [
        Life(("consume",), f"consumer.before_commit:kill:@2,consumer.between:kill:@{first}"),
        Life(("consume",), f"consumer.after_commit:kill:@2,consumer.between:kill:@{second}"),
        Life(("consume",), ""),
    ]
