"""Rules for the core of a notebook: its card, its minutes, its demonstrations, its exercises.

The teaching plan gives each notebook a box of minutes; these rules keep the promise countable.
That the minutes are right is for readers with a watch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.repo.notebooks import DEEPER, EXERCISE_TAGS, ROOT, Cell, Notebook, Section, headings
from tests.repo.rules_of_outputs import Rule

MOST_CELLS = 22
MOST_LINES = 12
BOX = r"(\d\d):(\d\d)–(\d\d):(\d\d) · (\d+) minutos"
OBJECTIVE = r"^(\d)\. \*\*\w+[aeií]r(?:se|lo|la|los|las)?\*\*"
COPIED = 3


def the_card_tells_title_time_and_objectives(notebook: Notebook) -> list[str]:
    """The first cell says where one is, for how long and what for."""
    card = notebook.cells[0]
    faults = []
    if card.is_code or not re.match(rf"# {notebook.name[:2]} · \S", card.source):
        faults.append(card.says(f"is no card: begin with the title `# {notebook.name[:2]} · …`"))
    if not re.search(BOX, card.source) and not notebook.is_after_class:
        faults.append(card.says("has no time box: `**16:40–17:10 · 30 minutos**`"))
    if re.findall(OBJECTIVE, card.source, re.MULTILINE) != ["1", "2", "3"]:
        faults.append(card.says("names no three objectives: `1. **Guardar** un evento …`"))
    return faults


def the_card_leads_to_its_neighbours(notebook: Notebook) -> list[str]:
    """A link where the neighbour exists, `(en preparación)` where it will."""
    card, number = notebook.cells[0], int(notebook.name[:2])
    faults = []
    for label, other in (("Anterior", number - 1), ("Siguiente", number + 1)):
        names = sorted(name for name in notebook.siblings if name.startswith(f"{other:02d}_"))
        found = re.search(rf"{label}: ([^\n]+?)(?: · Siguiente:|$)", card.source, re.MULTILINE)
        told = "" if found is None else found[1]
        linked = re.search(r"\]\(([^)#]+)", told)
        if names and (linked is None or linked[1] not in names):
            faults.append(card.says(f"`{label}:` does not link to {names[0]}"))
        if not names and (linked or not re.search(r"\(en preparación\)|^–", told)):
            faults.append(card.says(f"`{label}:` needs `NN · … (en preparación)`, or – at an end"))
    return faults


def minutes_add_up_to_the_box(notebook: Notebook) -> list[str]:
    """Every section says how long it takes, and the sum is the box on the card."""
    after = notebook.is_after_class
    remedy = "has minutes outside of the agenda" if after else "has no minutes: end it with"
    faults = [
        section.heading.says(f"`{section.title}` {remedy} ` *(5 min)*`")
        for section in notebook.sections
        if (section.minutes is not None) == after
    ]
    faults += [
        cell.says("has two headings: one cell, one section")
        for cell in notebook.core
        if not cell.is_code and len(headings(cell.source)) > 1
    ]
    box = re.search(BOX, notebook.cells[0].source)
    if box is None or faults:
        return faults
    hour, minute, to_hour, to_minute, told = map(int, box.groups())
    lasts = (to_hour - hour) * 60 + to_minute - minute
    total = sum(section.minutes or 0 for section in notebook.sections)
    if not lasts == told == total:
        card = notebook.cells[0]
        faults.append(card.says(f"box {lasts} min, told {told}, sections {total}: make them equal"))
    return faults


def the_core_ends_before_what_goes_deeper(notebook: Notebook) -> list[str]:
    """What the minutes cover is tagged, and nothing else is; after class there is no core."""
    if notebook.is_after_class:
        tagged = [cell for cell in notebook.code if "core" in cell.tags]
        ends = [notebook.deeper] if notebook.deeper else []
        return [cell.says("marks a core outside of the agenda") for cell in [*tagged, *ends]]
    if notebook.deeper is None:
        return [notebook.says(f"has no heading `{DEEPER}`: it ends the core")]
    core = [cell for cell in notebook.core if cell.is_code]
    untagged = [
        cell.says("stands in the core without a tag: core, exercise, solution or check")
        for cell in core
        if not cell.tags & {"core", *EXERCISE_TAGS}
    ]
    beyond = notebook.cells[notebook.deeper.number :]
    return untagged + [
        cell.says(f"is tagged core after `{DEEPER}`") for cell in beyond if "core" in cell.tags
    ]


def core_cells_are_few_and_short(notebook: Notebook) -> list[str]:
    """At most 22, of at most 12 lines: what a class can read in its minutes."""
    after = notebook.is_after_class
    core = notebook.code if after else [cell for cell in notebook.cells if "core" in cell.tags]
    faults = [
        cell.says(f"{len(cell.lines)} lines; {MOST_LINES} at most: move work to labkit.lab")
        for cell in core
        if len(cell.lines) > MOST_LINES
    ]
    # After class nobody waits for the next cell: they may be many, and stay short.
    if not (after or 0 < len(core) <= MOST_CELLS):
        faults.append(notebook.says(f"{len(core)} core cells: 1 to {MOST_CELLS}, move some deeper"))
    return faults


def a_demonstration_asks_predicts_shows_and_compares(notebook: Notebook) -> list[str]:
    """A wrong belief, one's own guess, what happened, and an assert that refutes the belief."""
    if not any(section.demonstration for section in notebook.sections):
        return [notebook.says("has no demonstration: `## O1 · … *(5 min)*`")]
    return [
        fault
        for section in notebook.sections
        if section.demonstration
        for fault in _demonstration_faults(notebook, section, section.demonstration)
    ]


