"""A small notebook that keeps every rule, and the means to spoil one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.repo.notebooks import Notebook, v4

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CARD = """\
# 02 · Bandeja de salida (*outbox*)

**16:40–16:50 · 10 minutos**

Al terminar sabes:

1. **Guardar** un evento en la transacción del pedido.
2. **Contar** los mensajes perdidos.
3. **Distinguir** la entrega del efecto.

Anterior: 01 · Traducción (en preparación) · Siguiente: [03 · Saga](03_saga.ipynb)
"""
DEMONSTRATION = """\
## O1 · La doble escritura *(4 min)*

**Pregunta.** «Con el broker adecuado se entrega exactamente una vez.»

El **repetidor** (*relay*) publica lo que guarda `outbox.add`.
"""
READING = "Con 200 pedidos se pierden 12."
IDS = frozenset({"02_outbox.ipynb", "03_saga.ipynb"})

Edit = Callable[[Any], object]


def markdown(name: str, source: str) -> Any:
    return v4.new_markdown_cell(source, id=name)


def code(name: str, source: str, *outputs: Any, tags: str = "core", **metadata: Any) -> Any:
    return v4.new_code_cell(
        source, id=name, outputs=list(outputs), metadata={"tags": tags.split(), **metadata}
    )


def shown(**data: str) -> Any:
    """Return an output; `text_html` stands for the media type text/html."""
    return v4.new_output(
        "display_data", {mime.replace("_", "/"): text for mime, text in data.items()}
    )


def printed(text: str, name: str = "stdout") -> Any:
    return v4.new_output("stream", name=name, text=text)


def failed(name: str, value: str) -> Any:
    return v4.new_output("error", ename=name, evalue=value, traceback=[])


def cells() -> list[Any]:
    exercise = {"labkit": {"exercise": "02-E1"}}
    return [
        markdown("card", CARD),
        code(
            "open",
            "historia = story.open('02')\n\nhistoria",
            shown(text_markdown="### Ficha de estado\n\n| pedido |\n| --- |\n| ORD-1 |"),
        ),
        markdown("o1", DEMONSTRATION),
        code(
            "o1-predict",
            "prediccion = None\npredictions.record('O1', prediccion)",
            shown(text_markdown="*sin predicción*"),
        ),
        code(
            "o1-run",
            "perdidos = contar()\nassert perdidos == 12\ncharts.show(figura, lectura)",
            shown(image_png=PIXEL, text_plain=READING),
            shown(text_markdown=f"**Lectura.** {READING}"),
        ),
        code(
            "o1-compare",
            "predictions.compare('O1', 'b')",
            shown(text_markdown="**Compara.** Sin predicción."),
        ),
        markdown("e1", "## Ejercicio 1 · Colocar un pedido *(5 min)*\n\nEscribe la función."),
        code("e1-stub", "def colocar(session):\n    ...", tags="exercise", **exercise),
        code(
            "e1-solution",
            "# Solución (pulsa ••• para verla)\ndef solucion_colocar(session):\n    session.add(1)",
            tags="solution",
            jupyter={"source_hidden": True},
            **exercise,
        ),
        code(
            "e1-check",
            "exercises.check('02-E1', colocar)",
            shown(text_markdown="**Pendiente.** Escribe la función y ejecuta otra vez."),
            tags="check",
            **exercise,
        ),
        markdown("close", "## Cierre *(1 min)*\n\n**En tu servicio.** ¿Qué pasa entre los dos?"),
        markdown("deeper", "# Para profundizar"),
        code(
            "deeper-source",
            "import inspect\n\nprint(inspect.getsource(outbox.add))",
            printed("def add(session):\n    ...\n"),
            tags="",
        ),
    ]


def sample(*edits: Edit) -> Notebook:
    """Return the good notebook, after these edits of its stored form."""
    node = v4.new_notebook(cells=cells())
    node.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    node.metadata.language_info = {"name": "python"}
    for count, cell in enumerate((cell for cell in node.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    for edit in edits:
        edit(node)
    return Notebook("02_outbox.ipynb", node, IDS)


def cell(node: Any, name: str) -> Any:
    return next(cell for cell in node.cells if cell.id == name)


def says(name: str, old: str, new: str) -> Edit:
    """Replace a part of a cell's source, which must be there."""

    def edit(node: Any) -> None:
        found = cell(node, name)
        assert old in found.source, f"{name} does not say {old!r}"
        found.source = found.source.replace(old, new)

    return edit


def shows(name: str, *outputs: Any) -> Edit:
    """Replace the outputs of a cell."""
    return lambda node: cell(node, name).__setitem__("outputs", list(outputs))


def tagged(name: str, tags: str) -> Edit:
    """Replace the tags of a cell."""
    return lambda node: cell(node, name).metadata.__setitem__("tags", tags.split())


def marked(name: str, **metadata: Any) -> Edit:
    """Set metadata of a cell."""
    return lambda node: cell(node, name).metadata.update(metadata)


def without(name: str) -> Edit:
    """Take a cell away."""
    return lambda node: node.cells.remove(cell(node, name))


def after(name: str, *new: Any) -> Edit:
    """Put cells behind another."""

    def edit(node: Any) -> None:
        at = node.cells.index(cell(node, name)) + 1
        node.cells[at:at] = new

    return edit


def counted(name: str, count: int | None) -> Edit:
    """Set a cell's execution count."""
    return lambda node: cell(node, name).__setitem__("execution_count", count)
