"""A notebook as its rules see it: cells, sections of the core, shown text, prose.

Guarantees nothing by itself: the rules beside this module judge. Reads the stored file only; no
kernel is started.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat.v4

# nbformat says that it is typed, and its functions are not.
v4: Any = nbformat.v4

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
DEEPER = "# Para profundizar"
AFTER_CLASS = r"^\*\*Sección \d del temario · para después de clase\*\*$"
EXERCISE_TAGS = {"exercise", "solution", "check"}


def dotted(node: ast.expr) -> str:
    """Return `charts.show` for the expression that is called, or an empty string."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


@dataclass(frozen=True)
class Output:
    """One stored output of a code cell."""

    node: Any

    @property
    def kind(self) -> str:
        """Return `stream`, `error`, `display_data` or `execute_result`."""
        return str(self.node.output_type)

    @property
    def data(self) -> dict[str, str]:
        """Return what it shows, by media type; a stream counts as plain text."""
        if self.kind == "stream":
            return {"text/plain": str(self.node.text)}
        if self.kind == "error":
            lines = [self.node.ename, self.node.evalue, *self.node.traceback]
            return {"text/plain": "\n".join(lines)}
        return dict(self.node.data)

    @property
    def is_stderr(self) -> bool:
        """Tell a warning from what a cell prints."""
        return bool(self.kind == "stream" and self.node.name == "stderr")

    @property
    def words(self) -> str:
        """Return its prose: Markdown, printed text, the reading of a chart; no repr, no table."""
        if "text/markdown" in self.data:
            return self.data["text/markdown"]
        if "text/html" in self.data or self.kind == "error" or self.is_stderr:
            return ""
        plain = self.data.get("text/plain", "")
        return "" if plain.startswith("<") else plain


@dataclass(frozen=True)
class Cell:
    """One cell, with its place, so that a message can name it."""

    notebook: str
    number: int
    node: Any

    def says(self, remedy: str) -> str:
        """Return a message that names notebook and cell."""
        return f"{self.notebook}, cell {self.number} ({self.id}): {remedy}"

    @property
    def id(self) -> str:
        """Return the id that the file gives it."""
        return str(self.node.get("id", "without id"))

    @property
    def source(self) -> str:
        """Return what its author wrote."""
        return str(self.node.source)

    @property
    def is_code(self) -> bool:
        """Tell code from Markdown."""
        return bool(self.node.cell_type == "code")

    @property
    def tags(self) -> set[str]:
        """Return its tags."""
        return set(self.node.metadata.get("tags", []))

    @property
    def exercise(self) -> str | None:
        """Return the id of the exercise that it belongs to."""
        found = self.node.metadata.get("labkit", {}).get("exercise")
        return None if found is None else str(found)

    @property
    def outputs(self) -> list[Output]:
        """Return its stored outputs; Markdown has none."""
        return [Output(node) for node in self.node.get("outputs", [])]

    @cached_property
    def tree(self) -> ast.Module:
        """Return its code, parsed; empty for Markdown and for what is no Python."""
        try:
            return ast.parse(self.source if self.is_code else "")
        except SyntaxError:
            return ast.Module([], [])

    @property
    def lines(self) -> list[str]:
        """Return its lines that are not blank."""
        return [line for line in self.source.splitlines() if line.strip()]

    def calls(self, *names: str) -> list[ast.Call]:
        """Return its calls of these functions, written as in `charts.show`."""
        nodes = ast.walk(self.tree)
        return [node for node in nodes if isinstance(node, ast.Call) and dotted(node.func) in names]

    @property
    def called(self) -> set[str]:
        """Return the names it calls when it runs; what a function's body would call is left out."""
        defined = ast.FunctionDef | ast.ClassDef
        running = [node for node in self.tree.body if not isinstance(node, defined)]
        nodes = [node for statement in running for node in ast.walk(statement)]
        return {dotted(node.func) for node in nodes if isinstance(node, ast.Call)}

    @property
    def asserts(self) -> bool:
        """Tell whether it can fail on data."""
        return any(isinstance(node, ast.Assert) for node in ast.walk(self.tree))

    @property
    def shows_figure_or_table(self) -> bool:
        """Tell whether it left a picture, or a table in HTML or Markdown."""
        seen = [output.data for output in self.outputs]
        return any(
            "image/png" in data
            or "<table" in data.get("text/html", "")
            or re.search(r"^\|[ :]*-{3,}", data.get("text/markdown", ""), re.MULTILINE)
            for data in seen
        )