def _demonstration_faults(notebook: Notebook, section: Section, name: str) -> Iterator[str]:
    heading = section.heading
    if "**Pregunta.**" not in section.text:
        yield heading.says(f"{name} asks nothing: write `**Pregunta.** «…»`")
    recorded = [cell for cell in section.cells if _names([cell], "predictions.record", name)]
    if not any(_leaves_open(cell) for cell in recorded):
        yield heading.says(
            f"{name} has no open prediction: `prediccion = None`, then "
            f"`predictions.record({name!r}, prediccion)`"
        )
    # The comparison may come in a later section, when the answer does.
    later = [cell for cell in notebook.core if cell.number > heading.number]
    if not _names(later, "predictions.compare", name):
        yield heading.says(f"{name} is never compared: predictions.compare({name!r}, …)")
    if not any(cell.shows_figure_or_table for cell in section.cells):
        yield heading.says(f"{name} shows neither figure nor table")
    if not any(cell.asserts for cell in section.cells):
        yield heading.says(f"{name} asserts nothing: its claim could be false unnoticed")


def _leaves_open(cell: Cell) -> bool:
    """Tell whether it assigns None: nobody's answer is stored."""
    assigned = [node for node in cell.tree.body if isinstance(node, ast.Assign)]
    return any(_is(node.value, None) for node in assigned)


def _names(cells: list[Cell], function: str, first: str) -> bool:
    calls = [call for cell in cells for call in cell.calls(function)]
    return any(call.args and _is(call.args[0], first) for call in calls)


def _is(node: ast.expr, value: str | None) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def an_exercise_has_its_three_cells(notebook: Notebook) -> list[str]:
    """The student's stub, a folded solution and a check, held together by one id."""
    number = notebook.name[:2]
    faults = [
        cell.says(f'needs metadata.labkit = {{"exercise": "{number}-E1"}}')
        for cell in notebook.code
        if cell.tags & EXERCISE_TAGS and not re.fullmatch(rf"{number}-E\d", cell.exercise or "")
    ]
    exercises = {cell.exercise for cell in notebook.core}
    if f"{number}-E1" not in exercises and not notebook.is_after_class:
        faults.append(notebook.says(f"the core has no exercise {number}-E1"))
    for name in sorted({cell.exercise for cell in notebook.code if cell.exercise}):
        faults += _exercise_faults(notebook, name)
    return faults


def _exercise_faults(notebook: Notebook, name: str) -> Iterator[str]:
    parts = [cell for cell in notebook.code if cell.exercise == name]
    tags = sorted(tag for cell in parts for tag in cell.tags & EXERCISE_TAGS)
    if tags != sorted(EXERCISE_TAGS):
        yield notebook.says(f"{name} has {tags}: one exercise, one solution, one check")
    if not _names(parts, "exercises.check", name):
        yield notebook.says(f"{name} is not checked: exercises.check({name!r}, …)")


def a_solution_is_folded(notebook: Notebook) -> list[str]:
    """A folded cell shows its first line only: that line must give nothing away."""
    return [
        cell.says("fold it (metadata.jupyter.source_hidden) and begin it with `# Solución`")
        for cell in notebook.code
        if "solution" in cell.tags
        and not (
            cell.node.metadata.get("jupyter", {}).get("source_hidden") is True
            and cell.source.startswith("# Solución")
        )
    ]


def the_pattern_is_shown_from_its_source(notebook: Notebook) -> list[str]:
    """At least once, the lines that are the pattern, as they are today."""
    if any(cell.calls("inspect.getsource", "getsource") for cell in notebook.code):
        return []
    return [notebook.says("shows no pattern: print(inspect.getsource(…)) of labkit's own function")]


def no_code_of_labkit_is_copied(notebook: Notebook) -> list[str]:
    """A copy in Markdown goes stale; the source itself is shown by inspect.getsource."""
    return [
        cell.says(f"copies code of labkit ({min(copied)[:40]!r} …): show it with inspect.getsource")
        for cell in notebook.cells
        if not cell.is_code and (copied := OWN_CODE.intersection(_runs(cell.source)))
    ]


def _runs(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    runs = ["\n".join(lines[at : at + COPIED]) for at in range(len(lines) - COPIED + 1)]
    # Closing brackets look alike everywhere.
    return [run for run in runs if len(run) > 30]


def _code_of(folder: Path) -> set[str]:
    return {run for path in folder.rglob("*.py") for run in _runs(path.read_text())}


OWN_CODE = _code_of(ROOT / "labkit")

RULES: list[Rule] = [
    the_card_tells_title_time_and_objectives,
    the_card_leads_to_its_neighbours,
    minutes_add_up_to_the_box,
    the_core_ends_before_what_goes_deeper,
    core_cells_are_few_and_short,
    a_demonstration_asks_predicts_shows_and_compares,
    an_exercise_has_its_three_cells,
    a_solution_is_folded,
    the_pattern_is_shown_from_its_source,
    no_code_of_labkit_is_copied,
]
