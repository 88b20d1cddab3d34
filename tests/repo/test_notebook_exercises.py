"""Behind every exercise of a notebook: a stub that is pending and a solution that passes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from labkit.lab.servers import Stack
from tests.repo.notebook_exercises import (
    exercises_of,
    function_of,
    too_few_wrong_answers,
    wrong_answers,
)
from tests.repo.notebooks import ROOT, Notebook, stored
from tests.repo.sample_notebook import sample

EXERCISES = [
    pytest.param(notebook, name, id=name)
    for notebook in stored()
    for name in exercises_of(notebook)
]
PROVEN = """
@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [("02-E1", one, "uno"), ("02-E1", two, "dos"), ("02-E1", three, "tres"), ("02-E2", one, "x")],
)
def test_a_wrong_answer_fails_for_its_own_reason(exercise, answer, sentence):
    ...
"""


@pytest.fixture
def exercises() -> Any:
    """The door through which a student's function is attacked."""
    return importlib.import_module("labkit.lab.exercises")


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_a_stub_is_pending_and_a_solution_passes(
    servers: Stack, exercises: Any, notebook: Notebook, name: str
) -> None:
    for tag, state in (("exercise", "pending"), ("solution", "passed")):
        result = exercises.examine(name, function_of(notebook, name, tag), servers=servers)

        assert result.state == state, notebook.says(f"{name}, {tag}: {result.text}")


@pytest.mark.parametrize("notebook", stored(), ids=lambda notebook: notebook.name)
def test_each_exercise_has_wrong_answers_that_are_tested(notebook: Notebook) -> None:
    module = ROOT / f"tests/lab/test_exercises_{notebook.name[:2]}.py"

    faults = too_few_wrong_answers(notebook, module.read_text() if module.exists() else "")

    assert not faults, "\n".join(faults)


def test_the_functions_are_those_of_the_cells() -> None:
    stub, solution = (function_of(sample(), "02-E1", tag) for tag in ("exercise", "solution"))

    assert (stub.__name__, solution.__name__) == ("colocar", "solucion_colocar")


def test_wrong_answers_are_counted_by_their_sentences() -> None:
    twice = PROVEN.replace('"dos"', '"uno"')

    assert len(wrong_answers(PROVEN)) == 4
    assert too_few_wrong_answers(sample(), PROVEN) == []
    assert "02-E1: 2 rows of its own" in too_few_wrong_answers(sample(), twice)[0]
    assert "02-E1: 0 rows of its own" in too_few_wrong_answers(sample(), "")[0]


def test_a_row_outside_the_proof_does_not_count() -> None:
    assert wrong_answers(PROVEN.replace("test_a_wrong_answer", "test_another")) == set()
