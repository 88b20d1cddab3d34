"""El taller: what notebook 05 calls; the names are Spanish because students type them.

    obra = taller.abrir()            two databases, and nobody who works in them
    taller.probar(1, colocar)        attacks a function and shows what came of it
    taller.usar_solucion(1)          fills a gap, so that nobody is stopped
    taller.tablero()                 how far each gap is
    obra = taller.montar()           both services, on what there is; the rest is the solution
    informe = taller.caos(obra)      200 orders, and processes that die
    taller.entregar(obra, informe)   writes what session 8 begins with

Guarantee: what is displayed follows from this process' cells alone; a gap that was never filled is
filled with the solution by `montar`, and the board says so.
Not guaranteed: memory; a new kernel begins with six gaps. The cells are still there: run them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from labkit.lab import exercises, page, tables
from labkit.lab.pr_de_ayer.comments import Comments, comments
from labkit.lab.servers import Stack, stack
from labkit.lab.workshop import chaos, falling, faults, gaps, handing, picture, solutions
from labkit.lab.workshop.chaos import Report
from labkit.lab.workshop.goals import goals, persisted
from labkit.lab.workshop.shop import Workshop

__all__ = [
    "abrir",
    "caida",
    "caos",
    "entregar",
    "faltas",
    "mapa",
    "metas",
    "montar",
    "persistidos",
    "probar",
    "tablero",
    "usar_solucion",
]

metas, persistidos = goals, persisted
# The gaps that are filled with the solution.
_helped: set[int] = set()


def abrir(*, servers: Stack | None = None) -> Workshop:
    """Open the half-built service: databases, tables, stock, and nobody at work."""
    return Workshop({}, servers=servers)


def probar(hueco: int, *funciones: Callable[..., Any]) -> None:
    """Attack the functions of a gap, each as an exercise, and show what came of it.

    Args:
        hueco: 1 to 6.
        funciones: yours, in the order of the board.

    Raises:
        ValueError: there is no such gap, or it takes more or fewer functions.
    """
    gap = gaps.find(hueco)
    if len(funciones) != len(gap.functions):
        raise ValueError(f"el hueco {hueco} lleva {', '.join(gap.functions)}, en este orden")
    _helped.difference_update(_same(gap))
    for name, function in zip(gap.functions, funciones, strict=True):
        exercises.check(gaps.EXERCISES[name], function)


def usar_solucion(hueco: int) -> None:
    """Fill a gap with the solution and show it.

    Args:
        hueco: 1 to 6; 3 and 4 are one function.
    """
    gap = gaps.find(hueco)
    _helped.update(_same(gap))
    texts = [inspect.getsource(getattr(solutions, name)) for name in gap.functions]
    code = "\n\n".join(texts)
    page.say(f"**Hueco {hueco} · {gaps.HELPED}.** {gap.title}:\n\n```python\n{code}```")


def tablero() -> None:
    """Show how far each gap is."""
    tables.show_table(gaps.board(_helped), caption="Tablero")


def mapa(obra: Workshop) -> tuple[Figure, str]:
    """Return the journey to be built, drawn as far as messages are on record, and its reading."""
    done = picture.done(obra)
    return picture.draw(done), picture.reading(done)


def caida(*, servers: Stack | None = None) -> Any:
    """Drop the connection in the second line, for yesterday's pull request and for gap 4."""
    mine = gaps.own(_helped)
    name = "tu función" if "al_pedir_reserva" in mine else "la solución"
    return falling.answers(gaps.whole(mine)["al_pedir_reserva"], name, servers or stack())


def montar(*, servers: Stack | None = None) -> Workshop:
    """Build both services of the functions that survived; the solution fills the rest.

    Writes `entrega/mi_checkout.py` too: other processes run it.
    """
    mine = gaps.own(_helped)
    for gap in gaps.GAPS:
        if not set(gap.functions) <= mine.keys():
            _helped.add(gap.number)
    mine = gaps.own(_helped)
    handing.write_functions(gaps.whole(mine), mine)
    told = ", ".join(f"`{name}`" for name in gaps.EXERCISES if name in mine) or "ninguna"
    rest = ", ".join(f"`{name}`" for name in gaps.EXERCISES if name not in mine) or "ninguna"
    page.say(f"- **Funciones tuyas:** {told}\n- **De la solución:** {rest}")
    return Workshop(gaps.whole(mine), servers=servers)


def caos(obra: Workshop) -> Report:
    """Let 200 orders through the assembled services while their processes die."""
    report = chaos.run(obra.functions, handing.folder().parent, servers=obra.servers)
    lines = [
        f"{name} · muerto {times} {'vez' if times == 1 else 'veces'}"
        for name, times in report.killed.items()
    ]
    tables.show_processes(lines)
    return report


def faltas(obra: Workshop) -> Comments:
    """Return the three faults of yesterday's pull request; what your books do not show is closed.

    Args:
        obra: the assembled workshop, after the story's orders.
    """
    return comments(closed=faults.closed(obra))


def entregar(obra: Workshop, informe: Report) -> None:
    """Write file, evidence and messages, and say where.

    Args:
        obra: the assembled workshop, after the story's orders.
        informe: from `caos`.
    """
    mine = gaps.own(_helped)
    handing.write_functions(gaps.whole(mine), mine)
    handing.write_evidence(obra, informe.frame(), gaps.board(_helped))
    names = handing.write_messages(obra)
    rows = "\n".join(f"- `entrega/mensajes/{name}`" for name in names)
    page.say(
        "**Entregado** en la carpeta `entrega` (la del repositorio, o la de `LABKIT_HOME`):\n\n"
        f"- `entrega/mi_checkout.py`\n- `entrega/evidencia.json`\n{rows}"
    )


def _same(gap: gaps.Gap) -> set[int]:
    """Return the gaps that the same functions fill."""
    return {each.number for each in gaps.GAPS if each.functions == gap.functions}
