"""The file of the workshop: what a function uses goes with it, or is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta as delta
from typing import Any

import pytest

from labkit.errors import LabkitError
from labkit.lab.workshop import gaps, writing

LIMIT = 3
OPEN_FILE = object()


def doubled(number: int) -> int:
    return number * 2


def fila(mensaje: Any) -> Any:
    """Uses a module, an import under another name, a value, and a function of its own."""
    return [math.floor(doubled(each) + LIMIT) for each in mensaje], delta(days=1)


def uses_an_object(mensaje: Any) -> Any:
    return OPEN_FILE


def enclosed() -> Callable[[Any], Any]:
    inner = 7

    def row(mensaje: Any) -> int:
        return inner

    return row


def run(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "entrega.mi_checkout"}
    exec(compile(text, "mi_checkout.py", "exec"), names)
    return names


def test_a_function_takes_along_what_it_uses() -> None:
    text = writing.text_of(gaps.whole({"fila": fila}), ["fila"])
    names = run(text)

    assert names["fila"]([1, 2.5]) == ([5, 8], delta(days=1))
    assert "from datetime import timedelta as delta" in text
    assert "LIMIT = 3" in text
    assert names["service"].name == "fulfillment"
    assert names["inventario"].name == "inventory"


def test_what_cannot_be_carried_is_refused_by_its_name() -> None:
    with pytest.raises(LabkitError, match="`uses_an_object` usa `OPEN_FILE`"):
        writing.text_of({"fila": uses_an_object}, ["fila"])
    with pytest.raises(LabkitError, match="`row` usa una variable de otra función"):
        writing.text_of({"fila": enclosed()}, ["fila"])


def test_a_function_without_a_source_is_refused() -> None:
    names: dict[str, Any] = {}
    exec("def fila(mensaje): return {}", names)

    with pytest.raises(LabkitError, match="No encuentro el texto de `fila`"):
        writing.text_of({"fila": names["fila"]}, ["fila"])


def test_the_solution_alone_is_marked_and_runs() -> None:
    text = writing.text_of(gaps.whole({}), [])

    assert text.count("# solución") == len(gaps.EXERCISES)
    assert "# tu función" not in text
    assert run(text)["partes"].place is not None
