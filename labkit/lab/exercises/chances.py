"""Asking `espera` of 04-E1: one pause, or the pauses of many clients, each with its own chance.

Guarantee: what cannot be a pause is refused with what to write instead; a function that answers
the same question with the same chance otherwise the second time is refused too.
Not guaranteed: that the pause is right; see `waiting`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from labkit.lab.exercises.student import FlawError, RaisedError, StudentFunction, telling

_CLIENTS = 1000
Chance = Callable[[], float]


class Case(NamedTuple):
    """One question, and how long the student's function waits; None: it does not go on."""

    attempt: int
    left_s: float
    asked_s: float | None
    wait_s: float | None

    @property
    def seconds(self) -> float:
        """Return the pause of one that goes on."""
        return self.wait_s or 0.0

    def flaw(self, sentence: str) -> FlawError:
        """Return the flaw with the question that shows it."""
        return FlawError(sentence, f"{_told(*self[:3])} → `{_shown(self.wait_s)}`")


def longest() -> Chance:
    """Return the worst luck: always the largest number there is."""
    return lambda: math.nextafter(1.0, 0.0)


def clients(
    function: StudentFunction, attempt: int, left_s: float, asked_s: float | None = None
) -> list[Case]:
    """Ask for many clients that failed together, client by client with its own seeded chance."""
    return [
        ask(function, attempt, left_s, asked_s, partial(_seeded, seed)) for seed in range(_CLIENTS)
    ]


def _seeded(seed: int) -> Chance:
    return random.Random(seed).random


def ask(
    function: StudentFunction,
    attempt: int,
    left_s: float,
    asked_s: float | None,
    chance: Callable[[], Chance],
) -> Case:
    """Ask twice: who remembers the first time, or has chances of their own, answers otherwise."""
    first, again = (
        Case(attempt, left_s, asked_s, _answer(function, attempt, left_s, asked_s, chance()))
        for _ in range(2)
    )
    if first != again:
        raise again.flaw(
            "Con los mismos argumentos y el mismo `azar`, la segunda vez devuelves otra cosa: no "
            "guardes nada fuera y usa solo `azar()`."
        )
    return first


def _answer(
    function: StudentFunction, attempt: int, left_s: float, asked_s: float | None, chance: Chance
) -> float | None:
    try:
        with telling(function):
            answer = function(attempt, left_s, asked_s, chance)
    except RaisedError as raised:
        raise _explained(raised, asked_s) from None
    return _pause_in(answer, _told(attempt, left_s, asked_s))


def _explained(raised: RaisedError, asked_s: float | None) -> FlawError:
    """Say what a TypeError is most likely about."""
    if isinstance(raised.error, TypeError) and "builtin_function" in str(raised.error):
        return FlawError("`azar` es una función: `azar()` da un número entre 0 y 1.", raised)
    if isinstance(raised.error, TypeError) and asked_s is None and "NoneType" in str(raised.error):
        return FlawError("`retry_after_s` es `None` si el servidor no pide nada.", raised)
    return raised


def _pause_in(answer: object, told: str) -> float | None:
    """Return the student's pause; refuse what is none."""
    if answer is None:
        return None
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise FlawError(
            f"Devolviste `{answer!r:.60}`: se esperan segundos, o `None` para no seguir.", told
        )
    if not math.isfinite(answer) or answer < 0:
        raise FlawError(f"Devolviste `{answer!r:.60}`, y nadie puede esperar eso.", told)
    return float(answer)


def _told(attempt: int, left_s: float, asked_s: float | None) -> str:
    return f"`espera({attempt}, {_shown(left_s)}, {_shown(asked_s)}, azar)`"


def _shown(seconds: float | None) -> str:
    return "None" if seconds is None else f"{seconds:.4g}"
