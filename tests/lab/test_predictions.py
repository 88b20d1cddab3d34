from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.lab import (
    predictions,
    predictions_01,
    predictions_02,
    predictions_03,
    predictions_04,
    predictions_05,
)
from labkit.lab.questions import Question

NOTEBOOKS = {
    "01": predictions_01.QUESTIONS,
    "02": predictions_02.QUESTIONS,
    "03": predictions_03.QUESTIONS,
    "04": predictions_04.QUESTIONS,
    "05": predictions_05.QUESTIONS,
}
QUESTIONS = [question for questions in NOTEBOOKS.values() for question in questions]
Displayed = Callable[[Callable[[], object]], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers_of_the_user: None) -> Path:
    """A home and a kernel in which nothing was answered."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(predictions, "_given", {})
    return tmp_path


@pytest.fixture
def said(displayed: Displayed) -> Callable[[Callable[[], object]], str]:
    return lambda show: "\n".join(each["text/markdown"] for each in displayed(show))


Said = Callable[[Callable[[], object]], str]


def test_a_question_is_shown_with_its_options(said: Said) -> None:
    text = said(lambda: predictions.ask("O1"))

    assert text.startswith("**Predicción O1.** Guardas 120 pedidos")
    assert re.findall(r"\*\*([a-c])\)\*\*", text) == ["a", "b", "c"]
    assert "Supone" not in text


def test_a_prediction_is_shown_in_its_own_words(said: Said) -> None:
    assert said(lambda: predictions.record("O2", " C ")) == (
        "**O2, tu predicción:** c) Nada: ni pedido ni evento."
    )


def test_no_prediction_is_said_and_compared(said: Said) -> None:
    assert said(lambda: predictions.record("O1", None)) == "**O1:** *sin predicción*"
    assert said(lambda: predictions.compare("O1", "b")).startswith(
        "- **Tu predicción:** *sin predicción*\n- **Lo medido:** b) "
    )


def test_a_wrong_prediction_meets_what_it_takes_for_granted(said: Said) -> None:
    said(lambda: predictions.record("O1", "a"))
    text = said(lambda: predictions.compare("O1", "b"))

    assert "- **Tu predicción:** a) " in text
    assert "- **Qué hay detrás de la tuya:** Supone que una ventana corta" in text
    assert not re.search(r"\b(mal|incorrect[oa]|error|fallaste)\b", text)


def test_a_right_prediction_agrees(said: Said) -> None:
    said(lambda: predictions.record("O1", "b"))

    assert said(lambda: predictions.compare("O1", "b")).endswith("- Coinciden.")


def test_what_was_measured_decides_and_not_the_text(said: Said) -> None:
    said(lambda: predictions.record("O1", "a"))

    assert said(lambda: predictions.compare("O1", "a")).endswith("- Coinciden.")


def test_an_earlier_answer_does_not_change_what_none_shows(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = [
        said(lambda: predictions.record("O1", None)),
        said(lambda: predictions.compare("O1", "b")),
    ]
    said(lambda: predictions.record("O1", "a"))
    monkeypatch.setattr(predictions, "_given", {})

    assert said(lambda: predictions.compare("O1", "b")) == fresh[1]
    said(lambda: predictions.record("O1", "a"))
    assert said(lambda: predictions.record("O1", None)) == fresh[0]
    assert said(lambda: predictions.compare("O1", "b")) == fresh[1]


def test_none_writes_nothing(said: Said, own_home: Path) -> None:
    said(lambda: predictions.record("O1", None))
    said(lambda: predictions.compare("O1", "b"))

    assert list(own_home.iterdir()) == []


@pytest.mark.parametrize("answer", ["z", 3, "", "ab", ["a"]])
def test_what_is_no_option_is_refused_with_what_to_write(answer: Any) -> None:
    with pytest.raises(ValueError, match='O1: escribe "a", "b", "c" o None'):
        predictions.record("O1", answer)


def test_an_unknown_question_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no hay pregunta 'O9'; hay T1, T2"):
        predictions.ask("O9")


def test_answers_are_private_until_exported(said: Said, own_home: Path, tmp_path: Path) -> None:
    said(lambda: predictions.record("O1", "a"))
    said(lambda: predictions.compare("O1", "b"))
    said(lambda: predictions.record("O2", "c"))

    assert (own_home / ".labkit/predictions.json").stat().st_mode & 0o077 == 0
    predictions.export(tmp_path / "mine.json")
    assert json.loads((tmp_path / "mine.json").read_text("utf-8")) == {
        "O1": {"answer": "a", "right": "b"},
        "O2": {"answer": "c"},
    }


def test_export_without_answers_is_an_empty_file(tmp_path: Path) -> None:
    predictions.export(tmp_path / "mine.json")

    assert json.loads((tmp_path / "mine.json").read_text("utf-8")) == {}


def right_of(question: Question) -> str:
    (right,) = [letter for letter, each in question.options.items() if not each.assumes]
    return right


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_each_question_has_one_answer_and_two_beliefs(question: Question) -> None:
    assert sorted(question.options) == ["a", "b", "c"]
    right = question.options[right_of(question)].text
    assert all(len(right) < len(each.text) for each in question.options.values() if each.assumes)
    assert all(each.assumes.startswith("Supone ") for each in question.options.values()
               if each.assumes)  # fmt: skip


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_no_letter_is_right_much_more_often_than_another(notebook: str) -> None:
    letters = [right_of(question) for question in NOTEBOOKS[notebook]]
    counts = [letters.count(letter) for letter in "abc"]

    assert max(counts) - min(counts) <= 1


def test_with_nothing_recorded_the_summary_says_so(said: Said) -> None:
    assert said(predictions.summary) == (
        "No hay predicciones guardadas en este equipo: nada que comparar."
    )


def test_the_summary_lists_what_was_recorded_beside_what_was_measured(
    displayed: Displayed,
) -> None:
    def afternoon() -> None:
        predictions.record("S1", "a")
        predictions.compare("S1", "c")
        predictions.record("O1", "b")
        predictions.compare("O1", "b")
        predictions.record("O2", "c")

    displayed(afternoon)
    table, words = displayed(predictions.summary)

    assert table["text/plain"].splitlines() == [
        "cuaderno  predicción  tu respuesta  lo medido",
        "02        O1          b             b",
        "02        O2          c             –",
        "03        S1          a             c",
    ]
    assert words["text/plain"].startswith("Coinciden 1 de 3.")
