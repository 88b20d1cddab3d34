"""What a cell shows: the one way from the bench to the notebook's page.

Guarantee: everything shown has a plain text as well, which nbval compares and a terminal prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from IPython import display

# IPython does not say what these take.
_display: Any = display.display


def show(bundle: Mapping[str, str]) -> None:
    """Show one thing in several forms; the page takes the best that it knows.

    Args:
        bundle: MIME type and content, `text/plain` among them.
    """
    _display(dict(bundle), raw=True)


def say(markdown: str) -> None:
    """Show a Markdown text."""
    show({"text/markdown": markdown, "text/plain": markdown})
