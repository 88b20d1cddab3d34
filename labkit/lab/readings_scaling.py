"""Readings of the figures of `labkit.lab.charts_scaling`, computed from what they draw.

Guarantee: every number in a sentence comes from the data that are given to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labkit.lab.charts_scaling import BALANCERS, LIMITS
from labkit.lab.simulations import usl
from labkit.lab.simulations.adaptive_limit import (
    AFTER,
    FEW_WORKERS,
    TROUBLE,
    WORKERS,
    Outcome,
)
from labkit.lab.simulations.autoscaling import cost
from labkit.lab.spanish import number

_NEAR = 2


def trips(compared: pd.DataFrame) -> str:
    """Read what each rule needs where few calls fail, and where all do.

    Args:
        compared: from `trip.compare`.
    """
    found = compared.set_index(["rule", "p"])
    low, high = compared["p"].min(), compared["p"].max()
    calls, share = found["calls"], found.loc[("rate", low), "tripped"]
    return (
        f"Si falla el {_percent(low)} de las llamadas, cinco fallos seguidos abren tras "
        f"{number(round(calls['counter', low]))} de media, tarde o temprano "
        f"siempre; la tasa, en el {_percent(share)} de los casos. Si falla todo, el "
        f"contador abre en {number(round(calls['counter', high]))} y la tasa en "
        f"{number(round(calls['rate', high]))}."
    )


def limits(outcomes: Mapping[str, Outcome]) -> str:
    """Read the goodput with few workers and after it, by limit.

    Args:
        outcomes: name of a limit, and what came of it.
    """
    said = [
        f"«{LIMITS[each]}» {_mean(outcome, TROUBLE)} y después {_mean(outcome, AFTER)}"
        for each, outcome in outcomes.items()
    ]
    working = f"{FEW_WORKERS} de {WORKERS} procesos"
    return f"Respuestas a tiempo por segundo con {working}: {'; '.join(said)}."


def _mean(outcome: Outcome, stretch: tuple[int, int]) -> str:
    return number(round(float(outcome.goodput[slice(*stretch)].mean())))


def waits(curve: pd.DataFrame) -> str:
    """Read how the wait grows from the lowest to the highest load.

    Args:
        curve: from `queueing.curve`.
    """
    said = []
    for servers, found in curve.groupby("servers"):
        first, last = found.iloc[0], found.iloc[-1]
        who = "1 servidor" if servers == 1 else f"{servers} servidores"
        said.append(
            f"con {who}, de {number(round(first['wait'], 2))} servicios al "
            f"{_percent(first['load'])} de ocupación a {number(last['wait'])} al "
            f"{_percent(last['load'])} (teoría: {number(last['theory'])})"
        )
    return f"La espera media pasa, {'; '.join(said)}."


def balancers(compared: pd.DataFrame) -> str:
    """Read the best and the worst policy.

    Args:
        compared: from `balancing.compare`.
    """
    best, worst = compared["p99"].idxmin(), compared["p99"].idxmax()
    return (
        f"Menor p99: «{BALANCERS[best]}», {number(compared['p99'][best])} servicios (media "
        f"{number(compared['mean'][best])}). Mayor: «{BALANCERS[worst]}», "
        f"{number(compared['p99'][worst])} (media {number(compared['mean'][worst])})."
    )


def moved_keys(placed: pd.DataFrame) -> str:
    """Read how many keys move, and how many of them for nothing.

    Args:
        placed: from `hashing.compare`.
    """
    moved, misplaced = placed["moved"], placed["misplaced"]
    return (
        f"Con el módulo se muda el {_percent(moved['modulo'])} de las claves, y el "
        f"{_percent(misplaced['modulo'])} a un nodo que ya estaba. Con rendezvous, el "
        f"{_percent(moved['rendezvous'])}, y sin motivo el {_percent(misplaced['rendezvous'])}. "
        f"El anillo de un punto por nodo es una lotería: su nodo más lleno guarda "
        f"{number(placed['max_over_mean']['ring ×1'])} veces la media; con 500, "
        f"{number(placed['max_over_mean']['ring ×500'])}."
    )


def scalability(workers: Sequence[float], throughput: Sequence[float]) -> str:
    """Read the coefficients of the universal law, and its peak.

    Args:
        workers: numbers of workers.
        throughput: what each number managed.
    """
    law = usl.fit(workers, throughput)
    return (
        f"σ = {number(law.sigma)} (esperarse), κ = {number(law.kappa)} (ponerse de acuerdo), "
        f"r² = {number(law.r2)}; {_peak(law, max(workers))}."
    )


def _peak(law: usl.Law, most: float) -> str:
    if law.sigma >= 1 or law.peak <= 1:
        return "el máximo está en un proceso: cada uno más resta"
    # A peak far beyond what was measured is not known.
    if law.peak >= _NEAR * most:
        return "sin máximo cerca de lo medido"
    return f"el máximo está en {number(round(law.peak, 1))} procesos"


def autoscaling(seen: pd.DataFrame) -> str:
    """Read what a controller gave and took.

    Args:
        seen: from `autoscaling.run`.
    """
    found = cost(seen)
    waited = (
        "la cola no se vacía"
        if found.cleared_after_s is None
        else f"la cola se vacía {number(found.cleared_after_s)} s después de la ráfaga"
    )
    return (
        f"Llegan a esperar {number(round(found.most_backlog))} mensajes; {waited}. Cuesta "
        f"{number(found.worker_s)} segundos de proceso y {number(found.changes)} cambios."
    )


def break_even(costs: pd.DataFrame, per_s: float) -> str:
    """Read where both cost the same.

    Args:
        costs: from `serverless.costs`.
        per_s: the requests per second at which they do.
    """
    return (
        f"El contenedor cuesta {number(round(costs['container'].iloc[0], 2))} dólares al mes, "
        f"trabaje o no. Por debajo de {number(round(per_s, 2))} peticiones por segundo sale más "
        "barata la función; por encima, el contenedor. Los precios son parámetros: pon los tuyos."
    )


def _percent(share: float) -> str:
    return f"{number(round(100 * share))} %"
