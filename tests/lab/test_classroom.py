"""The class's table: what is counted, and what is not."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.errors import ConfigurationError
from labkit.lab import classroom, predictions, quiz
from labkit.lab.classroom import Missed
from labkit.lab.questions import Question

# The right options; the tests' wrong ones are others.
Q1 = next(each.right for each in quiz.SITUATIONS if each.id == "q1")
O1 = next(each.measured for each in predictions.questions() if each.id == "O1")
WRONG = "a" if Q1 != "a" else "b"


def hand_in(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_thirty_students_become_one_table_with_the_most_missed_first(tmp_path: Path) -> None:
    for n in range(30):
        answers = {
            "O1": {"answer": "a" if n < 21 else O1, "right": O1},
            "q1": {"answer": WRONG if n < 6 else Q1, "right": Q1},
        }
        hand_in(tmp_path, f"rol-{n:02}.json", answers)

    found = classroom.read(tmp_path)

    assert found.students == 30
    assert classroom.most_missed(found.answers) == [
        Missed("O1", 30, 21, O1, "a", 21),
        Missed("q1", 30, 6, Q1, WRONG, 6),
    ]


def test_the_order_of_the_files_does_not_change_the_table(tmp_path: Path) -> None:
    shuffled = random.Random(7)
    for n in range(12):
        hand_in(tmp_path, f"rol-{n:02}.json", {"O1": {"answer": shuffled.choice("abc")}})
    answers = list(classroom.read(tmp_path).answers)
    before = classroom.most_missed(answers)

    shuffled.shuffle(answers)

    assert classroom.most_missed(answers) == before


def test_the_hand_over_of_the_workshop_counts_as_predictions_and_quiz(tmp_path: Path) -> None:
    evidence = {"metas": [], "predicciones": {"O1": {"answer": "a"}}, "quiz": {"q1": WRONG}}
    hand_in(tmp_path, "rol-01/entrega/evidencia.json", evidence)
    hand_in(tmp_path, "rol-02/quiz.json", {"q1": {"answer": Q1, "right": Q1}})

    found = classroom.read(tmp_path)

    assert found.students == 2
    assert classroom.most_missed(found.answers) == [
        Missed("O1", 1, 1, O1, "a", 1),
        Missed("q1", 2, 1, Q1, WRONG, 1),
    ]


def test_a_student_who_hands_in_twice_counts_once(tmp_path: Path) -> None:
    hand_in(tmp_path, "rol-01/1.json", {"O1": {"answer": "a"}})
    hand_in(tmp_path, "rol-01/2.json", {"O1": {"answer": O1}})

    [row] = classroom.most_missed(classroom.read(tmp_path).answers)

    assert (row.answered, row.missed) == (1, 0)


def test_a_question_that_the_workbook_does_not_ask_is_left_out(tmp_path: Path) -> None:
    hand_in(tmp_path, "rol-01.json", {"q99": "a"})

    assert classroom.most_missed(classroom.read(tmp_path).answers) == []


@pytest.mark.parametrize("content", [[1], {"O1": {"right": "a"}}, {"O1": {"answer": None}}, "a", 3])
def test_a_file_that_is_no_export_is_named_and_left_out(tmp_path: Path, content: object) -> None:
    hand_in(tmp_path, "rol-01.json", {"O1": {"answer": "a"}})
    hand_in(tmp_path, "otra.json", content)

    found = classroom.read(tmp_path)

    assert (found.students, found.refused) == (1, ("otra.json",))


def test_a_folder_without_answers_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no hay respuestas: pon ahí los ficheros"):
        classroom.read(tmp_path)


@pytest.mark.parametrize("question", predictions.questions(), ids=lambda question: question.id)
def test_each_question_has_one_option_that_assumes_nothing(
    question: Question,
) -> None:
    assert sum(not option.assumes for option in question.options.values()) == 1


def test_the_command_prints_the_table_and_names_what_it_did_not_understand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for n in range(4):
        hand_in(tmp_path, f"rol-{n}.json", {"O1": {"answer": "a" if n else O1}, "q1": WRONG})
    hand_in(tmp_path, "rol-9.json", {"q1": {"answer": Q1, "right": Q1}})
    hand_in(tmp_path, "roto.json", [])

    done = CliRunner().invoke(app, ["class", str(tmp_path)], catch_exceptions=False)

    lines = [line.split() for line in done.stdout.splitlines() if re.match("│ [a-zA-Z]", line)]
    first, second = lines
    assert "5 personas" in done.stdout
    assert first[1:8:2] == ["q1", "5", "4", "80"]
    assert second[1:8:2] == ["O1", "4", "3", "75"]
    assert "rol-" not in done.stdout
    assert "no se entiende roto.json" in done.stdout
