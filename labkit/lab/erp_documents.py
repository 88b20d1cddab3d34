"""An order as the ERP writes it, and where in our code each of its fields is decided.

Guarantee: "where" is read from the source of `labkit.shop.erp`, whichever functions name a field
today; "who knows" from the source of all of labkit that is not the bench.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pandas as pd

import labkit
from labkit.shop import erp

_BENCH = {"lab", "testing", "cli"}


def document(quantity: str = "1,000") -> dict[str, Any]:
    """Return ORD-2 in the words of the ERP.

    Args:
        quantity: of its first position, as text.
    """
    return {
        "BELEGART": "TA",
        "BELEGNR": "0000000002",
        "WAEHRUNG": "EUR",
        "SACHBEARB": "M-07",
        "POSITIONEN": [
            {"ART_NR": "000100", "MENGE": quantity, "PREIS_CT": "5400"},
            {"ART_NR": "000300", "MENGE": "1,000", "PREIS_CT": "4500"},
        ],
    }


def field_by_field() -> pd.DataFrame:
    """Translate the document, and show each field beside what it became, and where."""
    written, order = document(), erp.order_of(document())
    if order is None:
        raise TypeError("the document is no order")
    position, line = written["POSITIONEN"][0], order.lines[0]
    rows = [
        ("BELEGNR", written["BELEGNR"], f"order_id = {order.order_id!r}"),
        ("ART_NR", position["ART_NR"], f"sku = {line.sku!r}"),
        ("MENGE", position["MENGE"], f"qty = {line.qty!r}"),
        ("PREIS_CT", position["PREIS_CT"], f"cents = {line.cents!r}"),
        ("SACHBEARB", written["SACHBEARB"], None),
    ]
    columns = ["el ERP lo llama", "y escribe", "en nuestro modelo", "se decide en erp."]
    return pd.DataFrame([(*row, ", ".join(deciders(row[0])) or None) for row in rows],
                        columns=columns)  # fmt: skip


def deciders(field: str) -> list[str]:
    """Return the functions of the translation that name a field.

    Args:
        field: of the ERP.
    """
    functions = inspect.getmembers(erp, inspect.isfunction)
    own = [each for each in functions if each[1].__module__ == erp.__name__]
    named = re.compile(rf"['\"]{field}['\"]")
    return [name for name, function in own if named.search(inspect.getsource(function))]


def who_knows(word: str) -> list[str]:
    """Return the modules below the bench that name a word of the ERP.

    Args:
        word: such as `ART_NR`.
    """
    root = Path(labkit.__file__).parent
    modules = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    below = [path for path in modules if path.parts[0] not in _BENCH]
    return [".".join(path.with_suffix("").parts) for path in below
            if word in (root / path).read_text(encoding="utf-8")]  # fmt: skip


def refusal(quantity: str) -> pd.DataFrame:
    """Let the document come with another quantity; show what is said about it.

    Args:
        quantity: of the first position, as text.
    """
    try:
        order = erp.order_of(document(quantity))
    except erp.ErpDocumentError as error:
        row = {"MENGE": quantity, "pedido": None, "campo": error.field, "motivo": error.reason}
    else:
        row = {"MENGE": quantity, "pedido": str(order), "campo": None, "motivo": None}
    return pd.DataFrame([row])