@dataclass(frozen=True)
class Section:
    """A heading `## O1 · Título *(5 min)*` of the core and the cells under it."""

    heading: Cell
    cells: list[Cell]

    @property
    def title(self) -> str:
        """Return the heading's line."""
        return headings(self.heading.source)[0]

    @property
    def minutes(self) -> int | None:
        """Return the minutes that the heading carries."""
        found = re.search(r" \*\((\d+) min\)\*$", self.title)
        return None if found is None else int(found[1])

    @property
    def demonstration(self) -> str | None:
        """Return `O1` for a demonstration, nothing for an exercise or the closing."""
        found = re.match(r"## ([OTSDWE]\d+) · ", self.title)
        return None if found is None else found[1]

    @property
    def text(self) -> str:
        """Return its Markdown."""
        return "\n\n".join(cell.source for cell in self.cells if not cell.is_code)


def without_fences(markdown: str) -> str:
    """Return Markdown without its fenced code."""
    return re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)


def headings(markdown: str) -> list[str]:
    """Return the lines `# …` and `## …`."""
    return re.findall(r"^##? .*\S", without_fences(markdown), re.MULTILINE)


def opens_depth(markdown: str) -> bool:
    """Tell whether the core ends at this cell."""
    return any(line.endswith(DEEPER) for line in headings(markdown))


@dataclass(frozen=True)
class Notebook:
    """A notebook as it is stored, and the names of those beside it."""

    name: str
    node: Any
    siblings: frozenset[str]

    @cached_property
    def cells(self) -> list[Cell]:
        """Return all cells, numbered from 1."""
        return [Cell(self.name, number, node) for number, node in enumerate(self.node.cells, 1)]

    @property
    def code(self) -> list[Cell]:
        """Return the code cells."""
        return [cell for cell in self.cells if cell.is_code]

    @property
    def is_after_class(self) -> bool:
        """Tell whether its card places it outside of the agenda, where nothing has minutes."""
        return re.search(AFTER_CLASS, self.cells[0].source, re.MULTILINE) is not None

    @property
    def deeper(self) -> Cell | None:
        """Return the cell whose heading ends the core."""
        starts = (cell for cell in self.cells if not cell.is_code and opens_depth(cell.source))
        return next(starts, None)

    @property
    def core(self) -> list[Cell]:
        """Return the cells before the heading that ends the core; after class, all."""
        end = len(self.cells) if self.deeper is None else self.deeper.number - 1
        return self.cells[:end]

    @property
    def sections(self) -> list[Section]:
        """Return the core's sections, the card left out."""
        starts = [
            cell.number - 1 for cell in self.core[1:] if not cell.is_code and headings(cell.source)
        ]
        ends = [*starts[1:], len(self.core)]
        return [
            Section(self.cells[start], self.cells[start:end])
            for start, end in zip(starts, ends, strict=True)
        ]

    def says(self, remedy: str) -> str:
        """Return a message about the notebook as a whole."""
        return f"{self.name}: {remedy}"


def prose(notebook: Notebook) -> Iterator[tuple[Cell, str]]:
    """Yield each text that a student reads as prose, with its cell; printed source is none."""
    for cell in notebook.cells:
        if not cell.is_code:
            yield cell, cell.source
        for output in cell.outputs:
            source = "inspect.getsource" in cell.called and output.kind == "stream"
            if output.words and not source:
                yield cell, output.words


def stored() -> list[Notebook]:
    """Return every notebook of the workbook."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    names = frozenset(path.name for path in paths)
    # Why not nbformat.read: it repairs what a rule has to find.
    return [Notebook(path.name, v4.reads(path.read_text()), names) for path in paths]
