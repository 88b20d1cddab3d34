"""Where the states of a diagram go: in layers from above to below, after Sugiyama.

An arrow that crosses layers holds a place in each of them, so that it runs around the states
there; places are sorted so that arrows seldom cross. Why not graphviz: one more program to
install, for diagrams of a dozen states.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

_SWEEPS = 2
# A state, or the place that an arrow holds: its number and the layer.
Node = str | tuple[int, int]


class Way(NamedTuple):
    """An arrow: what stands on it, and the nodes it runs through, from source to target."""

    label: str
    nodes: tuple[Node, ...]


def arrange(
    transitions: Sequence[tuple[str, str, str]],
) -> tuple[list[list[Node]], list[Way]]:
    """Return the layers, each from left to right, and the arrows.

    Args:
        transitions: source, target and label; those between the same states become one arrow.

    Raises:
        ValueError: there is none, or one does not leave its state.
    """
    if not transitions or any(source == target for source, target, _ in transitions):
        raise ValueError("un diagrama tiene transiciones, y cada una cambia de estado")
    labels: dict[tuple[str, str], str] = {}
    for source, target, label in transitions:
        known = labels.get((source, target))
        labels[source, target] = f"{known} / {label}" if known else label
    depths = _depths(list(labels))
    layers: list[list[Node]] = [[] for _ in range(max(depths.values()) + 1)]
    for state, depth in depths.items():
        layers[depth].append(state)
    ways = [Way(label, _way(n, *edge, depths)) for n, (edge, label) in enumerate(labels.items())]
    for way in ways:
        for node in way.nodes:
            if not isinstance(node, str):
                layers[node[1]].append(node)
    _untangle(layers, ways)
    return layers, ways


def _offsets(layer: Sequence[Node]) -> dict[Node, float]:
    """Return how many places each node of a layer stands right of the middle."""
    return {node: n - (len(layer) - 1) / 2 for n, node in enumerate(layer)}


def _depths(edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the layer of each state: behind all that lead to it, except on a way back."""
    forward = _forward(edges)
    depths = dict.fromkeys((state for edge in edges for state in edge), 0)
    for _ in depths:
        for source, target in forward:
            depths[target] = max(depths[target], depths[source] + 1)
    return depths


def _forward(edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges without those that lead back to where one came from."""
    kept: list[tuple[str, str]] = []
    done: set[str] = set()

    def visit(state: str, path: tuple[str, ...]) -> None:
        done.add(state)
        for source, target in edges:
            if source != state or target in path:
                continue
            kept.append((source, target))
            if target not in done:
                visit(target, (*path, target))

    for state, _ in edges:
        if state not in done:
            visit(state, (state,))
    return kept


def _way(n: int, source: str, target: str, depths: dict[str, int]) -> tuple[Node, ...]:
    first, last = depths[source], depths[target]
    step = 1 if first < last else -1
    return (source, *((n, layer) for layer in range(first + step, last, step)), target)


def _untangle(layers: list[list[Node]], ways: Sequence[Way]) -> None:
    """Sort each layer by where its neighbours stand, forth and back a few times."""
    neighbours: dict[Node, list[Node]] = {node: [] for layer in layers for node in layer}
    for way in ways:
        for one, other in zip(way.nodes, way.nodes[1:], strict=False):
            neighbours[one].append(other)
            neighbours[other].append(one)
    last = len(layers) - 1
    forth = [(x, x - 1) for x in range(1, last + 1)]
    back = [(x, x + 1) for x in range(last - 1, -1, -1)]
    for x, beside in (forth + back) * _SWEEPS:
        layers[x] = _sorted(layers[x], _offsets(layers[beside]), neighbours)


def _sorted(
    layer: Sequence[Node], beside: dict[Node, float], neighbours: dict[Node, list[Node]]
) -> list[Node]:
    now = _offsets(layer)

    def wanted(node: Node) -> float:
        return mean([beside[each] for each in neighbours[node] if each in beside] or [now[node]])

    return sorted(layer, key=wanted)
