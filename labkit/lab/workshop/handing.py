"""Handing over: what session 8 begins with, in `entrega/` of the lab's home.

    mi_checkout.py    the functions, and two services made of them
    evidencia.json    goals, chaos report, board, predictions and quiz
    mensajes/*.json   six frozen messages of ORD-1…ORD-3, and two as other services write them

The lab's home is the repository unless `LABKIT_HOME` says otherwise (`labkit.lab.home`), so
`labkit run entrega.mi_checkout:service` finds the file where the repository's commands are run.

Guarantee: the same books and answers give the same files; a file is the old one or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.lab import predictions, quiz
from labkit.lab.home import find_home
from labkit.lab.workshop import writing
from labkit.lab.workshop.goals import goals
from labkit.lab.workshop.shop import Workshop

FOLDER = "entrega"
_FOREIGN = ("foreign-uuid-sku.json", "foreign-without-headers.json")
# Reservation and type: a request each, both answers, and what made the rejection good.
_FROZEN = (
    ("RES-1", "ReserveStockRequested"),
    ("RES-1", "StockReserved"),
    ("RES-2", "ReserveStockRequested"),
    ("RES-3", "ReserveStockRequested"),
    ("RES-3", "StockReservationRejected"),
    ("RES-3", "ReleaseReservationRequested"),
)


def folder() -> Path:
    """Return where it is handed over, made if it is missing."""
    place = find_home().root / FOLDER
    (place / "mensajes").mkdir(parents=True, exist_ok=True)
    return place


def write_functions(functions: Mapping[str, Callable[..., Any]], mine: Collection[str]) -> Path:
    """Write `mi_checkout.py`; raises what `writing.text_of` raises."""
    path = folder() / "mi_checkout.py"
    _write(path, writing.text_of(functions, mine))
    return path


def write_messages(shop: Workshop) -> list[str]:
    """Write the frozen messages; return their names."""
    written = []
    for number, (reservation, name) in enumerate(_FROZEN, 1):
        path = folder() / "mensajes" / f"{number:02}-{reservation}-{name}.json"
        _write(path, _indented(_body(shop, reservation, name)))
        written.append(path.name)
    for name in _FOREIGN:
        sample = resources.files("labkit.shop.frozen").joinpath(name).read_text("utf-8")
        _write(folder() / "mensajes" / name, _indented(sample))
        written.append(name)
    return written


def write_evidence(shop: Workshop, chaos: pd.DataFrame, board: pd.DataFrame) -> Path:
    """Write `evidencia.json`."""
    told = {
        "metas": goals(shop).to_dict(orient="records"),
        "caos": chaos.to_dict(orient="records"),
        "tablero": board.to_dict(orient="records"),
        "predicciones": predictions.answers(),
        "quiz": quiz.answers(),
    }
    path = folder() / "evidencia.json"
    _write(path, json.dumps(told, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    return path


def _body(shop: Workshop, reservation: str, name: str) -> str:
    query = (
        f"select body from outbox_messages where body::json->'event'->>'type' = '{name}' "
        f"and key = '{reservation}' order by seq limit 1"
    )
    found = [shop.table(engine, query)["body"].tolist() for engine in (shop.orders, shop.stock)]
    (body,) = [body for bodies in found for body in bodies]
    return str(body)


def _indented(body: str) -> str:
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Replace a file in one step: a worker may read it just now."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
