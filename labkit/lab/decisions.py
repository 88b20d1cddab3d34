"""The decision table: eight faults, six answers, and what labkit does about each when it happens.

Every row is run (`labkit.lab.decision_cases`). What happened is noted as `Facts`, and `answer_of`
reads the answer from them; no row is written down.

Guarantee: a fault whose case no longer behaves as the table says makes the notebook differ.
Not guaranteed: that these answers are right for every service. What labkit cannot know is whether
repeating does harm: that is declared by whoever calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from labkit.lab.bench import Bench
from labkit.lab.charts_matrix import Cell, good, plain
from labkit.lab.decision_cases import CASES, Facts
from labkit.lab.promises import PENDING
from labkit.lab.spanish import number

RETRY, NO, ASIDE, REFUSE, WAIT, INSTEAD = ANSWERS = (
    "reintentar",
    "responder que no",
    "apartar",
    "rechazar ya",
    "parar y esperar",
    "alternativa",
)


def answer_of(facts: Facts) -> str:
    """Return which of the answers was given, as the facts show it.

    Raises:
        ValueError: they show none.
    """
    shown = {
        INSTEAD: facts.instead,
        NO: facts.said_no,
        ASIDE: facts.aside > 0,
        REFUSE: facts.refused and facts.attempts == 0,
        WAIT: facts.stopped and facts.ended,
        RETRY: facts.attempts > 1 and facts.ended,
    }
    for answer, is_shown in shown.items():
        if is_shown:
            return answer
    raise ValueError(f"these facts show no answer: {facts}")


def blank() -> dict[str, str | None]:
    """Return the table to be filled in: a fault, and nothing beside it."""
    return dict.fromkeys(CASES)


def run(bench: Bench) -> dict[str, Facts]:
    """Let every fault happen; return what labkit did.

    Args:
        bench: one that is thrown away.
    """
    return {fault: case(bench) for fault, case in CASES.items()}


def answers(happened: Mapping[str, Facts]) -> dict[str, str]:
    """Return the answer to each fault, as the facts show it."""
    return {fault: answer_of(facts) for fault, facts in happened.items()}


def _evidence(facts: Facts) -> str:
    shown = {
        RETRY: f"{number(facts.attempts)} intentos",
        NO: "un no",
        ASIDE: f"{number(facts.aside)} aparte",
        REFUSE: f"{number(facts.attempts)} intentos",
        WAIT: "intacto",
        INSTEAD: PENDING,
    }
    return shown[answer_of(facts)]


def table(mine: Mapping[str, str | None]) -> pd.DataFrame:
    """Return the table as it is filled in: rows are faults, columns the answers.

    Raises:
        ValueError: a fault or an answer that the table does not have.
    """
    _check(mine)
    rows = [
        {"fallo": fault} | {answer: "×" if mine.get(fault) == answer else "" for answer in ANSWERS}
        for fault in CASES
    ]
    return pd.DataFrame(rows)


def cells(
    happened: Mapping[str, Facts], mine: Mapping[str, str | None]
) -> dict[str, dict[str, Cell]]:
    """Return what was measured as a matrix, with one's own answers where they differ."""
    _check(mine)
    return {
        fault: {each: _cell(each, facts, mine.get(fault)) for each in ANSWERS}
        for fault, facts in happened.items()
    }


def _cell(answer: str, facts: Facts, mine: str | None) -> Cell:
    if answer == answer_of(facts):
        return good(_evidence(facts))
    return plain("tu respuesta" if answer == mine else "")


def reading(happened: Mapping[str, Facts], mine: Mapping[str, str | None]) -> str:
    """Read how often each answer was given, and how many of one's own were the same."""
    measured = answers(happened)
    given = list(measured.values())
    said = ", ".join(f"{answer} {number(given.count(answer))}" for answer in ANSWERS)
    filled = [fault for fault in measured if mine.get(fault)]
    same = sum(mine[fault] == measured[fault] for fault in filled)
    own = (
        f"Coinciden {number(same)} de tus {number(len(filled))}." if filled else "Tabla en blanco."
    )
    return f"Filas por respuesta: {said}. {own}"


def _check(mine: Mapping[str, str | None]) -> None:
    for fault, answer in mine.items():
        if fault not in CASES or answer not in {None, *ANSWERS}:
            raise ValueError(
                f"{fault!r}: {answer!r} no está en la tabla; respuestas: {', '.join(ANSWERS)}"
            )
