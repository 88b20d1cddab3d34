"""Figures of the models of retrying: contention, write times, amplification, collapse, time limits.

Each takes what `labkit.lab.simulations` returns and draws it; its reading is the function of the
same name in `labkit.lab.readings_resilience`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.lab.charts_axes import lines
from labkit.lab.charts_panels import bars, name, panels, rows, say, shade, smooth, ticks
from labkit.lab.charts_style import (
    COLOURS,
    DASHES,
    GREY,
    HATCHES,
    MARKERS,
)
from labkit.lab.simulations import bulkheads
from labkit.lab.simulations.bulkheads import END_S, SLOW
from labkit.lab.simulations.metastable import TROUBLE_S, Outcome
from labkit.lab.spanish import number

# The word of the workbook for each policy and each defence of the models.
POLICIES = {
    "none": "sin espera",
    "exponential": "creciente",
    "equal": "variación a medias",
    "full": "variación completa",
    "decorrelated": "variación encadenada",
}
DEFENCES = {
    "none": "sin reintentos",
    "retries": "3 reintentos",
    "retries, jitter": "3 reintentos con variación",
    "retries, budget": "presupuesto de reintentos",
    "retries, breaker": "cortacircuitos",
    "retries, drop at deadline": "descarta al vencer el plazo",
    "retries, drop at half": "descarta a medio plazo",
    "budget, drop at half": "presupuesto y descarte",
}
BULKHEADS = {"without": "sin mamparo", "with": "con mamparo"}
CORE = ("none", "retries, jitter", "retries, budget", "retries, breaker")


def contention(compared: pd.DataFrame) -> Figure:
    """Draw calls and completion by policy, each on a scale on which every step multiplies.

    Args:
        compared: from `backoff.compare`.
    """
    boxes = ((2.75, 0.85, 3.0, 3.1), (6.3, 0.85, 3.0, 3.1))
    figure, (calls, took) = panels(5.2, "Cien clientes, una fila: trabajo y tiempo", boxes)
    bars(calls, compared["calls"].tolist(), "escrituras que recibe el servidor", 0)
    seconds = compared["completion_ms"] / 1_000
    bars(took, seconds.tolist(), "segundos hasta que acaba el último", 1)
    rows(calls, [POLICIES[policy] for policy in compared.index])
    rows(took, [""] * len(compared))
    return figure


def write_times(times: pd.DataFrame) -> Figure:
    """Draw a mark for every write, a strip per policy: clusters, or spread evenly.

    Args:
        times: from `backoff.write_times`.
    """
    title = "¿Cuándo llega cada escritura? Cien clientes a la vez"
    figure, (axes,) = panels(5.4, title, ((2.75, 0.85, 5.3, 3.6),))
    drawn = [(str(policy), at) for policy, at in times.groupby("policy", sort=False)["at_ms"]]
    for row, (_, at) in enumerate(drawn):
        axes.eventplot(
            at.tolist(), lineoffsets=row, linelengths=0.6, linewidths=0.8, colors=COLOURS[0],
            alpha=0.5,
        )  # fmt: skip
        said = f"{number(len(at))} escrituras"
        say(axes, (1.02, row), said, transform=axes.get_yaxis_transform(), weight="normal")
    axes.set_xscale("log")
    ticks(axes, x=(30, 100, 1_000, 10_000, 60_000))
    rows(axes, [POLICIES[policy] for policy, _ in drawn])
    name(axes, x="milisegundos desde el comienzo (cada paso multiplica)")
    return figure


def amplification(curves: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    """Draw the load against the probability of failure, and the calls by depth.

    Args:
        curves: from `amplification.curves`.
        layers: from `amplification.layers`.
    """
    boxes = ((0.8, 0.85, 4.3, 3.3), (6.2, 0.85, 3.4, 3.3))
    figure, (load, depth) = panels(5.4, "Reintentar multiplica: por intento y por capa", boxes)
    places = {
        "retries": ((0.62, 3.2), "3 reintentos"),
        "budget": ((0.43, 1.34), "con presupuesto"),
        "none": ((0.43, 0.7), "sin reintentos"),
    }
    for n, (policy, (at, said)) in enumerate(places.items()):
        found = curves[curves["policy"] == policy]
        load.plot(found["x"], found["theory_load"], color=COLOURS[n], linestyle=DASHES[n])
        load.plot(
            found["x"], found["load"], color=COLOURS[n], marker=MARKERS[n], linestyle="none",
            markersize=8,
        )  # fmt: skip
        say(load, at, said, colour=COLOURS[n], ha="right" if policy == "retries" else "left")
    load.set_ylim(0, 4.4)
    ticks(load, x=(0, 0.25, 0.5, 0.75, 1), y=(0, 1, 2, 3, 4))
    name(load, x="probabilidad de fallo (línea: teoría)", y="llamadas por petición")
    _draw_depths(depth, layers)
    return figure


def _draw_depths(axes: Axes, layers: pd.DataFrame) -> None:
    bars = axes.bar(layers["depth"], layers["calls"], 0.6, color=COLOURS[1], edgecolor="white")
    for bar, calls in zip(bars, layers["calls"], strict=True):
        bar.set_hatch(HATCHES[1])
        middle = bar.get_x() + bar.get_width() / 2
        say(axes, (middle, calls + 1.5), number(int(calls)), ha="center", va="bottom")
    axes.set_ylim(0, layers["calls"].max() * 1.15)
    ticks(axes, x=layers["depth"].tolist())
    name(axes, x="capas que intentan 3 veces", y="llamadas que llegan abajo")


def metastable(outcomes: Mapping[str, Outcome]) -> Figure:
    """Draw the goodput over time, at most four defences, with the trouble shaded.

    Args:
        outcomes: name of a defence (`DEFENCES`), and what came of it.
    """
    points = {DEFENCES[each]: smooth(outcome.goodput) for each, outcome in outcomes.items()}
    figure = lines(
        points,
        title="El sistema que no vuelve",
        x="segundos",
        y="respuestas útiles por segundo (en gris: servidor lento)",
    )
    shade(figure.axes[0], TROUBLE_S)
    return figure


def time_limits(curve: pd.DataFrame, marks: pd.DataFrame) -> Figure:
    """Draw false timeouts and mean waiting against the limit, with the percentiles marked.

    Args:
        curve: from `timeouts.curve`.
        marks: from `timeouts.marks`.
    """
    boxes = ((1.0, 3.55, 8.4, 1.75), (1.0, 0.85, 8.4, 1.75))
    title = "¿Cuánto esperar? Corto: se corta trabajo bien hecho. Largo: se espera a un muerto"
    figure, (wrong, waiting) = panels(6.8, title, boxes)
    wrong.plot(curve["limit_ms"], 100 * curve["false_timeouts"], color=COLOURS[1], linewidth=2.5)
    waiting.plot(curve["limit_ms"], curve["waiting_ms"], color=COLOURS[0], linewidth=2.5)
    for axes in (wrong, waiting):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        for limit in marks["limit_ms"]:
            axes.axvline(limit, color=GREY, linestyle=":", linewidth=2)
        ticks(axes, x=(20, 100, 1_000, 10_000, 30_000))
    name(wrong, y="respuestas que llegan después del tiempo límite (%)")
    name(waiting, x="tiempo límite, en ms (cada paso multiplica)", y="espera media por llamada, ms")
    # The one in the middle has room at its left only.
    for (mark, limit), (side, y) in zip(
        marks["limit_ms"].items(), (("left", 88), ("right", 66), ("left", 88)), strict=True
    ):
        said = f"{str(mark).replace('.', ',')}: {number(limit)} ms"
        say(wrong, (limit, y), f"← {said}" if side == "left" else f"{said} →", ha=side)
    return figure


def bulkhead(outcomes: Mapping[str, bulkheads.Outcome]) -> Figure:
    """Draw each of the victim's requests as a dot, a panel per outcome, the slow stretch shaded.

    Args:
        outcomes: what was done (`without`, `with`), and what came of it; two of them.
    """
    boxes = ((1.1, 3.5, 8.5, 1.75), (1.1, 0.85, 8.5, 1.75))
    figure, areas = panels(6.4, "Un vecino lento: ¿qué nota quien no lo usa?", boxes)
    longest = max(outcome.victim_s(1.0, (0.0, END_S)) for outcome in outcomes.values())
    for n, (axes, (which, outcome)) in enumerate(zip(areas, outcomes.items(), strict=True)):
        seen = outcome.frame()
        axes.scatter(
            seen["at_s"], seen["latency_s"], s=8, color=COLOURS[n], marker=MARKERS[n], alpha=0.4
        )
        shade(axes, SLOW)
        axes.set_yscale("log")
        axes.set_ylim(0.0005, longest * 2)
        ticks(axes, y=(0.001, 0.01, 0.1, 1, 10))
        named = f"{BULKHEADS[which]}: latencia, en segundos (en gris: vecino lento)"
        name(axes, x="segundos" if n else "", y=named)
    return figure


def hedging(compared: pd.DataFrame) -> Figure:
    """Draw the p99 and the extra load, by the percentile after which a second request goes.

    Args:
        compared: from `hedging.compare`.
    """
    boxes = ((2.75, 0.85, 3.0, 3.1), (6.3, 0.85, 3.0, 3.1))
    figure, (late, load) = panels(5.2, "Pedirlo dos veces: qué ahorra y qué cuesta", boxes)
    bars(late, compared["p99_ms"].tolist(), "p99, en ms", 0, log=False)
    bars(load, (100 * compared["extra_load"]).tolist(), "carga de más (%)", 1, log=False)
    after = compared["after"]
    rows(late, ["una sola" if isnan(p) else f"otra tras p{number(round(100 * p))}" for p in after])
    rows(load, [""] * len(compared))
    return figure
