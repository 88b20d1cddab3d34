"""What retries cost: what notebook 04 draws of the simulations, and calls that are really nested.

The simulations (`labkit.lab.simulations`) say what they assume; here their figures get the words of
the class. `through_layers` simulates nothing: it nests labkit's own `Retry` and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from labkit.errors import TransientError
from labkit.lab.charts_axes import Points, Span
from labkit.lab.charts_bars import bars
from labkit.lab.simulations import amplification, backoff, metastable
from labkit.lab.spanish import counted, number
from labkit.retry import Retry

POLICIES: Mapping[str, str] = {
    "none": "sin espera",
    "exponential": "exponencial",
    "equal": "mitad fija, mitad al azar",
    "full": "toda al azar",
    "decorrelated": "al azar, según la anterior",
}
DEFENCES: Mapping[str, str] = {
    "none": "sin reintentos",
    "retries, jitter": "reintentos y azar",
    "retries, budget": "presupuesto",
    "retries, breaker": "cortacircuitos",
}
CALLS, SECONDS = "llamadas", "segundos hasta el último"
TROUBLE = metastable.TROUBLE_S
CAUSE = Span(*TROUBLE, "la causa")
_SMOOTHED_S = 5


def through_layers(depth: int, attempts: int = 3) -> int:
    """Call through services that all retry; count what reaches the last one, which is down.

    Args:
        depth: how many services retry, one inside the other.
        attempts: of each.
    """
    reached = 0

    def last() -> None:
        nonlocal reached
        reached += 1
        raise TransientError

    call: Callable[[], None] = last
    for layer in range(depth):
        retry = Retry(f"layer-{layer}", attempts, sleep=lambda _: None)
        call = partial(retry.call, call, idempotent=True)
    try:
        call()
    except TransientError:
        return reached
    raise AssertionError("the last service always fails")


def load() -> dict[str, Points]:
    """Return the calls per request against the probability that a call fails."""
    curves = amplification.curves()
    names = {"none": "un intento", "retries": "tres reintentos", "budget": "con presupuesto"}
    found: dict[str, Points] = {
        name: list(zip(rows["x"], rows["load"], strict=True))
        for policy, name in names.items()
        for rows in [curves[curves["policy"] == policy]]
    }
    theory = [(x, amplification.theory(x).load) for x in amplification.FAILURES]
    return found | {"teoría de tres reintentos": theory}


def reading_of_load(load: Mapping[str, Points]) -> str:
    """Read the load when everything fails."""
    ends = {name: points[-1][1] for name, points in load.items()}
    said = ", ".join(f"«{name}» {number(round(value, 2))}" for name, value in ends.items())
    return f"Llamadas por petición cuando todo falla: {said}."


def layers_chart(layers: Mapping[int, int]) -> Figure:
    """Draw the calls that reach the last service, by how many retry before it."""
    rows = {
        counted(depth, "capas"): {"llamadas que llegan al último": float(calls)}
        for depth, calls in layers.items()
    }
    return bars(rows, title="Cada capa intenta tres veces")


def reading_of_layers(layers: Mapping[int, int]) -> str:
    """Read what each layer does to the calls."""
    said = ", ".join(f"{number(n)} con {counted(depth, 'capas')}" for depth, n in layers.items())
    return f"Al último servicio le llegan {said}: se multiplican, no se suman."


def contention(runs: int = 5) -> dict[str, dict[str, float]]:
    """Return calls and seconds of a hundred clients that want one row, by way of waiting."""
    found = backoff.compare(runs=runs)
    return {
        name: {
            CALLS: round(found.loc[policy, "calls"]),
            SECONDS: round(found.loc[policy, "completion_ms"] / 1000, 1),
        }
        for policy, name in POLICIES.items()
    }


def reading_of_contention(found: Mapping[str, Mapping[str, float]]) -> str:
    """Read what waiting without chance costs, and what chance saves."""
    none, fixed, full = (found[POLICIES[name]] for name in ("none", "exponential", "full"))
    return (
        f"Esperar al azar hace {number(full[CALLS])} llamadas donde sin espera se hacen "
        f"{number(none[CALLS])}. La exponencial sin azar ahorra un "
        f"{number(round(100 * (1 - fixed[CALLS] / none[CALLS])))} % y tarda "
        f"{number(round(fixed[SECONDS] / full[SECONDS]))} veces más que la que va toda al azar."
    )


def writes(until_ms: float = 400.0) -> dict[str, Points]:
    """Return how many writes of a hundred clients arrive in each 20 ms, by way of waiting."""
    frame = backoff.write_times()
    names = ("none", "exponential", "full")
    return {
        POLICIES[policy]: _counted(frame[frame["policy"] == policy]["at_ms"].tolist(), until_ms)
        for policy in names
    }


def reading_of_writes(found: Mapping[str, Points]) -> str:
    """Read the crowds: the most writes of one bar, and in how many bars there are none."""
    said = [
        f"«{name}» hasta {number(max(n for _, n in points))} juntas y "
        f"{number(sum(n == 0 for _, n in points))} huecos"
        for name, points in found.items()
    ]
    return f"Escrituras cada 20 ms: {'; '.join(said)}."


def _counted(times_ms: Sequence[float], until_ms: float, width_ms: float = 20.0) -> Points:
    bins = [0] * int(until_ms / width_ms)
    for at in times_ms:
        if at < until_ms:
            bins[int(at / width_ms)] += 1
    return [(n * width_ms, count) for n, count in enumerate(bins)]


def trouble() -> dict[str, metastable.Outcome]:
    """Let each defence meet ten seconds of trouble."""
    return {name: metastable.run(metastable.DEFENCES[each]) for each, name in DEFENCES.items()}


def goodput(outcomes: Mapping[str, metastable.Outcome]) -> dict[str, Points]:
    """Return the answers in time per second, each as the mean of five seconds."""
    return {name: _smoothed(each.goodput.tolist()) for name, each in outcomes.items()}


def reading_of_trouble(outcomes: Mapping[str, metastable.Outcome]) -> str:
    """Read who comes back, and when."""
    recovered = {name: each.recovered_at_s for name, each in outcomes.items()}
    came = [f"«{name}» en el {number(at)}" for name, at in recovered.items() if at is not None]
    never = [f"«{name}»" for name, at in recovered.items() if at is None]
    return (
        f"La causa acaba en el segundo {number(TROUBLE[1])}. Vuelven a la normalidad: "
        f"{', '.join(came)}. No vuelve nunca: {', '.join(never) or 'ninguno'}."
    )


def _smoothed(values: Sequence[float]) -> Points:
    return [
        (at, sum(values[at - _SMOOTHED_S : at]) / _SMOOTHED_S)
        for at in range(_SMOOTHED_S, len(values) + 1)
    ]
