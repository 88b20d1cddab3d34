"""docs/pitfalls.md promises a test for each known pitfall: all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/pitfalls.md").read_text().splitlines()
    if re.match(r"\| [PR]\d+ \|", line)
]
KNOWN = {
    f"{path.name}::{node.name}"
    for path in (ROOT / "tests").rglob("test_*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def test_every_pitfall_has_its_row() -> None:
    wanted = [f"P{n}" for n in range(1, 25)] + [f"R{n}" for n in range(1, 17)]

    assert [row[0] for row in ROWS] == wanted


def test_every_row_says_what_labkit_does_and_names_its_proof() -> None:
    silent = [row[0] for row in ROWS if len(row) != 4 or not all(row) or "::test_" not in row[3]]

    assert silent == []


def test_every_proof_is_a_test_that_exists() -> None:
    named = {(row[0], test) for row in ROWS for test in re.findall(r"`(\S+::\S+)`", row[3])}

    assert {(pitfall, test) for pitfall, test in named if test not in KNOWN} == set()
