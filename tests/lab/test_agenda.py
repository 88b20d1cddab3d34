"""The session's clock, read from the notebooks' cards."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError
from labkit.lab import agenda
from labkit.lab.agenda import Block, Section

TWO = [
    Block("01_one.ipynb", "01 · Uno", 0, 10, (Section("A", 0, 4), Section("B", 4, 6))),
    Block("02_two.ipynb", "02 · Dos", 15, 5, (Section("C", 15, 5),)),
]


@pytest.mark.parametrize(
    ("minute", "said"),
    [
        (-3, "Faltan 3 minutos para empezar."),
        (0, "Minuto 0 de 20: cuaderno 01, «A», le quedan 4 min."),
        (3, "Minuto 3 de 20: cuaderno 01, «A», le queda 1 min."),
        (4, "Minuto 4 de 20: cuaderno 01, «B», le quedan 6 min."),
        (10, "Minuto 10 de 20: descanso. El cuaderno 02 empieza en 5 min."),
        (19, "Minuto 19 de 20: cuaderno 02, «C», le queda 1 min."),
        (20, "La sesión de 20 minutos ha terminado."),
    ],
)
def test_a_minute_has_its_section(minute: int, said: str) -> None:
    assert agenda.at(minute, TWO) == said


def test_the_sections_follow_each_other_from_the_time_on_the_card(tmp_path: Path) -> None:
    card = "# 02 · Dos\n\n**16:15–16:20 · 5 minutos**"
    texts = [card, "## C *(2 min)*\n\nTexto.", "## D *(3 min)*", "# Para profundizar\n\n## E"]
    cells = [{"cell_type": "markdown", "source": [text]} for text in texts]
    (tmp_path / "02_two.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "06_no_time.ipynb").write_text(json.dumps({"cells": cells[1:]}))

    found = agenda.blocks(tmp_path)

    assert found == [
        Block("02_two.ipynb", "02 · Dos", 15, 5, (Section("C", 15, 2), Section("D", 17, 3)))
    ]


def test_a_class_that_began_late_is_told_its_own_minute(clock: FakeClock) -> None:
    began = f"{clock.now().astimezone():%H:%M}"
    clock.advance(timedelta(minutes=41).total_seconds())

    assert "Minuto 41 de" in agenda.sentence(began, clock=clock)


@pytest.mark.parametrize("since", ["mañana", "25:00", "16", ""])
def test_what_is_no_time_is_refused_with_an_example(since: str) -> None:
    with pytest.raises(ConfigurationError, match='escríbela como "16:07"'):
        agenda.sentence(since)


def test_the_command_says_where_the_class_is() -> None:
    done = CliRunner().invoke(app, ["agenda", "--desde", "00:00"], catch_exceptions=False)

    assert re.fullmatch(r"Son las \d\d:\d\d\. (Minuto|La sesión de) \d+ .+\.\n", done.stdout)
