"""When a breaker opens, what it costs, and the order of the layers, as notebook 04 draws them.

`calls_to_trip` and `orders` are simulations; `held_up` and `costs` are real threads and calls on
this machine's clock, so their figures differ from run to run and only bounds are asserted.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pybreaker

from labkit.breaker import LocalBreaker
from labkit.bulkhead import Bulkhead
from labkit.lab.charts_axes import Points
from labkit.lab.simulations import pipeline_order, trip
from labkit.lab.spanish import number
from labkit.policy import Policy
from labkit.retry import Retry

RULES: Mapping[str, str] = {"counter": "5 seguidos", "rate": "la mitad de los últimos"}
THEORY = "teoría de 5 seguidos"
_LEAST_P = 0.4  # below it, the rate hardly ever opens
THREADS, CALL_S = 8, 0.02
_CALLS, _REPEATS = 2_000, 5
ORDERS: Mapping[str, str] = {
    "fallback > retry > breaker": "alternativa > reintento > cortacircuitos",
    "fallback > breaker > retry": "alternativa > cortacircuitos > reintento",
    "fallback > retry of refusals > breaker": "y reintenta también los rechazos",
    "retry > breaker > fallback": "alternativa, la de más adentro",
}
TO_OPEN, REFUSED = "llamadas hasta abrir", "veces que se le pregunta abierto"
GOOD_ORDER, HIDDEN = ORDERS["fallback > retry > breaker"], ORDERS["retry > breaker > fallback"]


def calls_to_trip() -> dict[str, Points]:
    """Return how many calls each rule lets through, by the probability of failure."""
    frame = trip.compare()
    tripped = frame[(frame["tripped"] == 1.0) & (frame["p"] >= _LEAST_P)]
    found: dict[str, Points] = {
        name: list(zip(rows["p"], rows["calls"], strict=True))
        for rule, name in RULES.items()
        for rows in [tripped[tripped["rule"] == rule]]
    }
    theory = [(p, trip.theory(p)) for p, _ in found[RULES["counter"]]]
    return found | {THEORY: theory}


def interleaved() -> dict[str, float]:
    """Return after how many calls each rule opens when every third call succeeds; NaN: never."""
    found = trip.interleaved()
    return {name: float(found.loc[rule, "tripped_at"]) for rule, name in RULES.items()}


def reading_of_trips(found: Mapping[str, Points], mixed: Mapping[str, float]) -> str:
    """Read the calls until each rule opens, also when others' successes lie in between."""
    at = {name: dict(points)[0.5] for name, points in found.items()}
    said = ", ".join(f"«{name}» {number(round(calls))}" for name, calls in at.items())
    never = " y ".join(f"«{name}»" for name, opened in mixed.items() if math.isnan(opened))
    return (
        f"Llamadas hasta abrir cuando falla la mitad: {said}. Con un éxito de otro proceso cada "
        f"tres llamadas, no abre nunca: {never or 'ninguno'}."
    )


def orders() -> dict[str, dict[str, float]]:
    """Return what each order of the layers does in an outage."""
    found = pipeline_order.compare()
    return {
        name: {
            TO_OPEN: float(found.loc[order, "calls_to_open"]),
            REFUSED: float(found.loc[order, "refused"]),
        }
        for order, name in ORDERS.items()
    }


def reading_of_orders(found: Mapping[str, Mapping[str, float]]) -> str:
    """Read how many calls reach a dependency that is down, by order."""
    said = [
        f"«{name}» " + ("no abre nunca" if math.isnan(row[TO_OPEN])
                        else f"abre tras {number(row[TO_OPEN])}")
        for name, row in found.items()
    ]  # fmt: skip
    return f"{'; '.join(said)}."


def held_up() -> dict[str, float]:
    """Return how long eight threads take for one slow call each, in milliseconds, by breaker."""
    breakers: dict[str, Any] = {
        "pybreaker": pybreaker.CircuitBreaker(),
        "LocalBreaker": LocalBreaker("slow"),
    }
    return {name: 1000 * _together(breaker.call) for name, breaker in breakers.items()}


def _together(call: Callable[..., object]) -> float:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: None, range(THREADS)))  # its threads are started
        began_s = time.perf_counter()
        list(pool.map(lambda _: call(time.sleep, CALL_S), range(THREADS)))
        return time.perf_counter() - began_s


def reading_of_times(found: Mapping[str, float], unit: str) -> str:
    """Read what was measured on this machine's clock."""
    said = ", ".join(f"{name} {number(value)} {unit}" for name, value in found.items())
    return f"Medido ahora, en esta máquina: {said}."


def costs() -> dict[str, float]:
    """Return what each layer adds to a call that goes well, in microseconds: medians."""
    retry = Retry("cost")
    policy = Policy("cost", deadline_s=10.0, retry=Retry("cost"), breaker=LocalBreaker("cost"),
                    bulkhead=Bulkhead("cost", 10))  # fmt: skip
    calls: dict[str, Callable[[], object]] = {
        "pybreaker": lambda: _pybreaker.call(_nothing),
        "cortacircuitos de labkit": lambda: _local.call(_nothing),
        "reintento": lambda: retry.call(_nothing, idempotent=True),
        "política de cuatro capas": lambda: policy.call(_nothing, idempotent=True),
    }
    plain_us = _us(_nothing)
    return {name: _us(call) - plain_us for name, call in calls.items()}


_pybreaker, _local = pybreaker.CircuitBreaker(), LocalBreaker("cost")


def _nothing() -> None:
    """Do nothing, so that what is measured is what stands around it."""


def _us(call: Callable[[], object]) -> float:
    return statistics.median(_once_us(call) for _ in range(_REPEATS))


def _once_us(call: Callable[[], object]) -> float:
    began_ns = time.perf_counter_ns()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter_ns() - began_ns) / _CALLS / 1000
