"""One bad message in a batch: what a queue repeats when the handler says which one failed.

Model: a queue hands out batches of ten and sets a message aside when it was received three times
without success. The handler tries every message of a batch. *Whole batch*: it ends in an exception,
so all ten count as failed. *Partial result*: it returns `batchItemFailures` with the ids of those
that failed, and only they come back.
Assumptions: what comes back is handed out again together, until nothing is left.
It does not show: a handler that stops at the first failure. It executes less, and sets the same
number aside.

Source: AWS Lambda with SQS, *Implementing partial batch responses*.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

BATCH, RECEIVES = 10, 3


class Result(NamedTuple):
    """What came of a queue: executions, messages set aside, and those that were good."""

    executions: int
    dead: int
    dead_but_good: int


def theory(
    *, partial: bool, poison: int = 1, batch: int = BATCH, receives: int = RECEIVES
) -> Result:
    """Return what one batch must give, by arithmetic."""
    if not poison:
        return Result(batch, 0, 0)
    if partial:
        return Result(batch - poison + poison * receives, poison, 0)
    return Result(batch * receives, batch, batch - poison)


def run(
    messages: Sequence[str],
    poison: Sequence[str],
    *,
    partial: bool,
    batch: int = BATCH,
    receives: int = RECEIVES,
) -> Result:
    """Work a queue off.

    Args:
        messages: their ids, in order.
        poison: the ids of those that always fail.
        partial: the handler says which failed; otherwise it raises.
        batch: how many it gets at once.
        receives: how often a message is received before it is set aside.
    """
    queue, received = deque(messages), Counter[str]()
    dead: list[str] = []
    while queue:
        taken = list(_take(queue, batch))
        received.update(taken)
        failed = [each for each in taken if each in poison]
        back = failed if partial else (taken if failed else [])
        dead += [each for each in back if received[each] >= receives]
        # What failed together comes back together, before what never was received.
        queue.extendleft(reversed([each for each in back if received[each] < receives]))
    return Result(received.total(), len(dead), len(set(dead) - set(poison)))


def _take(queue: deque[str], batch: int) -> Iterator[str]:
    for _ in range(min(batch, len(queue))):
        yield queue.popleft()


def compare(batch: int = BATCH) -> pd.DataFrame:
    """Return both ways for a batch with one bad message; the index is `handler`."""
    ids = [f"m{n}" for n in range(batch)]
    rows = {
        name: run(ids, ids[-1:], partial=partial, batch=batch)._asdict()
        for name, partial in (("whole batch", False), ("partial result", True))
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("handler")
