"""What a class missed most, from the files that students export and hand over.

    found = classroom.read(Path("entregas"))
    classroom.most_missed(found.answers)

A file is what `predictions.export` or `quiz.export` wrote, or the `evidencia.json` of the
workshop. A folder inside the folder is one student; so is a file that lies beside them.

Guarantee: a student counts once per question; a file that is none of these is named and left out;
nobody's name comes out, because only sums do. No network.
Not guaranteed: that a file was not edited by hand.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import ConfigurationError
from labkit.lab import predictions, quiz

_PARTS = ("predicciones", "quiz")


class Answer(NamedTuple):
    """One student's answer to one question."""

    student: str
    question: str
    letter: str


@dataclass(frozen=True)
class Found:
    """What the files of a class hold.

    Args:
        answers: one per student and question.
        students: how many handed something in.
        refused: files that could not be understood.
    """

    answers: tuple[Answer, ...]
    students: int
    refused: tuple[str, ...]


class Missed(NamedTuple):
    """One line of the table; `wrong` is the wrong option that most took, `takers` how many."""

    question: str
    answered: int
    missed: int
    right: str
    wrong: str
    takers: int


def read(folder: Path) -> Found:
    """Read all files of a class.

    Args:
        folder: where they were collected.

    Raises:
        ConfigurationError: there is no such folder, or no answer in it.
    """
    kept: dict[tuple[str, str], Answer] = {}
    refused = []
    for path in sorted(folder.rglob("*.json")):
        student = path.relative_to(folder).parts[0]
        try:
            given = list(_answers(student, json.loads(path.read_text("utf-8"))))
        except (ValueError, TypeError, KeyError, AttributeError):
            refused.append(str(path.relative_to(folder)))
        else:
            kept |= {(each.student, each.question): each for each in given}
    if not kept:
        raise ConfigurationError(
            f"en {folder} no hay respuestas: pon ahí los ficheros que escriben "
            '`predictions.export("…")` y `quiz.export("…")`, o la carpeta `entrega` de cada persona'
        )
    students = len({student for student, _ in kept})
    return Found(tuple(kept.values()), students, tuple(refused))


def most_missed(answers: Iterable[Answer]) -> list[Missed]:
    """Sum the answers up, the question that most missed first.

    Args:
        answers: of the whole class. A question that the workbook does not ask is left out.
    """
    by_question: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_question[answer.question].append(answer)
    right = _right_options()
    rows = [_missed(name, right[name], by_question[name]) for name in by_question if name in right]
    return sorted(rows, key=lambda row: (-row.missed / row.answered, -row.answered, row.question))


def _answers(student: str, content: Any) -> Iterator[Answer]:
    """Yield the answers of one file.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such file.
    """
    parts = [content[part] for part in _PARTS if part in content] or [content]
    for part in parts:
        for question, entry in part.items():
            # The workshop's file has the quiz' letters alone.
            told = {"answer": entry} if isinstance(entry, str) else entry
            yield Answer(student, question, _letter(told["answer"]))


def _letter(given: object) -> str:
    if not isinstance(given, str) or len(given) != 1:
        raise ValueError(f"no option: {given!r}")
    return given


def _right_options() -> dict[str, str]:
    """Return what is right, by question: what the notebooks measure, and the quiz' key."""
    measured = {each.id: each.measured for each in predictions.questions()}
    return measured | {each.id: each.right for each in quiz.SITUATIONS}


def _missed(question: str, right: str, answers: list[Answer]) -> Missed:
    wrong = Counter(each.letter for each in answers if each.letter != right)
    # Of two that as many took, the first in the alphabet: the same files, the same table.
    letter, takers = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
    return Missed(question, len(answers), wrong.total(), right, letter, takers)


def text_of(question: str, letter: str) -> str:
    """Return what an option says; empty for none."""
    options = {each.id: each.options for each in predictions.questions()}
    choices = {each.id: each.choices for each in quiz.SITUATIONS}
    found = (options.get(question) or choices.get(question) or {}).get(letter)
    return found.text if found else ""
