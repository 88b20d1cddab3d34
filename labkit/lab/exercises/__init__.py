"""Exercises: the student's own function, attacked, with real failures where it meets a database.

    exercises.check("02-E1", colocar_pedido)      in a notebook: shows one result
    exercises.hint("02-E1", 1)                    shows a hint
    exercises.examine("02-E1", colocar_pedido)    for tests: returns the result

Reading order: `publishing` (01-E1), `applying` (01-E2), `placing` (02-E1), `handling` (02-E2),
`advancing` (03-E1), `classifying` (03-E2), `waiting` (04-E1), `deciding` (04-E2) and, for the
workshop's gaps, `storing`, `relaying`, `reserving` (05-E1), `answering`, `showing` and
`compensating` (05-E2) are the attacks; `leaks`, `refactoring`, `results`, `steps`, `deaths`,
`meeting`, `deliveries`, `arrivals`, `asking`, `chances` and `failing` are what they attack with;
`arena` is where, `pieces`, `saga_pieces`, `resilience_pieces` and `labkit.lab.workshop.pieces` are
what a student is handed, `student` is how a function is called and what is said when it raises,
`patience` what ends one that does not end.

Guarantee: a result is *pendiente*, *superado*, or a reason that was observed a moment ago, with the
steps or messages that show it. The story's databases are never touched; nothing is left behind.
Not guaranteed: to find every wrong answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from labkit.lab import page
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.registry import EXERCISES, find
from labkit.lab.exercises.student import FlawError, PendingError, refuse_unfit
from labkit.lab.servers import Stack, stack

__all__ = ["EXERCISES", "Checked", "Exercise", "Result", "check", "examine", "hint", "last"]


@dataclass(frozen=True)
class Result:
    """What came of an examination; `text` is Markdown, for the student."""

    state: Literal["pending", "passed", "failed"]
    text: str


def examine(exercise_id: str, function: object, *, servers: Stack | None = None) -> Result:
    """Attack a function.

    Args:
        exercise_id: such as `02-E1`.
        function: the student's.
        servers: where; `stack()` by default, and only if the exercise needs servers.

    Raises:
        LabkitError: when there is no such exercise, or something of ours failed.
    """
    exercise = find(exercise_id)
    try:
        answer = refuse_unfit(function, exercise.signature)
        survived = exercise.attack(answer, partial(_given, servers))
    except PendingError:
        return Result("pending", _pending(exercise))
    except FlawError as flaw:
        shown = f"\n\n*Lo que pasó:* {flaw.shown}" if flaw.shown else ""
        return Result("failed", f"**{exercise.id} · Todavía no.** {flaw.sentence}{shown}")
    lines = "".join(f"\n- {each}" for each in survived)
    return Result("passed", f"**{exercise.id} · Superado.** Tu función aguantó:\n{lines}")


@dataclass(frozen=True)
class Checked:
    """What was checked last: the function, and what came of it."""

    function: Any
    result: Result


_last: dict[str, Checked] = {}


def check(exercise_id: str, function: object) -> None:
    """Attack a function and show the result; the last line of a notebook's cell.

    Args:
        exercise_id: such as `02-E1`.
        function: the student's, without parentheses.
    """
    result = examine(exercise_id, function)
    _last[exercise_id] = Checked(function, result)
    page.say(result.text)


def last(exercise_id: str) -> Checked | None:
    """Return what was checked last in this process, None when nothing was.

    Args:
        exercise_id: such as `05-E1`.
    """
    return _last.get(exercise_id)


def hint(exercise_id: str, number: int) -> None:
    """Show a hint.

    Args:
        exercise_id: such as `02-E1`.
        number: from 1; each says more than the one before.
    """
    hints = find(exercise_id).hints
    if 1 <= number <= len(hints):
        page.say(f"**Pista {number} de {len(hints)}.** {hints[number - 1]}")
    else:
        page.say(f"{exercise_id} tiene {len(hints)} pistas, de la 1 a la {len(hints)}.")


def _given(servers: Stack | None) -> Stack:
    return servers or stack()


def _pending(exercise: Exercise) -> str:
    return (
        f"**{exercise.id} · Pendiente.** Escribe `{exercise.signature}` y ejecuta otra vez esta "
        f'celda. Si te atascas: `exercises.hint("{exercise.id}", 1)`.'
    )
