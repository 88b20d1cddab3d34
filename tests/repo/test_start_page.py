"""The start page agrees with the notebooks: times, minutes, links."""

from __future__ import annotations

import re

import pytest

from labkit.lab import agenda
from tests.repo.notebooks import FOLDER, ROOT
from tests.repo.rules_of_words import rejected_in, unaccented_in, written

PAGE = (FOLDER / "00_inicio.md").read_text("utf-8")
ROWS = {
    file: (begins, ends, int(first), int(last))
    for begins, ends, first, last, file in re.findall(
        r"^\| (\d\d:\d\d)–(\d\d:\d\d) \| (\d+)–(\d+) \| \[.+?\]\((\S+)\) \|", PAGE, re.MULTILINE
    )
}


def shown(minute: int) -> str:
    return f"{agenda.START.hour + minute // 60}:{minute % 60:02}"


@pytest.mark.parametrize("block", agenda.blocks(), ids=lambda block: block.file)
def test_a_row_of_the_agenda_says_what_the_card_says(block: agenda.Block) -> None:
    ends = block.starts + block.minutes

    assert ROWS[block.file] == (shown(block.starts), shown(ends), block.starts, ends)
    assert f"[{block.title.split(' (')[0]}](" in PAGE


@pytest.mark.parametrize("block", agenda.blocks(), ids=lambda block: block.file)
def test_the_sections_of_a_notebook_fill_its_time(block: agenda.Block) -> None:
    assert sum(section.minutes for section in block.sections) == block.minutes


def test_the_agenda_has_a_row_for_every_notebook_with_a_time_and_no_other() -> None:
    assert set(ROWS) == {block.file for block in agenda.blocks()}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_every_link_of_the_start_page_leads_somewhere(link: str) -> None:
    assert (FOLDER / link).exists()


@pytest.mark.parametrize("document", ["notebooks/00_inicio.md", "docs/instructor.md"])
def test_a_page_for_the_class_uses_the_glossarys_words(document: str) -> None:
    text = written((ROOT / document).read_text("utf-8"))

    assert rejected_in(text) == []
    assert unaccented_in(text) == []
