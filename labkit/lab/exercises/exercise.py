"""What an exercise is. A new one is an `Exercise` of its own module, listed in `registry`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.lab.exercises.student import StudentFunction
from labkit.lab.servers import Stack

Attack = Callable[[StudentFunction, Callable[[], Stack]], list[str]]


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        id: notebook and number, such as `02-E1`.
        signature: how the student's function is called, such as `atender(session, mensaje)`.
        hints: from a nudge to nearly the solution.
        attack: gets the function, and the servers if it asks for them; returns what the function
            survived, or raises `FlawError`.
    """

    id: str
    signature: str
    hints: tuple[str, ...]
    attack: Attack
