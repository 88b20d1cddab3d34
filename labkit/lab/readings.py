"""Readings: what a figure of the notebooks says, in one sentence computed from what it draws.

Guarantee: every number in a sentence comes from the data that are given to it, and each part of
it is written only when the data show it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from labkit.lab.spanish import counted, number
from labkit.lab.timeline import Mark
from labkit.lab.trace import Trace

Counts = Mapping[str, Mapping[str, int]]


def of_fates(counts: Counts) -> str:
    """Read how many events arrived, were lost and were invented, by the way of sending.

    Args:
        counts: way of sending; llegaron, perdidos, inventados.
    """
    return " ".join(_fate(way, row) for way, row in counts.items() if row)


def _fate(way: str, row: Mapping[str, int]) -> str:
    lost, invented = row["perdidos"], row["inventados"]
    wrong = [f"{counted(lost, 'perdidos')} (pedido guardado, evento que no sale)"] if lost else []
    if invented:
        wrong.append(f"{counted(invented, 'inventados')} (evento de un pedido que no existe)")
    said = " y ".join(wrong) or "ningún evento perdido ni inventado"
    return f"«{way}»: {counted(row['llegaron'] + lost, 'pedidos')} en firme; {said}."


def of_effects(effects: Counts) -> str:
    """Read how often one message was applied, by receiver and mishap.

    Args:
        effects: receiver, mishap, number of effects.
    """
    wrong = [
        f"«{receiver}» produce {counted(times, 'efectos')} tras una {mishap}"
        for receiver, row in effects.items()
        for mishap, times in row.items()
        if times != 1
    ]
    right = [receiver for receiver, row in effects.items() if set(row.values()) == {1}]
    always = f"Siempre un efecto: «{_listed(right)}»." if right else "Ninguna acierta siempre."
    return f"{'; '.join(wrong)}. {always}" if wrong else always


def of_crossing(verdicts: Mapping[str, Mapping[str, str]], right: str) -> str:
    """Read which pairs of sender and receiver were right.

    Args:
        verdicts: sender, receiver, verdict.
        right: the verdict that means that nothing was wrong.
    """
    pairs = [(s, r) for s, row in verdicts.items() for r, said in row.items()]
    good = [(s, r) for s, r in pairs if verdicts[s][r] == right]
    named = _listed([f"«{sender}» con «{receiver}»" for sender, receiver in good])
    verb = "acierta" if len(good) == 1 else "aciertan"
    return f"De {number(len(pairs))} combinaciones {verb} {number(len(good))}: {named}."


def _listed(names: list[str]) -> str:
    *first, last = names or ["ninguna"]
    # Before the sound i, Spanish says e.
    joint = "e" if last.lstrip("«").lower().startswith(("i", "hi")) else "y"
    return f"{', '.join(first)} {joint} {last}" if first else last


def of_life(marks: Sequence[Mark]) -> str:
    """Read what happened to one message, from its timeline.

    Args:
        marks: from `labkit.lab.timeline.of`.
    """
    times = sum(mark.label.startswith("publicado") for mark in marks)
    deaths = sum(mark.kind == "death" for mark in marks)
    steps = ", ".join(mark.label for mark in marks)
    return (
        f"El mensaje pasa por {counted(len(marks), 'momentos')}: {steps}. "
        f"Procesos muertos: {number(deaths)}; veces que se publica: {number(times)}."
    )


def of_journey(journey: Trace) -> str:
    """Read a message's journey: what it caused, and where.

    Args:
        journey: from `labkit.lab.trace`.
    """
    nodes = list(journey.root.walk())
    # Why no arrows: the types stand in their order, and one need not be the next one's cause.
    types = _listed(list(dict.fromkeys(node.type for node in nodes)))
    places = _listed(list(dict.fromkeys(str(node.service) for node in nodes)))
    return (
        f"Un mensaje causa {number(len(nodes) - 1)} más ({types}), "
        f"cada uno escrito en una transacción local de su servicio: {places}."
    )


def of_order(found: Counts) -> str:
    """Read how many events came out of order or never, by relay.

    Args:
        found: relay; en orden, perdidos, desordenados.
    """
    said = []
    for name, row in found.items():
        wrong = [counted(row[kind], kind) for kind in ("desordenados", "perdidos") if row[kind]]
        said.append(f"«{name}»: {' y '.join(wrong) or 'todos en su orden'}")
    return "; ".join(said) + "."


def of_latencies(found: Mapping[str, Sequence[float]]) -> str:
    """Read the medians of latencies.

    Args:
        found: way of waiting, milliseconds.
    """
    medians = {name: statistics.median(values) for name, values in found.items()}
    said = [f"«{name}» {number(value)} ms" for name, value in medians.items()]
    return f"La mitad de los eventos llega en menos de: {'; '.join(said)}."


def of_drain(points: Sequence[tuple[float, float]]) -> str:
    """Read how throughput grows with the batch.

    Args:
        points: rows per batch, events per second.
    """
    (small, slow), (large, fast) = points[0], points[-1]
    return (
        f"Pasar de lotes de {number(small)} a lotes de {number(large)} multiplica por "
        f"{number(fast / slow)} los eventos por segundo."
    )
