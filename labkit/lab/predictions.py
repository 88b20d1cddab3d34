"""Predictions: asked before a cell runs, kept for oneself, compared with what was measured.

Guarantee: an answer stays in this home, in a file that only its owner reads, until it is
exported; what is displayed follows from the cell's own answer alone, so that a notebook run with
`None` shows the same whatever anybody answered before; a wrong answer is met with what it takes
for granted, never with a verdict.
Not guaranteed: that the right option is right; the notebook computes it from what it measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.lab import page, tables
from labkit.lab.home import find_home, read_json, write_private
from labkit.lab.predictions_01 import QUESTIONS as QUESTIONS_01
from labkit.lab.predictions_02 import QUESTIONS as QUESTIONS_02
from labkit.lab.predictions_03 import QUESTIONS as QUESTIONS_03
from labkit.lab.predictions_04 import QUESTIONS as QUESTIONS_04
from labkit.lab.predictions_05 import QUESTIONS as QUESTIONS_05
from labkit.lab.predictions_06 import QUESTIONS as QUESTIONS_06
from labkit.lab.questions import Option, Question

_BY_NOTEBOOK = {
    "01": QUESTIONS_01,
    "02": QUESTIONS_02,
    "03": QUESTIONS_03,
    "04": QUESTIONS_04,
    "05": QUESTIONS_05,
    "06": QUESTIONS_06,
}
_QUESTIONS = {question.id: question for asked in _BY_NOTEBOOK.values() for question in asked}
# The answers of this notebook's own cells. Why not the file: it outlives them.
_given: dict[str, str | None] = {}


def ask(name: str) -> None:
    """Show a question and its options.

    Args:
        name: the question's id, such as `O1`.

    Raises:
        ValueError: there is no such question.
    """
    question = _question(name)
    options = "\n".join(f"- **{letter})** {each.text}" for letter, each in _options(question))
    page.say(f"**Predicción {name}.** {question.text}\n\n{options}")


def record(name: str, answer: str | None) -> None:
    """Take down a prediction and show it.

    Args:
        name: the question's id.
        answer: the letter of an option; None for no prediction, which leaves an earlier one of
            another run on file.

    Raises:
        ValueError: there is no such question or option.
    """
    question = _question(name)
    letter = None if answer is None else _letter(question, answer)
    _given[name] = letter
    if letter is None:
        page.say(f"**{name}:** *sin predicción*")
        return
    _keep(name, {"answer": letter})
    page.say(f"**{name}, tu predicción:** {letter}) {question.options[letter].text}")


def compare(name: str, right: str) -> None:
    """Show a prediction beside what was measured.

    Args:
        name: the question's id.
        right: the letter of the option that the measured data show.

    Raises:
        ValueError: there is no such question or option.
    """
    question = _question(name)
    measured = _letter(question, right)
    answer = _given.get(name)
    if answer is not None:
        _keep(name, {"answer": answer, "right": measured})
    page.say("\n".join(_comparison(question, answer, measured)))


def answers() -> dict[str, dict[str, str]]:
    """Return the predictions that this home has on file: the answer and, compared, the right one.

    Returns:
        Question to `answer` and, where the notebook came to compare it, `right`.
    """
    return {name: dict(entry) for name, entry in read_json(_file()).items() if name in _QUESTIONS}


def summary() -> None:
    """Show all predictions of this home, of all notebooks, beside what was measured."""
    kept = answers()
    rows = [
        (notebook, question.id, kept[question.id]["answer"], kept[question.id].get("right"))
        for notebook, asked in sorted(_BY_NOTEBOOK.items())
        for question in asked
        if question.id in kept
    ]
    if not rows:
        page.say("No hay predicciones guardadas en este equipo: nada que comparar.")
        return
    agreed = sum(answer == right for _, _, answer, right in rows)
    names = ["cuaderno", "predicción", "tu respuesta", "lo medido"]
    tables.show_table(pd.DataFrame(rows, columns=names))
    page.say(f"Coinciden {agreed} de {len(rows)}. Las otras enseñan qué dabas por hecho.")


def export(path: str | Path) -> None:
    """Write all predictions of this home to a file, to hand them over.

    Args:
        path: where; an older file is replaced.
    """
    text = json.dumps(read_json(_file()), indent=2, sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def questions() -> tuple[Question, ...]:
    """Return every question of the workbook, in its order."""
    return tuple(_QUESTIONS.values())


def _comparison(question: Question, answer: str | None, measured: str) -> list[str]:
    lines = [f"- **Lo medido:** {measured}) {question.options[measured].text}"]
    if answer is None:
        return ["- **Tu predicción:** *sin predicción*", *lines]
    given = question.options[answer]
    lines.insert(0, f"- **Tu predicción:** {answer}) {given.text}")
    if answer != measured and given.assumes:
        lines.append(f"- **Qué hay detrás de la tuya:** {given.assumes}")
    elif answer == measured:
        lines.append("- Coinciden.")
    return lines


def _options(question: Question) -> list[tuple[str, Option]]:
    return sorted(question.options.items())


def _question(name: str) -> Question:
    if name not in _QUESTIONS:
        raise ValueError(f"no hay pregunta {name!r}; hay {', '.join(_QUESTIONS)}")
    return _QUESTIONS[name]


def _letter(question: Question, answer: object) -> str:
    letter = answer.strip().lower() if isinstance(answer, str) else ""
    if letter not in question.options:
        letters = ", ".join(f'"{each}"' for each in sorted(question.options))
        raise ValueError(f"{question.id}: escribe {letters} o None, no {answer!r}")
    return letter


def _file() -> Path:
    return find_home().state / "predictions.json"


def _keep(name: str, entry: dict[str, Any]) -> None:
    home = find_home()
    home.create()
    kept = read_json(_file()) | {name: entry}
    write_private(_file(), json.dumps(kept, indent=2, sort_keys=True) + "\n")
