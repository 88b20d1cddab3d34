"""How much is measured: enough for a stable median, or just enough to see that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Amounts for every line.

    Args:
        runs: rounds that count; before them comes one that does not.
        rows: in the outbox that is drained.
        transactions: that are timed one by one.
        messages: consumed in batches.
        seconds: for which events are sent at a rate, or committed as fast as possible.
        writers: processes that commit at the same time.
        backlog: the longest backlog of the growth lines.
        processes: the most consumers of the growth lines.
        sagas: begun one by one; five times as many together, a tenth at a rate.
    """

    runs: int = 5
    rows: int = 20_000
    transactions: int = 1_000
    messages: int = 10_000
    seconds: float = 2.0
    writers: int = 8
    backlog: int = 1_000_000
    processes: int = 4
    sagas: int = 1_000


FULL = Size()
TINY = Size(
    runs=1,
    rows=200,
    transactions=20,
    messages=200,
    seconds=0.2,
    writers=2,
    backlog=2_000,
    processes=2,
    sagas=20,
)
