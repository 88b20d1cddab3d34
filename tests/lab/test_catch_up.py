"""`labkit catch-up`: a late student's databases, as the notebook expects them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.errors import ConfigurationError
from labkit.lab.servers import Stack
from labkit.lab.story_cast import LEDGER

BEFORE = {"01": "00", "02": "01", "03": "02", "04": "03", "05": "00"}


@pytest.fixture(autouse=True)
def at_home(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(running.home))


def catch_up(number: str) -> str:
    done = CliRunner().invoke(app, ["catch-up", number], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("notebook", BEFORE)
def test_the_ficha_is_that_of_the_notebooks_opening(notebook: str) -> None:
    told = catch_up(notebook)

    for order_id, status in LEDGER[BEFORE[notebook]].orders.items():
        assert f"{order_id} " in told
        assert status in told
    assert f"El cuaderno {notebook} está preparado" in told


def test_a_second_time_says_the_same() -> None:
    assert catch_up("03") == catch_up("3")


@pytest.mark.parametrize("number", ["00", "06", "7", "tres", ""])
def test_an_unknown_number_is_refused_with_the_numbers_there_are(number: str) -> None:
    with pytest.raises(ConfigurationError, match="escribe 01, 02, 03, 04 o 05"):
        CliRunner().invoke(app, ["catch-up", number], catch_exceptions=False)
