"""What stands behind an exercise: the functions in its cells, the wrong answers in its test.

Reads and defines; attacking the functions is `labkit.lab.exercises`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.repo.notebooks import Cell, Notebook

PROOF = "test_a_wrong_answer_fails_for_its_own_reason"
FEWEST_WRONG = 3


def exercises_of(notebook: Notebook) -> list[str]:
    """Return the ids of its exercises."""
    return sorted({cell.exercise for cell in notebook.code if cell.exercise})


def function_of(notebook: Notebook, name: str, tag: str) -> Callable[..., Any]:
    """Return the function that a cell defines, with the notebook's imports at hand."""
    [cell] = [cell for cell in notebook.code if cell.exercise == name and tag in cell.tags]
    imports = [node for other in notebook.code for node in other.tree.body if _imports(node)]
    names: dict[str, Any] = {}
    for tree in (ast.Module(imports, []), cell.tree):
        exec(compile(tree, cell.id, "exec"), names)
    function: Callable[..., Any] = names[_defined(cell)[-1]]
    return function


def _imports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _defined(cell: Cell) -> list[str]:
    return [node.name for node in cell.tree.body if isinstance(node, ast.FunctionDef)]


def wrong_answers(source: str) -> set[tuple[str, str]]:
    """Return exercise and sentence of each row that the test of the wrong answers is given."""
    tests = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    proofs = [
        decorator for test in tests if test.name == PROOF for decorator in test.decorator_list
    ]
    rows = [node for proof in proofs for node in ast.walk(proof) if isinstance(node, ast.Tuple)]
    return {
        (str(exercise.value), ast.unparse(sentence))
        for row in rows
        if len(row.elts) == 3
        for exercise, _, sentence in [row.elts]
        if isinstance(exercise, ast.Constant) and "-E" in str(exercise.value)
    }


def too_few_wrong_answers(notebook: Notebook, source: str) -> list[str]:
    """Three or more for each exercise, each refused with a sentence of its own."""
    counts = Counter(exercise for exercise, _ in wrong_answers(source))
    return [
        notebook.says(f"{name}: {counts[name]} rows of its own in {PROOF}, {FEWEST_WRONG} at least")
        for name in exercises_of(notebook)
        if counts[name] < FEWEST_WRONG
    ]
