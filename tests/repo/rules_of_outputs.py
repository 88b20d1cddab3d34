"""Rules for what a notebook stores: executed in order, renders in a fresh clone, same every time.

Each rule returns a message per fault, with the place and the remedy. They read the stored file;
that the outputs are what labkit does today is nbval's part.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import nbformat.validator

from tests.repo.notebooks import Cell, Notebook, Output, dotted

# nbformat says that it is typed, and its functions are not.
validator: Any = nbformat.validator

IGNORED = "nbval-ignore-output"
KNOWN_TAGS = {"core", "exercise", "solution", "check", IGNORED, "raises-exception"}
MEDIA = {"image/png", "text/plain", "text/html", "text/markdown"}
DISPLAYS = {"display", "print", "show", "show_table", "check", "ask", "record", "compare"}
AGAIN = "run it again by the command of docs/notebooks.md"
MEASURED = {
    "a timing": r"\d\.\d+ ?(?:s|ms|µs|us|seg)\b|\d,\d{3,} ?(?:s|ms|seg)\b|Wall time|CPU times",
}
VOLATILE = {
    "a memory address": r"\b0x[0-9a-fA-F]{6,}",
    "a UUID": r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
    "a random id of pandas.Styler": r"\bT_[0-9a-f]{5}\b",
    # The story happens in February 2026; any other date came from a real clock.
    "a date of today": r"\b(?!2026-02-17)20\d\d-[01]\d-[0-3]\d(?=\b|T)",
    "a port": r"(?:127\.0\.0\.1|localhost|\[::1\]):\d+|\b(?:port|puerto)[ =:]+\d{4,5}\b",
    "a process id": r"\bpid[ =:]+\d+",
    "a path of one machine": r"/(?:home|Users|root|tmp|var/folders|private)/|site-packages"
    r"|\.labkit/|labkit-(?:tests|notebooks)-|[A-Z]:\\\\?Users",
}

Rule = Callable[[Notebook], list[str]]


def cells_are_plain_python(notebook: Notebook) -> list[str]:
    """No magics and no shell: ruff, nbval and these rules read cells as Python."""
    return [
        cell.says("is no plain Python: write it without % and ! (magics)")
        for cell in notebook.code
        if cell.source.strip() and not cell.tree.body
    ]


def ran_once_in_order(notebook: Notebook) -> list[str]:
    """nbval does not compare a cell without a count: a stripped notebook would pass it."""
    return [
        cell.says(f"count {cell.node.execution_count} instead of {count}; {AGAIN}")
        for count, cell in enumerate(notebook.code, 1)
        if cell.node.execution_count != count
    ]


def errors_are_announced(notebook: Notebook) -> list[str]:
    """A stored error is deliberate, and a deliberate error is stored."""
    faults = []
    for cell in notebook.code:
        failed = any(output.kind == "error" for output in cell.outputs)
        announced = "raises-exception" in cell.tags
        if failed and not announced:
            faults.append(cell.says("stored an error: repair it, or tag it raises-exception"))
        if announced and not failed:
            faults.append(cell.says("tagged raises-exception, and nothing failed: drop the tag"))
    return faults


def outputs_are_the_same_every_time(notebook: Notebook) -> list[str]:
    """Nothing of one machine or one moment; timings only where the comparison is off."""
    return [
        cell.says(f"shows {what} ({found[0]!r}): show a fixed id or the fake clock instead")
        for cell in notebook.code
        for what, pattern in (VOLATILE if IGNORED in cell.tags else VOLATILE | MEASURED).items()
        for output in cell.outputs
        for mime, text in output.data.items()
        if not mime.startswith("image/") and (found := re.search(pattern, text))
    ]


def outputs_render_untrusted(notebook: Notebook) -> list[str]:
    """A fresh clone is untrusted: JupyterLab shows it pictures, tables and Markdown only."""
    return [
        cell.says(fault)
        for cell in notebook.code
        for output in cell.outputs
        for fault in _untrusted(output)
    ]


def _untrusted(output: Output) -> Iterator[str]:
    html = output.data.get("text/html", "")
    if output.is_stderr:
        yield "wrote to stderr: silence the warning at its cause"
    for mime in sorted(output.data.keys() - MEDIA):
        yield f"stores {mime}: use PNG, a table or Markdown"
    if html and "<table" not in html:
        yield "stores HTML that is no table: display Markdown"
    if re.search(r"<(?:script|svg|iframe)\b", html + output.data.get("text/markdown", "")):
        yield "stores a script or SVG: it is stripped in a fresh clone"


def figures_come_with_their_reading(notebook: Notebook) -> list[str]:
    """nbval compares no pixels: the reading, computed from the data, is what it compares."""
    return [fault for cell in notebook.code for fault in _figure_faults(cell)]


def _figure_faults(cell: Cell) -> Iterator[str]:
    for output, following in pairwise([*cell.outputs, None]):
        if output is None or "image/png" not in output.data:
            continue
        reading = output.data.get("text/plain", "").strip()
        visible = "" if following is None else following.data.get("text/markdown", "").strip()
        if not cell.calls("charts.show"):
            yield cell.says("shows a figure without charts.show(figure, lectura)")
        if not reading or reading.startswith("<"):
            yield cell.says(f"a figure's text is {reading!r}, no reading: use charts.show")
        elif visible != f"**Lectura.** {reading}":
            yield cell.says("the figure is not followed by its **Lectura.**: use charts.show")


def cells_draw_nothing_themselves(notebook: Notebook) -> list[str]:
    """One style, one size of letters, one way to read a chart aloud: labkit.lab.charts."""
    return [
        cell.says("calls matplotlib: draw in labkit.lab, show with charts.show")
        for cell in notebook.code
        if any(_draws(node) for node in ast.walk(cell.tree))
    ]


def _draws(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] in {"matplotlib", "pylab"} for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in {"matplotlib", "pylab"}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in {"plot", "savefig"} or dotted(node.func).startswith("plt.")
    return isinstance(node, ast.Name) and node.id == "plt"


def ignored_outputs_are_few_and_asserted(notebook: Notebook) -> list[str]:
    """Where outputs are not compared, an assert on bounds is what can still fail."""
    ignored = [cell for cell in notebook.code if IGNORED in cell.tags]
    faults = [
        cell.says(f"{IGNORED} without an assert: assert the bounds in the same cell")
        for cell in ignored
        if not cell.asserts
    ]
    if len(ignored) > 3:
        faults.append(notebook.says(f"{len(ignored)} cells tagged {IGNORED}: three are enough"))
    return faults


def what_is_displayed_is_stored(notebook: Notebook) -> list[str]:
    """A fresh clone shows everything without running."""
    return [
        cell.says(f"displays something, and nothing is stored: {AGAIN}")
        for cell in notebook.code
        if _displays(cell) and not cell.outputs
    ]


def _displays(cell: Cell) -> bool:
    if any(name.rpartition(".")[2] in DISPLAYS for name in cell.called):
        return True
    last = cell.tree.body[-1] if cell.tree.body else None
    # A call may return None, a name or a field is there to be seen.
    silent = ast.Call | ast.Constant
    return isinstance(last, ast.Expr) and not isinstance(last.value, silent)


def the_file_is_valid_and_its_ids_unique(notebook: Notebook) -> list[str]:
    """Ids name a cell in messages and keep differences small: no two alike."""
    # Why not nbformat.validate: it gives a double id another name, and then finds nothing.
    errors = validator.iter_validate(notebook.node)
    faults = [notebook.says(f"is no valid notebook: {error.message}") for error in errors]
    ids = Counter(cell.id for cell in notebook.cells)
    faults += [
        notebook.says(f"{count} cells have the id {name}")
        for name, count in ids.items()
        if count > 1
    ]
    if notebook.node.metadata.get("kernelspec", {}).get("name") != "python3":
        faults.append(notebook.says("names no kernelspec python3: JupyterLab would ask for one"))
    return faults


def no_time_of_execution_is_stored(notebook: Notebook) -> list[str]:
    """Each run would change every cell of the file."""
    return [
        cell.says("stores when it ran (metadata.execution): execute with record_timing=False")
        for cell in notebook.code
        if "execution" in cell.node.metadata
    ]


def the_comparison_stays_strict(notebook: Notebook) -> list[str]:
    """No way around nbval, and no tag that nobody reads."""
    commented = [
        cell.says("has a comment for nbval: tags only (docs/notebooks.md)")
        for cell in notebook.cells
        if re.search(r"#\s*(?:NBVAL_|PYTEST_VALIDATE)", cell.source)
    ]
    return commented + [
        cell.says(f"has the tag {tag}: known are {', '.join(sorted(KNOWN_TAGS))}")
        for cell in notebook.cells
        for tag in sorted(cell.tags - KNOWN_TAGS)
    ]


RULES: list[Rule] = [
    cells_are_plain_python,
    ran_once_in_order,
    errors_are_announced,
    outputs_are_the_same_every_time,
    outputs_render_untrusted,
    figures_come_with_their_reading,
    cells_draw_nothing_themselves,
    ignored_outputs_are_few_and_asserted,
    what_is_displayed_is_stored,
    the_file_is_valid_and_its_ids_unique,
    no_time_of_execution_is_stored,
    the_comparison_stays_strict,
]
