"""Tables: rows to read, always the same text for the same rows.

The four ids of a message stand first, in one order, each with the colour that it has in every
table. Why not pandas' Styler: it puts a random id into its HTML, and nbval would never agree.

Guarantee: no index, no row left out, a long text shortened in its middle and the same each time.
Not guaranteed: the colours on pages that strip styles (GitHub); the names in the head remain.
"""

from __future__ import annotations

import html
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd

from labkit.lab import page
from labkit.lab.charts_style import INK
from labkit.lab.spanish import counted, number

# Columns come from messages in camel case, and from the databases in snake case.
_IDS = {"messageId": "#DCEBF7", "correlationId": "#FCE5D3", "reservationId": "#DDF1E6",
        "orderId": "#EFE3F2"}  # fmt: skip
_LONGEST, _TAIL = 40, 8
_ROLES = {
    "relay": "repetidor",
    "consumer": "consumidor",
    "projection": "proyección",
    "cleaner": "limpiador",
    "all": "todos los papeles",
}


def show_table(frame: pd.DataFrame, caption: str | None = None) -> None:
    """Show a table.

    Args:
        frame: its rows; the index is left out.
        caption: what the table is, above it.
    """
    page.show(bundle(frame, caption))


def bundle(frame: pd.DataFrame, caption: str | None = None) -> dict[str, str]:
    """Return what is published of a table: HTML, and the same as plain text.

    Args:
        frame: its rows; the index is left out.
        caption: what the table is.
    """
    names = _ordered([str(name) for name in frame.columns])
    ordered = frame.set_axis([str(name) for name in frame.columns], axis="columns")[names]
    rows = [[_cell(value) for value in row] for row in ordered.itertuples(index=False)]
    sides = [_side(ordered[name].infer_objects()) for name in names]
    return {
        "text/html": _html(names, rows, sides, caption),
        "text/plain": _plain(names, rows, caption),
    }


def _side(column: pd.Series) -> str:
    types = pd.api.types
    is_number = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    return "right" if is_number else "left"


def _ordered(names: Sequence[str]) -> list[str]:
    order = list(_IDS)
    return sorted(names, key=lambda name: order.index(_id(name)) if _id(name) in _IDS else 99)


def _id(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


def _cell(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, bool):
        return "sí" if value else "no"
    if isinstance(value, datetime):
        # Without a zone it stays as it is: this machine's own would make another text elsewhere.
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, int | float | Decimal):
        return number(value if isinstance(value, int) else float(value))
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _TAIL - 1]}…{text[-_TAIL:]}"


def _html(
    names: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str], caption: str | None
) -> str:
    styles = [_style(name, side) for name, side in zip(names, sides, strict=True)]
    head = "".join(
        f'<th style="{style}">{html.escape(name)}</th>'
        for name, style in zip(names, styles, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td style="{style}">{html.escape(text)}</td>'
            for text, style in zip(row, styles, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    above = f"<p><strong>{html.escape(caption)}</strong></p>\n" if caption else ""
    return f"{above}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _style(name: str, side: str) -> str:
    style = f"text-align: {side}"
    colour = _IDS.get(_id(name))
    # Dark ink on the tint, whatever the theme of the page is.
    return f"{style}; background-color: {colour}; color: {INK}" if colour else style


def _plain(names: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None) -> str:
    widths = [max(len(row[n]) for row in [names, *rows]) for n in range(len(names))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [names, *rows]
    ]
    return "\n".join([caption, *lines] if caption else lines)


def processes_line(
    role: str, did: Mapping[str, int], exit_code: int | None, died_in: str = ""
) -> str:
    """Return in one line which process that was, what it did and how it ended.

    >>> processes_line("relay", {"publicados": 40}, -9, died_in="relay.after_publish")
    'repetidor · 40 publicados · muerto en after_publish'

    Args:
        role: as in `labkit run --role`, or a name of your own.
        did: what was counted, in Spanish plural.
        exit_code: of the process; None while it runs.
        died_in: the crash point at which it was to die, if it was.
    """
    counts = [counted(count, name) for name, count in did.items()]
    return " · ".join([_ROLES.get(role, role), *counts, _ending(exit_code, died_in)])


def _ending(exit_code: int | None, died_in: str) -> str:
    if exit_code is None:
        return "sigue en marcha"
    if exit_code == -signal.SIGKILL:
        return f"muerto en {died_in.rpartition('.')[2]}" if died_in else "muerto (SIGKILL)"
    return "terminó" if exit_code == 0 else f"salió con el código {exit_code}"


def show_processes(lines: Sequence[str]) -> None:
    """Show the processes behind a cell, one line each.

    Args:
        lines: from `processes_line`, in the order in which they are to stand.
    """
    page.say("\n".join(f"- `{line}`" for line in lines))
