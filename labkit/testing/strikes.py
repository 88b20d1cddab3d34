"""What a chaos run does, and when: a pure function of its seed.

Every kind of strike comes at least once, because they are dealt like cards: the whole deck, in
random order, again and again. So a run that was red is repeated by its seed, down to the strike
(not down to the instruction that it hits; no schedule can do that with real processes).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Action = Literal["kill", "freeze", "cut", "empty"]
# Relays and consumers of both services, by the name of their process.
WORKERS = {
    "relay": ("fulfillment-relay", "inventory-relay", "inventory-all"),
    "consumer": (
        "fulfillment-consumer",
        "inventory-consumer",
        "fulfillment-projection",
        "fulfillment-all",
    ),
}
KINDS: tuple[tuple[str, Action], ...] = (
    ("postgres", "kill"),
    ("postgres", "freeze"),
    ("postgres", "cut"),
    ("valkey", "kill"),
    ("valkey", "empty"),
    ("valkey", "freeze"),
    ("valkey", "cut"),
    ("relay", "kill"),
    ("relay", "freeze"),
    ("consumer", "kill"),
    ("consumer", "freeze"),
)
_EVERY_S = 0.9
# After it was healed, a victim is left alone for so long: it shall do some work in between.
_REST_S = 0.5


@dataclass(frozen=True)
class Strike:
    """One strike.

    Args:
        at_s: when, in seconds from the start.
        kind: `postgres`, `valkey`, `relay` or `consumer`.
        victim: the server, or the name of the worker process.
        action: kill (SIGKILL), freeze (SIGSTOP), cut (all its connections), empty (killed, and
            its data is gone).
        lasts_s: how long until it is healed, in seconds.
    """

    at_s: float
    kind: str
    victim: str
    action: Action
    lasts_s: float


def plan(seed: int, duration_s: float, lease_s: float) -> list[Strike]:
    """Return the strikes of a run, in order of time.

    Args:
        seed: the same seed, the same strikes.
        duration_s: over how many seconds they are spread; the last ones may be pushed behind it
            by others on the same victim.
        lease_s: the workers' lease; what is frozen stays so for longer.
    """
    rng = random.Random(seed)
    rounds = max(1, round(duration_s / (len(KINDS) * _EVERY_S)))
    kinds = [kind for _ in range(rounds) for kind in rng.sample(KINDS, len(KINDS))]
    strikes: list[Strike] = []
    free_at_s: dict[str, float] = {}
    for number, (kind, action) in enumerate(kinds):
        at_s = (number + rng.random()) * duration_s / len(kinds)
        victim = rng.choice(WORKERS.get(kind, (kind,)))
        at_s = max(at_s, free_at_s.get(victim, 0.0))
        lasts_s = _lasts_s(rng, action, lease_s)
        free_at_s[victim] = at_s + lasts_s + _REST_S
        strikes.append(Strike(round(at_s, 3), kind, victim, action, lasts_s))
    return sorted(strikes, key=lambda strike: strike.at_s)


def _lasts_s(rng: random.Random, action: Action, lease_s: float) -> float:
    if action == "cut":
        return 0.0
    if action == "freeze":
        return round(lease_s * rng.uniform(1.2, 2.2), 3)
    return round(rng.uniform(0.0, lease_s), 3)


def end_s(strikes: Sequence[Strike]) -> float:
    """Return when the last strike is healed, in seconds from the start."""
    return max((strike.at_s + strike.lasts_s for strike in strikes), default=0.0)
