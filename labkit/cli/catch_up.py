"""`labkit catch-up 03`: put a late student's databases in the state that a notebook begins with.

Guarantee: it is `story.open` of that notebook, run again or not: the same books each time, reached
by the real services. Other notebooks' databases are left alone.
Not guaranteed: a notebook that is open keeps what its variables hold; its first cell does the
same as this command.
"""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console

from labkit.errors import ConfigurationError

Number = Annotated[str, typer.Argument(help="The notebook that you are about to begin.")]


def catch_up(number: Number) -> None:
    """Build what notebook NUMBER finds when it begins, whatever you did or missed before it."""
    # Why not at the top: the story's workers import labkit.cli.
    from labkit.lab import story  # noqa: PLC0415
    from labkit.lab.story_cast import LEDGER  # noqa: PLC0415

    notebook = number.zfill(2)
    if notebook not in LEDGER or notebook == "00":
        raise ConfigurationError(
            f"no hay estado que preparar para {number!r}: escribe 01, 02, 03, 04 o 05. "
            "El cuaderno 06 no continúa la historia: ábrelo sin más"
        )
    with closing(story.open(notebook)) as opened:
        ficha = repr(opened.ficha())
    console = Console()
    console.print(_done(notebook), highlight=False)
    console.print(f"\n{ficha}\n", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Abre el cuaderno {notebook} y ejecuta su primera celda: es la única que hace falta.",
        highlight=False,
    )


def _done(notebook: str) -> str:
    return (
        f"El cuaderno {notebook} está preparado: sus bases de datos y sus streams se han creado "
        "de nuevo, y los servicios han repetido lo que pasó hasta aquí. Lo que hubieras escrito "
        "en otros cuadernos, tus predicciones y tus respuestas siguen como estaban."
    )
