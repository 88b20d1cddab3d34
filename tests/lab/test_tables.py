from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from labkit.lab import tables
from labkit.lab.spanish import number

Displayed = Callable[[Callable[[], object]], list[dict[str, Any]]]


def cells(*values: object) -> list[str]:
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    return [line.strip() for line in tables.bundle(frame)["text/plain"].splitlines()[1:]]


def head(*names: str) -> list[str]:
    frame = pd.DataFrame([["v"] * len(names)], columns=list(names))
    return tables.bundle(frame)["text/plain"].splitlines()[0].split()


def test_the_four_ids_stand_first_and_in_one_order() -> None:
    names = ("qty", "orderId", "reservationId", "correlationId", "messageId")

    assert head(*names) == ["messageId", "correlationId", "reservationId", "orderId", "qty"]


def test_ids_from_a_database_take_the_same_places() -> None:
    names = ("status", "order_id", "reservation_id", "message_id")

    assert head(*names) == ["message_id", "reservation_id", "order_id", "status"]


def test_an_id_has_the_same_colour_in_every_table() -> None:
    one = tables.bundle(pd.DataFrame({"orderId": ["ORD-1"]}))["text/html"]
    other = tables.bundle(pd.DataFrame({"sku": ["BOOK-DDD"], "order_id": ["ORD-1"]}))["text/html"]

    assert "background-color: #EFE3F2" in one
    assert "background-color: #EFE3F2" in other


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0,25"),
        (3.0, "3"),
        (Decimal("2.50"), "2,5"),
        (12_345, "12\u202f345"),
        (1234, "1234"),
        (True, "sí"),
        (None, "–"),
        (float("nan"), "–"),
        (pd.NaT, "–"),
        (datetime(2026, 2, 17, 16, tzinfo=UTC), "2026-02-17T16:00:00.000Z"),
        ("dos\nlíneas", "dos líneas"),
    ],
)
def test_a_value_reads_as_in_a_spanish_text(value: object, text: str) -> None:
    assert cells(value) == [text]


def test_a_long_text_keeps_both_ends() -> None:
    (text,) = cells("a" * 50 + "ending")

    assert len(text) == 40
    assert text.endswith("…aaending")


def test_the_index_is_left_out() -> None:
    frame = pd.DataFrame({"sku": ["BOOK-DDD"]}, index=["nadie me ve"])

    assert "nadie" not in "".join(tables.bundle(frame).values())


def test_html_is_escaped() -> None:
    html = tables.bundle(pd.DataFrame({"<b>": ["<script>"]}), "a & b")["text/html"]

    assert "<script>" not in html
    assert "<b>" not in html
    assert "a &amp; b" in html


def test_numbers_stand_right_and_texts_left() -> None:
    html = tables.bundle(pd.DataFrame({"sku": ["BOOK-DDD"], "qty": [2], "ok": [True]}))["text/html"]

    assert '<td style="text-align: left">BOOK-DDD</td>' in html
    assert '<td style="text-align: right">2</td>' in html
    assert '<td style="text-align: left">sí</td>' in html


def test_same_rows_make_the_same_text() -> None:
    frame = pd.DataFrame({"order_id": ["ORD-1"], "qty": [2]})

    assert tables.bundle(frame, "Pedidos") == tables.bundle(frame.copy(), "Pedidos")


def test_another_value_makes_another_text() -> None:
    one, other = (tables.bundle(pd.DataFrame({"qty": [n]})) for n in (1, 2))

    assert one["text/plain"] != other["text/plain"]
    assert one["text/html"] != other["text/html"]


def test_a_table_without_rows_still_has_a_head() -> None:
    empty = tables.bundle(pd.DataFrame({"sku": []}))

    assert empty["text/plain"] == "sku"
    assert "<th" in empty["text/html"]


def test_a_table_is_shown_with_its_caption(displayed: Displayed) -> None:
    (shown,) = displayed(lambda: tables.show_table(pd.DataFrame({"sku": ["a"]}), "El almacén"))

    assert shown["text/plain"].startswith("El almacén\nsku")
    assert "<strong>El almacén</strong>" in shown["text/html"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            tables.processes_line("relay", {"publicados": 40}, -9, died_in="relay.after_publish"),
            "repetidor · 40 publicados · muerto en after_publish",
        ),
        (
            tables.processes_line("consumer", {"aplicados": 1}, 0),
            "consumidor · 1 aplicado · terminó",
        ),
        (tables.processes_line("relay", {}, -9), "repetidor · muerto (SIGKILL)"),
        (tables.processes_line("caja", {}, 1), "caja · salió con el código 1"),
        (tables.processes_line("caja", {}, None), "caja · sigue en marcha"),
    ],
)
def test_a_process_is_one_line(line: str, text: str) -> None:
    assert line == text


def test_processes_are_shown_one_per_line(displayed: Displayed) -> None:
    (shown,) = displayed(lambda: tables.show_processes(["uno", "dos"]))

    assert shown["text/markdown"] == "- `uno`\n- `dos`"


@pytest.mark.parametrize(
    ("value", "text"), [(-12_345, "-12\u202f345"), (1e-5, "0,00001"), (0, "0"), (1234.5, "1234")]
)
def test_numbers_are_spanish(value: float, text: str) -> None:
    assert number(value) == text
