"""The folded answer key of docs/instructor.md, made from the notebooks and the questions.

    .venv/bin/python -m tests.repo.answer_key      writes it again

Guarantee: an option comes from the questions, a solution from the notebook's own folded cell, which
`make notebooks` runs. Not guaranteed: that the measured option is the right one; every notebook
compares it with what it measured.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from labkit.lab import predictions, quiz
from tests.repo.notebooks import ROOT, Cell, Notebook, stored

DOCUMENT = ROOT / "docs" / "instructor.md"
BEGIN, END = "<!-- clave: la escribe tests/repo/answer_key.py -->", "<!-- fin de la clave -->"
_OPTIONS = {each.id: each for each in predictions.questions()}
_SITUATIONS = {each.id: each for each in quiz.SITUATIONS}


def answer_key() -> str:
    """Return the key of all notebooks, folded, in Markdown."""
    return "\n\n".join(_folded(notebook) for notebook in stored())


def written(document: Path = DOCUMENT) -> str:
    """Return the key that the document holds."""
    found = re.search(f"{BEGIN}\n\n(.*)\n\n{END}", document.read_text("utf-8"), re.DOTALL)
    return found[1] if found else ""


def _folded(notebook: Notebook) -> str:
    title = re.sub(r"^# | \(\*.*\*\)", "", notebook.cells[0].source.splitlines()[0])
    parts = [_predictions(notebook), *_solutions(notebook), _quiz(notebook)]
    shown = "\n\n".join(part for part in parts if part)
    return f"<details>\n<summary><b>{title}</b></summary>\n\n{shown}\n\n</details>"


def _predictions(notebook: Notebook) -> str:
    asked = [_OPTIONS[name] for name in _named(notebook, "predictions.record")]
    rows = [
        f"| {each.id} | {each.measured} | {each.options[each.measured].text} |" for each in asked
    ]
    return "\n".join(["| predicción | lo medido | |", "|---|---|---|", *rows]) if rows else ""


def _solutions(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.code:
        if "solution" in cell.tags:
            _, _, code = cell.source.partition("\n")
            yield f"**{cell.exercise}**\n\n```python\n{code.strip()}\n```"


def _quiz(notebook: Notebook) -> str:
    asked = [_SITUATIONS[name] for name in _named(notebook, "quiz.answer")]
    rows = [f"| {each.id} | {each.right} | {each.choices[each.right].text} |" for each in asked]
    return "\n".join(["| situación | la buena | |", "|---|---|---|", *rows]) if rows else ""


def _named(notebook: Notebook, function: str) -> list[str]:
    """Return the first argument of every call of a function, in the notebook's order."""
    return [_first(cell, call) for cell in notebook.code for call in cell.calls(function)]


def _first(cell: Cell, call: ast.Call) -> str:
    assert isinstance(call.args[0], ast.Constant), cell.says("names no question")
    return str(call.args[0].value)


if __name__ == "__main__":
    text = DOCUMENT.read_text("utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCUMENT.write_text(f"{text[:start]}\n\n{answer_key()}\n\n{text[end:]}", encoding="utf-8")
