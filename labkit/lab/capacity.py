"""What notebook 04 draws of the simulations of deadlines, bulkheads, adaptive limits and hedging.

The simulations (`labkit.lab.simulations`) say what they assume; here their figures get the words of
the class. A `Policy` of labkit has the same four layers, and its own tests.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from labkit.lab.charts_axes import Points, Span
from labkit.lab.simulations import adaptive_limit, bulkheads, deadlines, hedging
from labkit.lab.spanish import number

POLICIES: Mapping[str, str] = {
    "no deadline": "nadie mira el plazo",
    "deadline": "se mira al empezar",
    "deadline, margin": "y con margen",
}
IN_TIME, WASTED = "respuestas a tiempo", "trabajo para nadie (%)"
LIMITS: Mapping[str, str] = {"none": "sin límite", "fixed": "límite fijo", "adaptive": "adaptable"}
CAPACITY = "lo que se puede"
FEW = Span(*adaptive_limit.TROUBLE_S, "faltan 6 de 10")
SLOW = Span(*bulkheads.SLOW, "el otro va lento")
WITHOUT, WITH = "sin mamparo", "con mamparo"
TAIL, EXTRA = "p99 (ms)", "llamadas de más (%)"
NOT_HEDGED = "sin segunda petición"


def deadline_work() -> dict[str, dict[str, float]]:
    """Return what was in time and what was work for nobody, by what is done about the deadline."""
    found = deadlines.compare()
    return {
        name: {
            IN_TIME: int(found.loc[policy, "in_time"]),
            WASTED: round(100 * float(found.loc[policy, "wasted_share"]), 1),
        }
        for policy, name in POLICIES.items()
    }


def reading_of_deadlines(work: Mapping[str, Mapping[str, float]]) -> str:
    """Read how much work nobody waited for."""
    said = [
        f"«{name}»: {number(row[IN_TIME])} a tiempo, {number(row[WASTED])} % para nadie"
        for name, row in work.items()
    ]
    return f"{'; '.join(said)}."


def victims() -> dict[str, Points]:
    """Return the latency of those who do not need what is slow: p99 of every two seconds."""
    return {
        name: _p99(bulkheads.run(limit).frame())
        for name, limit in ((WITHOUT, None), (WITH, bulkheads.LIMIT))
    }


def _p99(frame: object) -> Points:
    rows = frame.groupby(frame["at_s"] // 2 * 2 + 1)["latency_s"]  # type: ignore[attr-defined, index]
    return [(float(at), float(value)) for at, value in rows.quantile(0.99).items()]


def worst_s(points: Points, during: Span = SLOW) -> float:
    """Return the highest value of a stretch."""
    return max(value for at, value in points if during.since <= at < during.until)


def reading_of_victims(found: Mapping[str, Points]) -> str:
    """Read the worst that happened to those who do not need what is slow."""
    said = [f"«{name}», {number(round(worst_s(points), 1))} s" for name, points in found.items()]
    return f"Mientras el otro va lento, el p99 de quien no lo usa llega a: {'; '.join(said)}."


def adapting() -> dict[str, adaptive_limit.Outcome]:
    """Let each limit meet the loss of six workers of ten."""
    return {name: adaptive_limit.run(adaptive_limit.LIMITS[key]()) for key, name in LIMITS.items()}


def answers_in_time(outcomes: Mapping[str, adaptive_limit.Outcome]) -> dict[str, Points]:
    """Return the answers in time per second, each as the mean of five, and what is possible."""
    few, all_ = (n / adaptive_limit.SERVICE_S for n in (adaptive_limit.FEW_WORKERS,
                                                         adaptive_limit.WORKERS))  # fmt: skip
    load = min(adaptive_limit.LOAD_PER_S, all_)
    steps = [(0.0, load), (60.0, load), (60.0, few), (120.0, few), (120.0, load), (180.0, load)]
    return {name: _smoothed(each.goodput) for name, each in outcomes.items()} | {CAPACITY: steps}


def _smoothed(values: np.ndarray) -> Points:
    return [(at, float(values[at - 5 : at].mean())) for at in range(5, len(values) + 1)]


def in_trouble(outcomes: Mapping[str, adaptive_limit.Outcome]) -> dict[str, float]:
    """Return the answers in time per second while workers are missing."""
    since, until = adaptive_limit.TROUBLE
    return {name: float(each.goodput[since:until].mean()) for name, each in outcomes.items()}


def reading_of_limits(outcomes: Mapping[str, adaptive_limit.Outcome]) -> str:
    """Read what each limit saves while workers are missing, and what it costs in calm."""
    said = [f"«{name}» {number(round(rate))}" for name, rate in in_trouble(outcomes).items()]
    calm = adaptive_limit.CALM
    refused = float(outcomes[LIMITS["adaptive"]].refused[calm[0] : calm[1]].mean())
    return (
        f"Respuestas a tiempo por segundo mientras faltan: {', '.join(said)}, de 40 posibles. "
        f"El adaptable rechaza {number(round(refused))} por segundo también en calma."
    )


def hedged() -> dict[str, dict[str, float]]:
    """Return tail and extra load, by when the second request is sent."""
    found = hedging.compare()
    return {
        NOT_HEDGED if np.isnan(row.after) else f"tras el p{row.after * 100:.0f}": {
            TAIL: round(row.p99_ms, 1),
            EXTRA: round(100 * row.extra_load, 1) if np.isfinite(row.after_ms) else 0.0,
        }
        for row in found.itertuples()
    }


def reading_of_hedging(found: Mapping[str, Mapping[str, float]]) -> str:
    """Read what a second request saves and costs."""
    said = [
        f"«{name}» p99 {number(row[TAIL])} ms y {number(row[EXTRA])} % de más"
        for name, row in found.items()
    ]
    return f"{'; '.join(said)}."
