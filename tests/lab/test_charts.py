from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from labkit.lab import charts
from labkit.lab.charts_axes import percentile
from labkit.lab.charts_style import paper
from tests.figures import problems, texts, words

# nbformat does not say what its functions take.
_nbformat: Any = nbformat

Displayed = Callable[[Callable[[], object]], list[dict[str, Any]]]
COUNTS = {
    "guarda y luego publica": {"llegaron": 187, "perdidos": 13, "inventados": 0},
    "publica y luego guarda": {"llegaron": 188, "perdidos": 0, "inventados": 12},
    "bandeja de salida": {"llegaron": 200, "perdidos": 0, "inventados": 0},
}
RATES: list[tuple[float, float]] = [(1, 900), (10, 7000), (100, 24_000), (1000, 41_000)]
COLUMNS = ("sin bandeja de entrada", "anota antes", "misma transacción")


def matrix(cell: charts.Cell) -> Figure:
    data = {name: dict.fromkeys(COLUMNS, cell) for name in COUNTS}
    return charts.matrix(
        data, title="Exactamente una vez, sin fantasías", rows="quien envía", columns="quien recibe"
    )


def lines(**data: list[tuple[float, float]]) -> Figure:
    return charts.lines(
        data, title="El lote", x="mensajes por lote", y="mensajes por segundo", log_x=True
    )


def distribution(shift: float) -> Figure:
    waits = {
        "sondeo cada 50 ms": [1 + n / 6 for n in range(300)],
        "con aviso": [shift + n / 100 for n in range(300)],
    }
    return charts.distribution(waits, title="Del commit al lector", x="espera", unit="ms")


