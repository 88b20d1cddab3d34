"""docs/pitfalls.md promises a proof for each known pitfall: all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN_TO_BREAK = {"P": 24, "R": 16, "M": 16, "C": 24}
TEXT = (ROOT / "docs/pitfalls.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| [A-Z]\d+ \|", line)
]
TESTS = {
    f"{path.name}::{node.name}"
    for path in (ROOT / "tests").rglob("test_*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def quoted(proof: str) -> list[tuple[str, str]]:
    """Return the modules that a proof quotes, and their words."""
    return re.findall(r'`(labkit/\S+\.py)` "([^"]+)"', proof)


def says(module: str, words: str) -> bool:
    path = ROOT / module
    return path.is_file() and words in " ".join(path.read_text().split())


def test_every_pitfall_has_its_row() -> None:
    wanted = [f"{kind}{n}" for kind, last in KNOWN_TO_BREAK.items() for n in range(1, last + 1)]

    assert [row[0] for row in ROWS] == wanted


def test_the_title_counts_them() -> None:
    assert (len(ROWS), TEXT.splitlines()[0].split()[1]) == (80, "Eighty")


def test_every_row_says_what_labkit_does_and_names_its_proof() -> None:
    silent = [row[0] for row in ROWS if len(row) != 4 or not all(row) or "::test_" not in row[3]]

    assert silent == []


def test_every_proof_is_a_test_that_exists() -> None:
    named = {(row[0], test) for row in ROWS for test in re.findall(r"`(\S+::\S+)`", row[3])}

    assert {(pitfall, test) for pitfall, test in named if test not in TESTS} == set()


def test_every_decision_that_is_named_can_be_read() -> None:
    links = re.findall(r"\]\((\S+?)\)", TEXT)

    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []


def test_every_module_that_is_quoted_says_so() -> None:
    found = [(row[0], *each) for row in ROWS for each in quoted(row[3])]

    assert found
    assert [each for each in found if not says(*each[1:])] == []
