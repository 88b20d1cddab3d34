"""Which node holds a key, and how many keys move when a node is added.

Model: 10,000 keys on 10 nodes, then on 11, by three rules: hash modulo the number of nodes; a ring
on which each node has v points (virtual nodes); rendezvous, the node with the highest hash of
(node, key). No rule can move less than 1 in 11 keys, 9.1 %, if the new node gets its share.
Assumptions: all keys are asked for equally often.
It does not show: a key that is asked for more than others: no hash divides one key.
With one point per node, both figures are a lottery: they say more about the names of the nodes than
about the rule. `lottery` draws many names.

Source: Karger et al. (1997); Thaler and Ravishankar (1998).
"""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

Place = Callable[[str], str]
NODES = tuple(f"node-{n}" for n in range(11))
KEYS = tuple(f"ORD-{n}" for n in range(10_000))


def modulo(nodes: Sequence[str]) -> Place:
    """Return the rule hash(key) mod n."""
    return lambda key: nodes[_hash(key) % len(nodes)]


def ring(nodes: Sequence[str], points: int) -> Place:
    """Return the rule of the next point on the ring; `points` per node."""
    owners = {_hash(f"{node}#{n}"): node for node in nodes for n in range(points)}
    places = sorted(owners)
    return lambda key: owners[places[bisect.bisect(places, _hash(key)) % len(places)]]


def rendezvous(nodes: Sequence[str]) -> Place:
    """Return the rule of the highest hash of node and key."""
    return lambda key: max(nodes, key=lambda node: _hash(f"{node}/{key}"))


RULES: dict[str, Callable[[Sequence[str]], Place]] = {
    "modulo": modulo,
    "ring ×1": lambda nodes: ring(nodes, 1),
    "ring ×10": lambda nodes: ring(nodes, 10),
    "ring ×100": lambda nodes: ring(nodes, 100),
    "ring ×500": lambda nodes: ring(nodes, 500),
    "rendezvous": rendezvous,
}


def compare(keys: Sequence[str] = KEYS, nodes: Sequence[str] = NODES) -> pd.DataFrame:
    """Return what happens when the last node is added to the others.

    Returns:
        The index `rule`; `moved`, the share of the keys that change their node; `misplaced`, the
        share that moves to another than the new one, for nothing; `max_over_mean`, how many times
        its share the fullest node held before.
    """
    rows = {name: _row(rule, keys, nodes) for name, rule in RULES.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def lottery(
    points: Sequence[int] = (1, 10, 100), *, names: int = 20, keys: int = 1_000
) -> pd.DataFrame:
    """Return what the ring does under many names for its nodes.

    Args:
        points: how many per node.
        names: how many namings.
        keys: how many keys are placed.

    Returns:
        The columns `points`, `naming`, `moved`, `misplaced` and `max_over_mean`.
    """
    rows = []
    for count in points:
        for naming in range(names):
            nodes = [f"{naming}/{node}" for node in NODES]
            found = _row(partial(ring, points=count), KEYS[:keys], nodes)
            rows.append({"points": count, "naming": naming, **found})
    return pd.DataFrame(rows)


def _row(
    rule: Callable[[Sequence[str]], Place], keys: Sequence[str], nodes: Sequence[str]
) -> dict[str, float]:
    before, after = rule(nodes[:-1]), rule(nodes)
    placed = [(before(key), after(key)) for key in keys]
    fullest = max(Counter(old for old, _ in placed).values())
    return {
        "moved": sum(old != new for old, new in placed) / len(keys),
        "misplaced": sum(old != new != nodes[-1] for old, new in placed) / len(keys),
        "max_over_mean": fullest * (len(nodes) - 1) / len(keys),
    }


def _hash(text: str) -> int:
    # Why not hash(): Python salts it, so each process would place keys elsewhere.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
