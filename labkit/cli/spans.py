"""Spans of time as a person writes them in a command, and reads them in a table."""

from __future__ import annotations

import re

import typer

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(said: str) -> float:
    """Return what `90s`, `2h` or `1d` means, in seconds.

    Raises:
        typer.BadParameter: when it means nothing.
    """
    read = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", said.strip())
    if read is None:
        raise typer.BadParameter(f"{said!r} is no time: write 90s, 2h or 1d", param_hint="TIME")
    return float(read[1]) * _UNITS_S[read[2] or "s"]


def age(seconds: float) -> str:
    """Return a span as short as a column: in whole units of the largest that fits."""
    unit = next(u for u in "dhms" if seconds >= _UNITS_S[u] or u == "s")
    return f"{int(seconds / _UNITS_S[unit])} {unit}"
