"""The rules that hold for the repository as a whole."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
MAKEFILE = (ROOT / "Makefile").read_text()
MODULES = sorted((ROOT / "labkit").rglob("*.py"))
TESTS = "\n".join(
    path.read_text()
    for path in (ROOT / "tests").rglob("*.py")
    if path.resolve() != Path(__file__).resolve()
)
VAGUE = {"util", "utils", "helper", "helpers", "common", "base", "manager"}


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def crash_windows(module: Path) -> list[int]:
    """Return the line of each comment that names a moment at which dying matters."""
    tokens = tokenize.generate_tokens(io.StringIO(module.read_text()).readline)
    return [token.start[0] for token in tokens if token.string.startswith("# Crash window:")]


def crash_points(module: Path) -> dict[int, str]:
    """Return line and name of each call of `crash.point`."""
    calls = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.point"
    ]
    return {call.lineno: ast.literal_eval(call.args[0]) for call in calls}


def test_the_devcontainer_installs_with_make_setup() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())

    assert container["postCreateCommand"] == "make setup"
    assert container["customizations"]["codespaces"]["openFiles"] == ["README.es.md"]


def test_the_integration_run_is_make_test() -> None:
    script = (ROOT / ".ci/run").read_text().splitlines()

    assert "set -euo pipefail" in script
    assert script[-1] == "make test"


def test_the_lock_pins_every_line_and_names_no_index() -> None:
    pins = [line for line in LOCK if line and not line.startswith("#")]

    assert all(re.match(r"[A-Za-z0-9._-]+==[^\s;]+( ; .+)?$", pin) for pin in pins)


def test_the_lock_holds_every_dependency_within_its_bounds() -> None:
    pinned = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, LOCK)
    }
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = [Requirement(line) for group in groups for line in group]

    outside = [
        str(need)
        for need in wanted
        if not need.specifier.contains(pinned.get(canonicalize_name(need.name), "0"))
    ]

    assert not outside, "\n".join(outside)


@pytest.mark.parametrize("readme", ["README.md", "README.es.md", "CONTRIBUTING.md"])
def test_every_verb_that_a_document_names_exists(readme: str) -> None:
    if not (ROOT / readme).exists():
        pytest.skip(f"there is no {readme} yet")
    verbs = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    # Only code, in backticks or on a line of its own: prose may make sense of something.
    verb = r"`make ([a-z]+)|^ *(?:\$ )?make ([a-z]+)(?: [A-Z]+=\S+)*(?: *#.*)?$"
    found = re.findall(verb, (ROOT / readme).read_text(), re.MULTILINE)
    named = {quoted or alone for quoted, alone in found}

    assert named <= verbs


@pytest.mark.parametrize(("document", "limit"), [("ARCHITECTURE.md", 120), ("CONTRIBUTING.md", 60)])
def test_a_document_stays_short_enough_to_be_read(document: str, limit: int) -> None:
    if not (ROOT / document).exists():
        pytest.skip(f"there is no {document} yet")

    assert len((ROOT / document).read_text().splitlines()) <= limit


def test_a_module_is_read_in_one_sitting() -> None:
    lengths = {module: len(module.read_text().splitlines()) for module in MODULES}
    long = [place(module, length) for module, length in lengths.items() if length > 300]

    assert not long, "\n".join(long)


def test_a_module_is_named_after_what_it_does() -> None:
    vague = [
        place(module, 1)
        for module in MODULES
        if VAGUE & {*module.relative_to(ROOT).with_suffix("").parts}
    ]

    assert not vague, "\n".join(vague)


def test_a_crash_window_is_followed_by_its_crash_point() -> None:
    bare = [
        place(module, line)
        for module in MODULES
        for line in crash_windows(module)
        if not crash_points(module).keys() & {line + 1, line + 2, line + 3}
    ]

    assert not bare, "\n".join(bare)


def test_a_crash_point_stands_under_its_crash_window() -> None:
    unexplained = [
        f"{place(module, line)} {point}"
        for module in MODULES
        for line, point in crash_points(module).items()
        if not {line - 1, line - 2, line - 3} & set(crash_windows(module))
    ]

    assert not unexplained, "\n".join(unexplained)


def test_a_crash_point_is_crashed_at_by_a_test() -> None:
    untested = [
        f"{place(module, line)} {point}"
        for module in MODULES
        for line, point in crash_points(module).items()
        if point not in TESTS
    ]

    assert not untested, "\n".join(untested)
