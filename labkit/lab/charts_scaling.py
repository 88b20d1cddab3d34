"""Figures of limits, queues, balancers and scaling.

Each takes what `labkit.lab.simulations` returns and draws it; its reading is the function of the
same name in `labkit.lab.readings_scaling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.lab.charts_axes import lines
from labkit.lab.charts_panels import bars, name, panels, rows, say, shade, smooth, ticks
from labkit.lab.charts_style import COLOURS, GREY
from labkit.lab.simulations import usl
from labkit.lab.simulations.adaptive_limit import TROUBLE_S, Outcome
from labkit.lab.spanish import number

# The word of the workbook for what the models call by its English name.
LIMITS = {"none": "sin límite", "fixed": "límite fijo", "adaptive": "límite que se adapta"}
BALANCERS = {
    "random": "al azar",
    "round robin": "por turno",
    "two choices": "el mejor de dos",
    "least connections": "el menos ocupado",
    "round robin, ejection": "por turno, apartando",
}


def trips(compared: pd.DataFrame) -> Figure:
    """Draw the calls until a breaker trips against the probability of failure.

    Args:
        compared: from `trip.compare`; a rate is drawn where it trips always.
    """
    counter = compared[compared["rule"] == "counter"]
    rate = compared[(compared["rule"] == "rate") & (compared["tripped"] == 1)]
    points = {
        "cinco fallos seguidos": _points(counter, "p", "calls"),
        "teoría de los cinco": _points(counter, "p", "theory"),
        "la mitad de las últimas": _points(rate, "p", "calls"),
    }
    return lines(
        points, title="¿Cuándo se abre el cortacircuitos?", x="probabilidad de fallo",
        y="llamadas hasta que se abre (cada paso multiplica)", log_y=True,
    )  # fmt: skip


def limits(outcomes: Mapping[str, Outcome]) -> Figure:
    """Draw the goodput over time under each limit, with the loss of workers shaded.

    Args:
        outcomes: name of a limit (`LIMITS`), and what came of it.
    """
    points = {LIMITS[each]: smooth(outcome.goodput) for each, outcome in outcomes.items()}
    figure = lines(
        points, title="Un límite que se adapta", x="segundos",
        y="respuestas a tiempo por segundo (en gris: 4 de 10 trabajan)",
    )  # fmt: skip
    shade(figure.axes[0], TROUBLE_S)
    return figure


def waits(curve: pd.DataFrame) -> Figure:
    """Draw the mean wait against the load, simulated and by Erlang's formula.

    Args:
        curve: from `queueing.curve`, for at most two numbers of servers.
    """
    points = {}
    for servers, found in curve.groupby("servers"):
        who = "1 servidor" if servers == 1 else f"{servers} servidores"
        points[who] = _points(found, "load", "wait")
        points[f"{who}, teoría"] = _points(found, "load", "theory")
    return lines(
        points, title="La espera se dispara antes del 100 %", x="ocupación de los servidores",
        y="espera media, en servicios",
    )  # fmt: skip


def balancers(
    compared: pd.DataFrame, *, title: str = "¿A qué servidor va la siguiente petición?"
) -> Figure:
    """Draw mean and p99 of the latency by policy.

    Args:
        compared: from `balancing.compare`.
        title: what the figure shows.
    """
    boxes = ((2.75, 0.85, 3.0, 3.1), (6.3, 0.85, 3.0, 3.1))
    figure, (mean, p99) = panels(5.2, title, boxes)
    bars(mean, compared["mean"].tolist(), "latencia media, en servicios", 0)
    bars(p99, compared["p99"].tolist(), "p99, en servicios", 1)
    rows(mean, [BALANCERS[policy] for policy in compared.index])
    rows(p99, [""] * len(compared))
    return figure


def moved_keys(placed: pd.DataFrame) -> Figure:
    """Draw which share of the keys moves when a node is added, and how uneven the nodes are.

    Args:
        placed: from `hashing.compare`.
    """
    boxes = ((2.0, 0.85, 3.3, 3.3), (6.2, 0.85, 3.1, 3.3))
    figure, (moved, uneven) = panels(5.4, "Un nodo más: ¿cuántas claves se mudan?", boxes)
    bars(moved, (100 * placed["moved"]).tolist(), "claves que se mudan (%)", 0, log=False)
    bars(uneven, placed["max_over_mean"].tolist(), "el nodo más lleno / la media", 1, log=False)
    words = {"modulo": "módulo", "ring": "anillo", "rendezvous": "rendezvous"}
    rows(moved, [" ".join(words.get(part, part) for part in rule.split()) for rule in placed.index])
    rows(uneven, [""] * len(placed))
    return figure


def scalability(
    workers: Sequence[float],
    throughput: Sequence[float],
    *,
    title: str = "Más procesos: ¿cuánto más?",
) -> Figure:
    """Draw measured throughput, and the straight line, Amdahl's law and the universal one.

    Args:
        workers: numbers of workers, at least three different ones.
        throughput: what each number managed.
        title: what the figure shows.
    """
    laws = {
        "en línea recta": usl.linear(workers, throughput),
        "Amdahl": usl.amdahl(workers, throughput),
        "ley universal": usl.fit(workers, throughput),
    }
    measured = sorted(zip(map(float, workers), map(float, throughput), strict=True))
    steps = np.linspace(min(workers), max(workers), 60).tolist()
    curves = {each: [(n, law.throughput(n)) for n in steps] for each, law in laws.items()}
    figure = lines(
        {"medido": measured} | curves, title=title, x="procesos", y="mensajes por segundo",
    )  # fmt: skip
    points, *fitted = figure.axes[0].get_lines()
    points.set_linestyle("none")
    for line in fitted:
        line.set_marker("")
    return figure


def autoscaling(seen: pd.DataFrame) -> Figure:
    """Draw arrivals, backlog and workers on one axis of time.

    Args:
        seen: from `autoscaling.run`.
    """
    boxes = ((1.0, 4.15, 8.6, 0.95), (1.0, 2.5, 8.6, 0.95), (1.0, 0.85, 8.6, 0.95))
    figure, areas = panels(6.0, "La cola pide procesos, y los devuelve", boxes)
    drawn = {
        "arrived": "mensajes que llegan por segundo",
        "backlog": "mensajes en espera",
        "workers": "procesos que trabajan",
    }
    for n, (axes, (column, said)) in enumerate(zip(areas, drawn.items(), strict=True)):
        axes.step(seen["second"], seen[column], color=COLOURS[n], linewidth=2, where="post")
        axes.set_ylim(0, max(1.0, seen[column].max() * 1.15))
        # Half a process is none.
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        ticks(axes)
        name(axes, x="segundos" if n == len(drawn) - 1 else "", y=said)
    return figure


def break_even(costs: pd.DataFrame, per_s: float) -> Figure:
    """Draw what a month costs against the requests per second.

    Args:
        costs: from `serverless.costs`.
        per_s: where both cost the same, from `serverless.Prices.break_even_per_s`.
    """
    points = {
        "función": _points(costs, "per_s", "function"),
        "contenedor": _points(costs, "per_s", "container"),
    }
    figure = lines(
        points, title="¿Desde cuándo conviene el contenedor?", x="peticiones por segundo",
        y="dólares al mes",
    )  # fmt: skip
    axes = figure.axes[0]
    for line in axes.get_lines():
        line.set_marker("")
    axes.axvline(per_s, color=GREY, linestyle=":", linewidth=2)
    say(axes, (per_s, axes.get_ylim()[1] * 0.06), f" {number(round(per_s, 2))} por segundo")
    return figure


def _points(frame: pd.DataFrame, x: str, y: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in zip(frame[x], frame[y], strict=True)]
