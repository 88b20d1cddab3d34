"""Notebook 05 as a student works through it: own functions in the cells, in a kernel."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest
from nbclient import NotebookClient

from labkit.lab.servers import Stack
from labkit.lab.workshop import solutions
from tests.repo.notebooks import FOLDER, v4

pytestmark = pytest.mark.thorough

MINE = {
    "h1-colocar": "colocar",
    "h2-publicar": "publicar",
    "e1-enunciado": "al_pedir_reserva",
    "h5-contestar": "al_contestar",
    "h5-fila": "fila",
    "e2-enunciado": "al_recibir_rechazo",
}


def filled(source: str, name: str) -> str:
    """A cell with the solution in the place of the stub."""
    before, _, rest = source.partition(f"def {name}(")
    after = rest.partition("raise NotImplementedError")[2]
    function = inspect.getsource(getattr(solutions, name))
    return f"from typing import Any\n{before}{function}{after}"


@pytest.mark.slow
def test_own_functions_are_done_killed_and_handed_over(servers: Stack, tmp_path: Path) -> None:
    node = v4.reads((FOLDER / "05_workshop.ipynb").read_text())
    for cell in node.cells:
        if name := MINE.get(cell.id):
            cell.source = filled(cell.source, name)
    addresses = {"LABKIT_DATABASE_URL": servers.database_url, "LABKIT_REDIS_URL": servers.redis_url}
    place = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(node, timeout=60, record_timing=False, resources=place)

    with client.setup_kernel(env=os.environ | addresses | {"LABKIT_HOME": str(tmp_path)}):
        for number, cell in enumerate(node.cells):
            client.execute_cell(cell, number)

    evidence = json.loads((tmp_path / "entrega/evidencia.json").read_text())
    assert {each["estado"] for each in evidence["tablero"]} == {"hecho"}
    assert {name: evidence["caos"][0][name] for name in ("pedidos", "procesos muertos")} == {
        "pedidos": 200,
        "procesos muertos": 15,
    }
    text = (tmp_path / "entrega/mi_checkout.py").read_text()
    assert text.count("# tu función") == len(MINE)
    assert "# solución" not in text
