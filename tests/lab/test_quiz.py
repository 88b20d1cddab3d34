"""Concept Quiz 07: fair, explained, the same for everybody who has not answered."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labkit.lab import quiz
from labkit.lab.quiz import SITUATIONS, Situation

Displayed = Callable[[Callable[[], object]], list[dict[str, Any]]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers_of_the_user: None) -> Path:
    """A home and a kernel in which nothing was answered."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(quiz, "_given", {})
    return tmp_path


@pytest.fixture
def said(displayed: Displayed) -> Callable[[Callable[[], object]], str]:
    return lambda show: "\n".join(each.get("text/plain", "") for each in displayed(show))


Said = Callable[[Callable[[], object]], str]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.id)
def test_a_situation_has_four_options_one_of_them_right_and_not_the_longest(
    situation: Situation,
) -> None:
    assert list(situation.choices) == ["a", "b", "c", "d"]
    assert sum(not choice.overlooks for choice in situation.choices.values()) == 1
    longest = max(situation.choices.values(), key=lambda choice: len(choice.text))
    assert longest is not situation.choices[situation.right]


def test_the_key_is_spread_over_the_letters() -> None:
    assert len(SITUATIONS) == 12
    assert Counter(each.right for each in SITUATIONS) == dict.fromkeys("abcd", 3)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.id)
def test_the_demonstration_to_see_again_exists(situation: Situation) -> None:
    notebook, section = situation.seen
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    titles = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    assert any(re.match(rf"#+ {section} ·", line) for line in titles)


def test_without_an_answer_a_situation_gives_nothing_away(said: Said) -> None:
    for situation in SITUATIONS:
        text = said(partial(quiz.answer, situation.id, None))
        assert text.endswith("*Sin respuesta todavía.*")
        assert situation.because not in text
        assert not any(c.overlooks and c.overlooks in text for c in situation.choices.values())


def test_a_wrong_answer_meets_what_it_overlooks_and_not_the_right_one(said: Said) -> None:
    q4 = SITUATIONS[3]
    wrong = next(letter for letter in q4.choices if letter != q4.right)
    text = said(partial(quiz.answer, "q4", wrong))
    assert q4.choices[wrong].overlooks in text
    assert text.endswith("Se ve en 02 · O3.")
    assert q4.because not in text


def test_a_right_answer_says_why(said: Said) -> None:
    q10 = SITUATIONS[9]
    assert q10.because in said(partial(quiz.answer, "q10", f" {q10.right.upper()} "))


@pytest.mark.parametrize(
    ("right", "advice"), [(12, "Listo"), (10, "Listo"), (7, "Repasa"), (3, "Vuelve al cuaderno 02")]
)
def test_the_score_says_what_to_do_next(right: int, advice: str, said: Said) -> None:
    for n, each in enumerate(SITUATIONS):
        wrong = next(letter for letter in each.choices if letter != each.right)
        said(partial(quiz.answer, each.id, each.right if n < right else wrong))
    text = said(quiz.score)
    assert text.startswith(f"**{right} de 12.** {advice}")
    again = [each for each in SITUATIONS[right:] if " · ".join(each.seen) in text]
    assert len(again) == 12 - right


def test_the_score_of_nobody_is_zero_and_blames_nobody(said: Said) -> None:
    assert said(quiz.score) == "**0 de 12.** Todavía no has respondido ninguna."


def test_an_answer_taken_back_does_not_count(said: Said) -> None:
    said(lambda: quiz.answer("q1", SITUATIONS[0].right))
    said(lambda: quiz.answer("q1", None))
    assert said(quiz.score).startswith("**0 de 12.**")


@pytest.mark.parametrize("nonsense", ["e", "", 3, ["a"]])
def test_an_option_that_is_not_there_is_refused_with_those_that_are(nonsense: Any) -> None:
    with pytest.raises(ValueError, match='q2: escribe "a", "b", "c", "d" o None'):
        quiz.answer("q2", nonsense)


def test_an_unknown_situation_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="hay q1, q2"):
        quiz.answer("q13", "a")


def test_answers_are_kept_for_their_owner_and_exported(own_home: Path, said: Said) -> None:
    said(lambda: quiz.answer("q1", "b"))
    said(lambda: quiz.answer("q2", "a"))
    assert quiz.answers() == {"q1": "b", "q2": "a"}
    quiz.export(own_home / "mine.json")
    assert json.loads((own_home / "mine.json").read_text())["q2"]["answer"] == "a"
    assert (own_home / ".labkit" / "quiz.json").stat().st_mode & 0o077 == 0
