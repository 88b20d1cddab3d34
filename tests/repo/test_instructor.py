"""The instructor's pages agree with the notebooks: minutes, sections, answers, commands."""

from __future__ import annotations

import re

import pytest

from labkit.lab import agenda
from tests.repo import answer_key
from tests.repo.notebooks import ROOT
from tests.repo.test_start_page import shown

PAGE = answer_key.DOCUMENT.read_text("utf-8")
PLAN = re.findall(r"^\| (\d\d:\d\d) \| (◇ )?(.+?) \| (\d+) \|", PAGE, re.MULTILINE)
CORE = [section for block in agenda.blocks() for section in block.sections]
# What pedagogy lets a slow group leave out.
DROPPED = {"T4", "S7", "D6"}


def test_the_plan_lists_every_section_at_its_time() -> None:
    planned = [(begins, title, int(minutes)) for begins, _, title, minutes in PLAN]

    assert planned == [(shown(each.starts), each.title, each.minutes) for each in CORE]


def test_a_step_to_drop_is_marked() -> None:
    assert {title.split(" ")[0] for _, mark, title, _ in PLAN if mark} == DROPPED


def test_the_answer_key_says_what_questions_and_notebooks_say() -> None:
    assert answer_key.written() == answer_key.answer_key(), (
        "write it again: .venv/bin/python -m tests.repo.answer_key"
    )


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_every_link_of_the_instructors_pages_leads_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"`labkit ([a-z-]+)", PAGE))))
def test_every_command_that_the_instructor_is_told_exists(verb: str) -> None:
    from labkit.cli import app  # noqa: PLC0415 - the command line is needed here only

    names = {
        each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands
    }

    assert verb in names | {each.name for each in app.registered_groups}
