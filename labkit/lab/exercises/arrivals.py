"""Arrivals: in which orders messages may come when one of them comes again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import TypeVar

T = TypeVar("T")


def arrivals(messages: Sequence[T], *, again: T, times: int) -> Iterator[tuple[T, ...]]:
    """Yield every different order of arrival.

    Args:
        messages: each comes once.
        again: one of them, which comes more often.
        times: how often it comes in all.
    """
    extra = [messages.index(again)] * (times - 1)
    orders = sorted(set(permutations([*range(len(messages)), *extra])))
    for order in orders:
        yield tuple(messages[number] for number in order)
