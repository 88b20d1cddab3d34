"""Tables that put what was simulated beside what theory or arithmetic says.

Guarantee: every number comes from the data that are given, or from the formula that is named.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labkit.lab.charts_scaling import BALANCERS
from labkit.lab.simulations import autoscaling, balancing, partial_batch, queueing, serverless

_SCALERS = {
    "fixed 4": "4 siempre",
    "fixed 12": "12 siempre",
    "0 to 12": "de 0 a 12",
    "1 to 12": "de 1 a 12",
}
_HANDLERS = {"whole batch": "todo el lote", "partial result": "dice cuáles"}
_LITTLE = ((1, 0.5), (1, 0.9), (4, 0.8), (4, 0.9))


def waits(curve: pd.DataFrame, *, from_load: float = 0.5) -> pd.DataFrame:
    """Return the waits of `queueing.curve` beside Erlang's formula.

    Args:
        curve: from `queueing.curve`.
        from_load: leave out what is below.
    """
    found = curve[curve["load"] >= from_load]
    return pd.DataFrame(
        {
            "servidores": found["servers"],
            "ocupación": found["load"],
            "espera simulada": found["wait"],
            "espera según Erlang": found["theory"],
            "diferencia (%)": _off(found["wait"], found["theory"]),
        }
    )


def little(cases: Sequence[tuple[int, float]] = _LITTLE) -> pd.DataFrame:
    """Return both sides of Little's law, each measured in its own way.

    Args:
        cases: numbers of servers and loads.
    """
    rows = [(servers, load, *queueing.little(servers, load)) for servers, load in cases]
    names = ["servidores", "ocupación", "L: contados dentro", "λW: llegan × están"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(**{"diferencia (%)": _off(frame[names[2]], frame[names[3]])})


def balancers(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the latencies of `balancing.compare` beside theory, where there is one.

    Args:
        compared: from `balancing.compare`, all servers alike.
    """
    theory = balancing.theory()
    least = {"random": theory["random"], "least connections": theory["one queue"]}
    return pd.DataFrame(
        {
            "reparto": [BALANCERS[policy] for policy in compared.index],
            "media": compared["mean"].to_list(),
            "p99": compared["p99"].to_list(),
            "media según la teoría": [least.get(policy) for policy in compared.index],
        }
    )


def autoscalers() -> pd.DataFrame:
    """Return what each number of workers gives and takes, in the model."""
    found = autoscaling.compare()
    return pd.DataFrame(
        {
            "procesos": [_SCALERS[name] for name in found.index],
            "llegan a esperar": found["most_backlog"].to_list(),
            "se vacía (s después)": found["cleared_after_s"].to_list(),
            "segundos de proceso": found["worker_s"].to_list(),
        }
    )


def flapping() -> pd.DataFrame:
    """Return how often the number of workers changes, by how long one waits to take some away."""
    found = autoscaling.flapping()
    return pd.DataFrame(
        {
            "espera antes de quitar (s)": list(found.index),
            "cambios": found["changes"].to_list(),
            "segundos de proceso": found["worker_s"].to_list(),
        }
    )


def batches() -> pd.DataFrame:
    """Return what a batch of ten with one bad message costs, beside the arithmetic."""
    found = partial_batch.compare()
    expected = [partial_batch.theory(partial=partial) for partial in (False, True)]
    return pd.DataFrame(
        {
            "el manejador": [_HANDLERS[name] for name in found.index],
            "ejecuciones": found["executions"].to_list(),
            "ejecuciones, a mano": [each.executions for each in expected],
            "muertos": found["dead"].to_list(),
            "muertos que eran buenos": found["dead_but_good"].to_list(),
        }
    )


def break_evens(prices: serverless.Prices | None = None) -> pd.DataFrame:
    """Return from which rate on a container is cheaper, by the duration of a request.

    Args:
        prices: what is paid; the examples by default.
    """
    found = serverless.break_evens(prices=prices)
    return pd.DataFrame(
        {
            "ms por petición": 1000 * found["duration_s"],
            "peticiones por segundo": found["per_s"],
            "millones al mes": found["per_month"] / 1e6,
        }
    )


def caps(limits: Sequence[int | None] = (None, 5, 2)) -> pd.DataFrame:
    """Return what a limit of instances does to a trickle with a burst, in the model.

    Args:
        limits: the most instances; None: no limit.
    """
    arrivals = serverless.trickle_and_burst()
    rows = []
    for limit in limits:
        served = serverless.run(serverless.Function(cap=limit), arrivals)
        rows.append(
            {
                "instancias, como mucho": "sin tope" if limit is None else str(limit),
                "arranques en frío": int(served["cold"].sum()),
                "viven a la vez": int(served["instances"].max()),
                "espera más larga (s)": round(float(served["waited_s"].max()), 2),
            }
        )
    return pd.DataFrame(rows)


def _off(found: pd.Series, expected: pd.Series) -> pd.Series:
    return (100 * (found / expected - 1)).round(1)
