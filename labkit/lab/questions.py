"""What a prediction asks: its options, and what each wrong one takes for granted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Option(NamedTuple):
    """One answer.

    Args:
        text: the answer.
        assumes: what one takes for granted who gives it; empty for what is measured.
    """

    text: str
    assumes: str = ""


class Question(NamedTuple):
    """One prediction, to be made before the cell that measures it runs.

    Args:
        id: the step of the notebook, such as `O1`.
        text: the question.
        options: letter and answer.
    """

    id: str
    text: str
    options: Mapping[str, Option]

    @property
    def measured(self) -> str:
        """Return the letter of the option that the notebook measures."""
        return next(letter for letter, option in self.options.items() if not option.assumes)
