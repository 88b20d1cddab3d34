"""The session's clock: which minute it is, and which section the class should be at.

    agenda.ahora()             # began at 16:00
    agenda.ahora("16:07")      # began late

Guarantee: times and sections are those on the notebooks' own cards and headings.
Not guaranteed: that this machine's clock shows the time of the classroom; it is printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

from labkit.clock import Clock, SystemClock
from labkit.errors import ConfigurationError
from labkit.lab import page

START = time(16, 0)
_BOX = re.compile(r"^\*\*(\d\d):(\d\d)–\d\d:\d\d · (\d+) minutos\*\*$", re.MULTILINE)
_SECTION = re.compile(r"^## (.+) \*\((\d+) min\)\*$", re.MULTILINE)


class Section(NamedTuple):
    """One section of a core; `starts` is its minute of the session."""

    title: str
    starts: int
    minutes: int


class Block(NamedTuple):
    """One notebook of the session; `starts` is its minute of the session."""

    file: str
    title: str
    starts: int
    minutes: int
    sections: tuple[Section, ...]


def blocks(folder: Path | None = None) -> list[Block]:
    """Read the agenda from the notebooks; one without a time on its card has no place in it.

    Args:
        folder: where they are; the repository's by default.
    """
    place = folder or Path(__file__).resolve().parents[2] / "notebooks"
    found = (_block(path) for path in sorted(place.glob("*.ipynb")))
    return [block for block in found if block]


def ahora(desde: str = "16:00", *, clock: Clock | None = None) -> None:
    """Show the minute of the session and the section that belongs to it.

    Args:
        desde: when the class began, such as `16:07`.
        clock: whose time it is; the machine's by default.
    """
    page.say(sentence(desde, clock=clock))


def sentence(desde: str = "16:00", *, clock: Clock | None = None) -> str:
    """Return what `ahora` shows.

    Raises:
        ConfigurationError: `desde` is no time of the day.
    """
    now = (clock or SystemClock()).now().astimezone()
    minute = (now - _began(desde, now)) // timedelta(minutes=1)
    return f"Son las {now:%H:%M}. {at(minute, blocks())}"


def at(minute: int, agenda: Sequence[Block]) -> str:
    """Say where a class is at a minute of the session.

    Args:
        minute: since it began.
        agenda: from `blocks`.
    """
    end = max((each.starts + each.minutes for each in agenda), default=0)
    if minute < 0:
        return f"Faltan {-minute} minutos para empezar."
    if minute >= end:
        return f"La sesión de {end} minutos ha terminado."
    for block in agenda:
        for section in block.sections:
            if section.starts <= minute < section.starts + section.minutes:
                left = section.starts + section.minutes - minute
                return (
                    f"Minuto {minute} de {end}: cuaderno {block.file[:2]}, «{section.title}», "
                    f"le {'queda' if left == 1 else 'quedan'} {left} min."
                )
    follows = next(each for each in agenda if each.starts > minute)
    return (
        f"Minuto {minute} de {end}: descanso. El cuaderno {follows.file[:2]} empieza en "
        f"{follows.starts - minute} min."
    )


def _block(path: Path) -> Block | None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    box = _BOX.search(texts[0]) if texts else None
    if not box:
        return None
    hour, minute, minutes = map(int, box.groups())
    starts = 60 * (hour - START.hour) + minute - START.minute
    title = texts[0].splitlines()[0].removeprefix("# ")
    return Block(path.name, title, starts, minutes, tuple(_sections(texts, starts)))


def _sections(texts: Sequence[str], starts: int) -> Iterator[Section]:
    for text in texts:
        for title, minutes in _SECTION.findall(text):
            yield Section(title, starts, int(minutes))
            starts += int(minutes)


def _began(desde: str, now: datetime) -> datetime:
    try:
        hour, minute = map(int, desde.split(":"))
        return now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError as exc:
        raise ConfigurationError(f'no es una hora: {desde!r}; escríbela como "16:07"') from exc