FIGURES = {
    "bars": lambda: charts.stacked_bars(COUNTS, title="200 pedidos: ¿qué llega?"),
    "bars with a gap": lambda: charts.stacked_bars(
        COUNTS | {"bandeja de salida": {}}, title="200 pedidos, y una caída: ¿qué llega?"
    ),
    "bars, tiny": lambda: charts.stacked_bars(
        {"a": {"llegaron": 99_998, "perdidos": 1, "inventados": 1}}, title="Casi todo llega"
    ),
    "matrix": lambda: matrix(charts.bad("13 inventados, 12 repetidos")),
    "lines that end together": lambda: lines(
        uno=[*RATES], dos=[*RATES], tres=[*RATES], cuatro=[*RATES]
    ),
    "distribution": lambda: distribution(0.5),
    "equal values": lambda: charts.distribution(
        {"siempre igual": [2.0] * 9}, title="Igual", x="espera", unit="ms", log=True
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_form_is_legible_at_the_back(name: str) -> None:
    assert problems(FIGURES[name]()) == []


@pytest.mark.parametrize(
    ("x", "size", "problem"),
    [(1.0, 9, "small"), (3.9, 14, "cut off"), (1.0, 14, "overlap")],
)
def test_the_look_at_a_figure_finds_its_faults(x: float, size: int, problem: str) -> None:
    figure, axes = paper(4, 2, "")
    axes.text(1.0, 1.0, "uno")
    axes.texts[0].set_fontsize(14)
    axes.text(x, 1.0, "dos" if problem == "overlap" else "\n\ndos", size=size)

    assert any(problem in each for each in problems(figure))


def test_image_and_reading_travel_together(displayed: Displayed) -> None:
    figure = FIGURES["bars"]()
    image, text = displayed(lambda: charts.show(figure, "Se pierden  13\nde 200."))

    assert image["text/plain"] == "Se pierden 13 de 200."
    assert base64.b64decode(image["image/png"]).startswith(b"\x89PNG")
    assert text["text/markdown"] == "**Lectura.** Se pierden 13 de 200."


@pytest.mark.parametrize("reading", ["", " \n "])
def test_no_figure_without_a_reading(reading: str) -> None:
    with pytest.raises(ValueError, match="no tiene lectura"):
        charts.bundle(FIGURES["bars"](), reading)


def test_small_text_is_refused_and_named() -> None:
    figure = FIGURES["bars"]()
    texts(figure)[1].set_fontsize(9)

    with pytest.raises(ValueError, match=r"«.+» mide 9 pt"):
        charts.bundle(figure, "Se lee.")


def test_image_names_no_date_and_no_program() -> None:
    image = base64.b64decode(charts.bundle(FIGURES["bars"](), "Se lee.")["image/png"])

    assert b"Software" not in image
    assert b"Date" not in image


def test_same_data_make_the_same_image() -> None:
    first, second = (charts.bundle(FIGURES["distribution"](), "Se lee.") for _ in range(2))

    assert first == second


def test_zeros_are_written_too() -> None:
    assert "0 inventados" in words(FIGURES["bars"]())


def test_one_among_thousands_is_still_seen() -> None:
    parts = [
        each for each in FIGURES["bars, tiny"]().axes[0].patches if each.get_hatch() is not None
    ]

    assert all(each.get_window_extent().width >= 5 for each in parts)
    assert "1 perdido" in words(FIGURES["bars, tiny"]())


def test_a_way_still_to_be_measured_is_an_empty_place() -> None:
    assert "por medir" in words(FIGURES["bars with a gap"]())


def test_series_differ_in_hatch_and_not_in_colour_alone() -> None:
    bars = [patch for patch in FIGURES["bars"]().axes[0].patches if patch.get_hatch() is not None]

    assert len({patch.get_hatch() for patch in bars}) == 3


def test_a_verdict_has_a_sign() -> None:
    assert "✗ 2 perdidos 0 repetidos" in words(matrix(charts.bad("2 perdidos, 0 repetidos")))
    assert "✓ correcto" in words(matrix(charts.good("correcto")))


def test_lines_differ_in_marker_and_dash() -> None:
    drawn = lines(uno=[*RATES], dos=[*RATES]).axes[0].lines

    assert len({line.get_marker() for line in drawn}) == 2
    assert len({line.get_linestyle() for line in drawn}) == 2


def test_lines_are_named_where_they_end_without_a_legend() -> None:
    figure = lines(uno=[*RATES])

    assert "uno" in words(figure)
    assert figure.axes[0].get_legend() is None


def test_fractions_have_a_decimal_comma() -> None:
    figure = charts.lines({"uno": [(0, 0), (1, 1)]}, title="t", x="x", y="y")

    assert "0,2" in words(figure)


def test_percentiles_are_measured_values() -> None:
    assert "p99: 3,46 ms" in words(distribution(0.5))
    assert percentile(list(range(1, 101)), 0.99) == 99


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.stacked_bars({"a": dict.fromkeys("abcde", 1)}, title="t"),
        lambda: lines(**{name: [*RATES] for name in "abcde"}),
    ],
)
def test_a_fifth_series_is_refused(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match="de 1 a 4 series, y estas son 5"):
        draw()


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda: charts.stacked_bars({"a": {"b": -1}}, title="t"), "negativas"),
        (lambda: charts.stacked_bars({"a": {}}, title="t"), "estas son 0"),
        (lambda: lines(uno=[]), "sin puntos"),
        (lambda: charts.distribution({"a": []}, title="t", x="x", unit="s"), "sin valores"),
        (
            lambda: charts.matrix(
                {"a": {"x": charts.plain("1")}, "b": {"y": charts.plain("1")}},
                title="t", rows="r", columns="c",
            ),
            "mismas columnas",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_words(draw: Callable[[], Figure], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        draw()


def test_drawing_leaves_pyplot_and_settings_alone() -> None:
    before = dict(rcParams)
    program = "import labkit.lab.charts, sys; sys.exit('matplotlib.pyplot' in sys.modules)"

    charts.bundle(FIGURES["matrix"](), "Se lee.")

    assert dict(rcParams) == before
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


CELL = """
from labkit.lab import charts
waits = [{base} ** n for n in range(5)]
figure = charts.lines({{"espera": list(enumerate(waits))}}, title="Espera", x="intento", y="s")
charts.show(figure, f"La espera llega a {{waits[-1]}} s.")
"""


@pytest.mark.slow
def test_nbval_sees_a_chart_of_other_data(tmp_path: Path, displayed: Displayed) -> None:
    shown = displayed(lambda: exec(CELL.format(base=2), {}))
    stored = [_nbformat.v4.new_output("display_data", data=data) for data in shown]
    cells = [
        _nbformat.v4.new_code_cell(CELL.format(base=base), outputs=stored, execution_count=n)
        for n, base in ((1, 2), (2, 3))
    ]
    _nbformat.write(_nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")

    compare = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "a.ipynb"]
    seen = subprocess.run(
        [*compare, "-n0", "-p", "no:cacheprovider", "-p", "no:valkey"],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert "1 failed, 1 passed" in seen.stdout
    assert "La espera llega a 81 s." in seen.stdout
