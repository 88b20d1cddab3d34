"""Functions: a small Lambda over Redis Streams, at work.

    found = functions.trickle_and_burst(stack())     cold and warm, instances, down to none
    functions.whole_or_partial(stack())              what one bad message of a batch costs
    functions.too_little_concurrency(stack())        dead letters that no code ever saw

Each sends messages to a queue, lets `labkit.lab.scaling.mapping` bring them to a function whose
instances are processes (`labkit.lab.scaling.instances`), and returns what was counted.

Guarantee: executions are counted from the lines that the function itself logs.
Not guaranteed: the duration of a cold start: that of a Python process, here and now.

Source: AWS Lambda, "Using Lambda with Amazon SQS". `simulations.serverless` has the prices and
`simulations.partial_batch` the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import pandas as pd

from labkit.lab.scaling import samples
from labkit.lab.scaling.instances import Function
from labkit.lab.scaling.mapping import Coming, Delivery, Mapping, Queue, Settings
from labkit.lab.servers import Stack
from labkit.lab.spanish import number
from labkit.transports.redis_streams import connect

# The handlers and the words of the class for them.
HANDLERS = {"lote entero": samples.all_or_nothing, "resultado parcial": samples.partial}
_KEY = "{funciones}:cola"
_IDLE_S = 0.4
# A few that find nobody there, and many at once.
TRICKLE_AND_BURST = (
    Coming(0.0, {}),
    Coming(0.3, {}),
    Coming(1.2, {}),
    *(Coming(1.5, {}) for _ in range(12)),
)


class Run(NamedTuple):
    """What came of a queue.

    `deliveries` has a row per batch (`mapping.Delivery`); `alive` the columns `at_s` and
    `instances`, a row per look; `dead` the bodies of the dead letters.
    """

    deliveries: pd.DataFrame
    alive: pd.DataFrame
    dead: list[dict[str, object]]

    @property
    def executions(self) -> int:
        """Return how often a message was executed."""
        return int(self.deliveries["executed"].sum())

    @property
    def throttled(self) -> int:
        """Return how many batches were turned away."""
        return int((self.deliveries["outcome"] == "throttled").sum())


def run(
    servers: Stack,
    function: Function,
    coming: Sequence[Coming],
    settings: Settings,
    *,
    to_zero: bool = False,
) -> Run:
    """Send messages to a queue, and bring them to a function until nothing is left.

    Args:
        servers: where.
        function: what handles them; it stays open.
        coming: what is sent when.
        settings: the mapping's.
        to_zero: wait until its last instance has ended, too.
    """
    with _queue(servers, settings) as queue:
        mapping = Mapping(queue, function, settings)
        mapping.run(coming, to_zero=to_zero)
        return Run(
            pd.DataFrame(mapping.deliveries, columns=list(Delivery._fields)),
            pd.DataFrame(mapping.alive, columns=["at_s", "instances"]),
            queue.dead(),
        )


def trickle_and_burst(
    servers: Stack, coming: Sequence[Coming] = TRICKLE_AND_BURST, *, concurrency: int = 3
) -> Run:
    """Let a few messages come, and many at once, one per invocation; wait until nobody is there.

    Args:
        servers: where.
        coming: what is sent when.
        concurrency: the most instances; the mapping asks for no more.
    """
    settings = Settings(batch=1, pollers=concurrency)
    function = Function(_path(samples.slow), reserved_concurrency=concurrency, idle_s=_IDLE_S)
    with closing(function):
        return run(servers, function, coming, settings, to_zero=True)


def whole_or_partial(servers: Stack, batch: int = 10) -> pd.DataFrame:
    """Send a batch with one bad message to each of `HANDLERS`.

    Args:
        servers: where.
        batch: how many messages there are.

    Returns:
        The columns of `simulations.partial_batch.compare`; the index is `handler`.
    """
    bodies = [{"poison": n == batch - 1} for n in range(batch)]
    coming, rows = [Coming(0.0, each) for each in bodies], {}
    for name, handler in HANDLERS.items():
        with closing(Function(_path(handler))) as function:
            found = run(servers, function, coming, Settings(batch=batch))
        good = sum(not each["poison"] for each in found.dead)
        rows[name] = (found.executions, len(found.dead), good)
    columns = ["executions", "dead", "dead_but_good"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("handler")


def too_little_concurrency(servers: Stack, pollers: Sequence[int] = (4, 1)) -> pd.DataFrame:
    """Let pollers bring messages to a function that may have one instance.

    Args:
        servers: where.
        pollers: numbers of pollers to compare; AWS calls the limit maximum concurrency.

    Returns:
        The columns `executions`, `throttled` and `dead`; the index is `pollers`. No message is bad.
    """
    rows = {}
    for n in pollers:
        with closing(Function(_path(samples.slow), reserved_concurrency=1)) as function:
            settings = Settings(batch=1, pollers=n)
            found = run(servers, function, [Coming(0.0, {}) for _ in range(8)], settings)
        rows[n] = (found.executions, found.throttled, len(found.dead))
    columns = ["executions", "throttled", "dead"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("pollers")


def reading(found: Run) -> str:
    """Read what starting cold costs, and how many instances there were.

    Args:
        found: from `trickle_and_burst`.
    """
    answered = found.deliveries.dropna(subset=["took_s"])
    cold = answered["cold"].astype(bool)
    took_ms = 1000 * answered["took_s"]
    return (
        f"{number(int(cold.sum()))} arranques en frío, de {number(round(took_ms[cold].median()))} "
        f"ms; {number(int((~cold).sum()))} en caliente, de "
        f"{number(round(took_ms[~cold].median()))} ms. Llegan a vivir "
        f"{number(int(found.alive['instances'].max()))} instancias; al final, "
        f"{number(int(found.alive['instances'].iloc[-1]))}."
    )


@contextmanager
def _queue(servers: Stack, settings: Settings) -> Iterator[Queue]:
    client = connect(servers.redis_url)
    queue = Queue(client, _KEY, settings)
    try:
        yield queue
    finally:
        queue.delete()
        client.close()


def _path(handler: object) -> str:
    return f"{samples.__name__}:{getattr(handler, '__name__', '')}"
