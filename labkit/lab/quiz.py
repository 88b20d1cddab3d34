"""Concept Quiz 07: twelve situations, each answered in its cell and explained at once.

Guarantee: what is displayed follows from the cell's own answer alone, so that a notebook run with
`None` shows the same whatever anybody answered before; a wrong answer is met with what it
overlooks, and the right one is not given away by it. Nothing needs a network or a trusted page.
Not guaranteed: secrecy; who reads this package finds the key. The notebook does not hold it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from labkit.lab import page, tables
from labkit.lab.home import find_home, read_json, write_private

READY = 10
NEARLY = 7


class Choice(NamedTuple):
    """One option; `overlooks` says why it is wrong, and is empty for the right one."""

    text: str
    overlooks: str = ""


class Situation(NamedTuple):
    """One question; `seen` is the notebook and the demonstration that settle it."""

    id: str
    topic: str
    text: str
    choices: Mapping[str, Choice]
    because: str
    seen: tuple[str, str]

    @property
    def right(self) -> str:
        """Return the letter of the right option."""
        return next(letter for letter, choice in self.choices.items() if not choice.overlooks)


def _read() -> tuple[Situation, ...]:
    written = resources.files("labkit.lab").joinpath("concept_quiz.toml").read_text("utf-8")
    return tuple(
        Situation(
            name,
            entry["topic"],
            entry["text"],
            {letter: Choice(*texts) for letter, texts in entry["choices"].items()},
            entry["because"],
            tuple(entry["seen"]),
        )
        for name, entry in tomllib.loads(written).items()
    )


SITUATIONS = _read()
_BY_ID = {situation.id: situation for situation in SITUATIONS}
# The answers of this notebook's own cells. Why not the file: it outlives them.
_given: dict[str, str] = {}


def answer(name: str, letter: str | None) -> None:
    """Show a situation, take down your answer and say what it overlooks, or why it is right.

    Args:
        name: `q1` to `q12`.
        letter: of an option; None while you think.

    Raises:
        ValueError: there is no such situation or option.
    """
    situation = _situation(name)
    chosen = None if letter is None else _letter(situation, letter)
    page.say(f"{_question(situation)}\n\n{_feedback(situation, chosen)}")
    if chosen is None:
        _given.pop(name, None)
        return
    _given[name] = chosen
    _keep(name, chosen)


def score() -> int:
    """Show how many of your answers are right and what to see again; return the number."""
    wrong = [each for each in SITUATIONS if _given.get(each.id) not in {None, each.right}]
    right = sum(_given.get(each.id) == each.right for each in SITUATIONS)
    page.say(f"**{right} de {len(SITUATIONS)}.** {_advice(right)}")
    if wrong:
        rows = [(each.id, each.topic, _given[each.id], _where(each)) for each in wrong]
        tables.show_table(
            pd.DataFrame(rows, columns=["situación", "tema", "tu respuesta", "vuelve a"])
        )
    return right


def answers() -> dict[str, str]:
    """Return the answers that this home has on file, by situation."""
    return {name: str(entry["answer"]) for name, entry in read_json(_file()).items()}


def export(path: str | Path) -> None:
    """Write all answers of this home to a file, to hand them over; an older file is replaced."""
    text = json.dumps(read_json(_file()), indent=2, sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _question(situation: Situation) -> str:
    options = "\n".join(f"- **{at})** {each.text}" for at, each in situation.choices.items())
    return f"**{situation.id} · {situation.topic}.** {situation.text}\n\n{options}"


def _feedback(situation: Situation, chosen: str | None) -> str:
    if chosen is None:
        return "*Sin respuesta todavía.*"
    choice = situation.choices[chosen]
    if choice.overlooks:
        said = f"**{chosen}) No alcanza.** {choice.overlooks}"
    else:
        said = f"**{chosen}) Eso es.** {situation.because}"
    return f"{said} Se ve en {_where(situation)}."


def _where(situation: Situation) -> str:
    return " · ".join(situation.seen)


def _advice(right: int) -> str:
    if right >= READY:
        return "Listo para la sesión 8."
    if right >= NEARLY:
        return "Repasa las demostraciones señaladas."
    if not _given:
        return "Todavía no has respondido ninguna."
    return "Vuelve al cuaderno 02 y recorre de nuevo sus demostraciones."


def _situation(name: str) -> Situation:
    if name not in _BY_ID:
        raise ValueError(f"no hay situación {name!r}; hay {', '.join(_BY_ID)}")
    return _BY_ID[name]


def _letter(situation: Situation, given: object) -> str:
    letter = given.strip().lower() if isinstance(given, str) else ""
    if letter not in situation.choices:
        letters = ", ".join(f'"{each}"' for each in situation.choices)
        raise ValueError(f"{situation.id}: escribe {letters} o None, no {given!r}")
    return letter


def _file() -> Path:
    return find_home().state / "quiz.json"


def _keep(name: str, letter: str) -> None:
    home = find_home()
    home.create()
    entry = {"answer": letter, "right": _BY_ID[name].right}
    write_private(
        _file(), json.dumps(read_json(_file()) | {name: entry}, indent=2, sort_keys=True) + "\n"
    )
