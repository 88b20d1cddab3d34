"""The figure of functions that start cold, and its reading.

It draws what `labkit.lab.simulations.serverless.run` returns.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from labkit.lab.charts_panels import name, panels, say, ticks
from labkit.lab.charts_style import COLOURS, INK, MARKERS
from labkit.lab.spanish import number


def starts(served: pd.DataFrame) -> Figure:
    """Draw each request's latency as a dot, cold ones apart, above the instances alive.

    Args:
        served: from `serverless.run`.
    """
    boxes = ((1.0, 3.0, 8.6, 1.9), (1.0, 0.85, 8.6, 1.05))
    figure, (latency, alive) = panels(5.8, "Unas pocas peticiones, y cuarenta de golpe", boxes)
    highest = float(served["latency_s"].max())
    for n, (cold, label) in enumerate(((False, "en caliente"), (True, "arranque en frío"))):
        found = served[served["cold"] == cold]
        latency.plot(
            found["at_s"], found["latency_s"], MARKERS[n], color=COLOURS[n], markersize=8, alpha=0.6
        )
        if len(found):
            # Above the dots, since each kind lies in a row.
            above = float(found["latency_s"].max()) + 0.1 * highest
            say(latency, (0.0, above), f" {label}", colour=COLOURS[n], va="bottom")
    latency.set_ylim(0, highest * 1.5)
    alive.step(served["at_s"], served["instances"], color=INK, linewidth=2, where="post")
    alive.set_ylim(0, float(served["instances"].max()) * 1.2)
    for axes in (latency, alive):
        axes.set_xlim(0, float(served["at_s"].max()) * 1.02)
        ticks(axes)
    name(latency, y="latencia de cada petición (s)")
    name(alive, x="segundos", y="instancias vivas al atenderla")
    return figure


def reading_of_starts(served: pd.DataFrame) -> str:
    """Read how many started cold, and what that costs.

    Args:
        served: from `serverless.run`.
    """
    cold = served["cold"].astype(bool)
    return (
        f"De {number(len(served))} peticiones, {number(int(cold.sum()))} arrancan en frío y tardan "
        f"{number(round(float(served['latency_s'][cold].median()), 2))} s; las demás, "
        f"{number(round(float(served['latency_s'][~cold].median()), 2))} s. Llegan a vivir "
        f"{number(int(served['instances'].max()))} instancias."
    )
