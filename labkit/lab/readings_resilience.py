"""Readings of the figures of `labkit.lab.charts_resilience`, computed from what they draw.

Guarantee: every number in a sentence comes from the data that are given to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from labkit.lab.charts_resilience import BULKHEADS, DEFENCES, POLICIES
from labkit.lab.simulations import bulkheads
from labkit.lab.simulations.metastable import TROUBLE_S, Outcome
from labkit.lab.spanish import number


def contention(compared: pd.DataFrame) -> str:
    """Read what each policy costs; the caveat of the model is part of it.

    Args:
        compared: from `backoff.compare`.
    """
    calls, took = compared["calls"], compared["completion_ms"]
    least, first = calls.idxmin(), took.idxmin()
    saved = 1 - calls["exponential"] / calls["none"]
    slower = took["exponential"] / took["none"]
    return (
        f"«{POLICIES[least]}» hace {_times(calls['none'] / calls[least])} menos escrituras que "
        f"«{POLICIES['none']}». Crecer sin variación ahorra solo un {_percent(saved)} y tarda "
        f"{_times(slower)} más: quienes fallan juntos vuelven juntos. Acaba antes "
        f"«{POLICIES[first]}», porque el servidor del modelo nunca se satura: aquí se ahorra "
        "trabajo, no tiempo."
    )


def write_times(times: pd.DataFrame) -> str:
    """Read in how much of the time there are writes at all, by policy.

    Args:
        times: from `backoff.write_times`.
    """
    said = []
    for policy, at in times.groupby("policy", sort=False)["at_ms"]:
        # Of the stretch until the last write, the tenths of a second in which one arrives.
        used = (at // 100).nunique() / (at.max() // 100 + 1)
        said.append(f"«{POLICIES[str(policy)]}» {_percent(used)}")
    return f"Décimas de segundo en que llega alguna escritura: {'; '.join(said)}."


def amplification(curves: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Read what everything down costs, by attempt and by layer.

    Args:
        curves: from `amplification.curves`.
        layers: from `amplification.layers`.
    """
    load = curves[curves["x"] == curves["x"].max()].set_index("policy")["load"]
    calls = ", ".join(number(int(each)) for each in layers["calls"])
    return (
        f"Cuando todo falla, reintentar hace {number(round(load['retries'], 2))} llamadas por "
        f"petición; con presupuesto, {number(round(load['budget'], 2))}. Si reintenta cada capa, "
        f"se multiplican: {calls}."
    )


def metastable(outcomes: Mapping[str, Outcome]) -> str:
    """Read who recovers, and when.

    Args:
        outcomes: name of a defence, and what came of it.
    """
    said = [f"«{DEFENCES[each]}» {_recovery(outcome)}" for each, outcome in outcomes.items()]
    return f"La causa se va en el segundo {number(int(TROUBLE_S[1]))}. {'; '.join(said)}."


def _recovery(outcome: Outcome) -> str:
    peak = f"pico de {number(outcome.peak_offered)} peticiones por segundo"
    if outcome.recovered_at_s is None:
        return f"no vuelve ({peak})"
    return f"vuelve en el {number(outcome.recovered_at_s)} ({peak})"


def time_limits(marks: pd.DataFrame) -> str:
    """Read what each percentile as a limit cuts off and costs.

    Args:
        marks: from `timeouts.marks`.
    """
    said = [
        f"en {str(mark).replace('.', ',')} ({number(row['limit_ms'])} ms) corta "
        f"{number(round(1_000 * row['false_timeouts'], 1))} de cada 1000 respuestas y espera "
        f"{number(row['waiting_ms'])} ms de media"
        for mark, row in marks.iterrows()
    ]
    return f"Un tiempo límite {'; '.join(said)}. Lo que se corta puede haberse hecho."


def bulkhead(outcomes: Mapping[str, bulkheads.Outcome]) -> str:
    """Read the victim's latency while its neighbour is slow.

    Args:
        outcomes: what was done, and what came of it.
    """
    said = [
        f"{BULKHEADS[each]}, p50 {number(outcome.victim_s(0.5))} s y p99 "
        f"{number(outcome.victim_s(0.99))} s (rechazadas del vecino: "
        f"{number(outcome.other_refused)})"
        for each, outcome in outcomes.items()
    ]
    return f"Mientras el vecino va lento, quien no lo usa tarda: {'; '.join(said)}."


def hedging(compared: pd.DataFrame) -> str:
    """Read what each percentile brings and costs.

    Args:
        compared: from `hedging.compare`.
    """
    alone = compared[compared["after"].isna()]["p99_ms"].iloc[0]
    said = [
        f"tras p{number(round(100 * row['after']))}, {number(row['p99_ms'])} ms con un "
        f"{_percent(row['extra_load'])} más de carga"
        for _, row in compared.dropna(subset=["after"]).iterrows()
    ]
    return f"p99 sin segunda petición: {number(alone)} ms; {'; '.join(said)}."


def _times(ratio: float) -> str:
    return f"{number(float(f'{ratio:.2g}'))} veces"


def _percent(share: float) -> str:
    return f"{number(round(100 * share))} %"
