"""The story of the workbook: the same orders through all notebooks, each able to begin alone.

    historia = story.open("02")     # what notebook 02 finds, built through the real services
    historia                        # its ficha de estado
    historia.place("ORD-1")
    historia.settle()
    historia.check()                # the books say what the story tells, or which line differs

Guarantee: every state is reached by the real services and workers, on databases and streams of
the notebook's own; clock and message ids are the same in every run; `close(n)` has the books of
`open(n + 1)`, and both are the ledger's.
Not guaranteed: what processes started beside it (`apart`) write: they have the machine's time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labkit.errors import ConfigurationError
from labkit.lab.pr_de_ayer import code as pr_de_ayer
from labkit.lab.servers import Stack
from labkit.lab.story_cast import CAST
from labkit.lab.story_shop import OffScriptError, Story
from labkit.shop import choreography, inventory, payments

__all__ = ["OffScriptError", "Story", "close", "open"]


def open(notebook: str, *, name: str | None = None, servers: Stack | None = None) -> Story:  # noqa: A001 - story.open reads as it should
    """Build what a notebook finds when it begins.

    Args:
        notebook: "01" to "05".
        name: names databases and streams; `cuaderno_` and the notebook by default. Two stories
            at a time need two names.
        servers: where; `stack()` by default.

    Raises:
        ConfigurationError: when there is no such notebook.
    """
    story = Story(_known(notebook), name=name, servers=servers)
    with story.staying():
        for earlier in _EARLIER[notebook]:
            _PLAYS[earlier](story)
    return story


def close(notebook: str, *, name: str | None = None, servers: Stack | None = None) -> Story:
    """Build what a notebook leaves behind, as `open` builds what it finds."""
    story = open(notebook, name=name, servers=servers)
    with story.staying():
        _PLAYS[notebook](story)
    return story


def _known(notebook: str) -> str:
    if notebook not in _PLAYS:
        raise ConfigurationError(
            f"la historia no tiene un cuaderno {notebook!r}: tiene {', '.join(_PLAYS)}"
        )
    return notebook


def _write(story: Story) -> None:
    """01: three orders are written; their requests wait in the outbox."""
    for order_id in ("ORD-1", "ORD-2", "ORD-3"):
        story.place(order_id)


def _travel(story: Story) -> None:
    """02: they travel, and an order that lost its event is recovered."""
    # The first of yesterday's two lines; the process died before the second.
    pr_de_ayer.save(story.orders, "ORD-4", CAST["ORD-4"].lines)
    story.recover()
    story.settle()


def _compensate(story: Story) -> None:
    """03: what failed is given back, what is paid is confirmed, and then inventory is away."""
    story.settle(also=choreography.service)  # ORD-3
    for order_id in ("ORD-8", "ORD-9"):
        story.check_out(order_id)
    story.settle()
    story.check_out("ORD-10")  # only now: ORD-9 has the last one
    story.settle()
    _fail_to_release(story, "ORD-6", deadlines=6)
    _fail_to_release(story, "ORD-7", deadlines=9)
    story.decide("retry", "ORD-7", why="el inventario ha vuelto")
    story.check_out("ORD-11")
    story.settle(without=inventory.service)
    story.pass_deadlines(5)
    story.settle()
    story.place("ORD-17")
    story.settle(without=inventory.service)


def _fail_to_release(story: Story, order_id: str, *, deadlines: int) -> None:
    """Pay in vain; give the stock back while inventory is away for so many deadlines."""
    story.decline(order_id)
    story.check_out(order_id)
    story.settle(without=payments.service)
    story.settle(without=inventory.service)
    story.pass_deadlines(deadlines)
    story.settle()


def _heal(story: Story) -> None:
    """04: inventory is back; a poisoned message is corrected and redriven."""
    story.place("ORD-18")
    story.poison("ORD-18")
    story.settle()
    story.cure()
    story.settle()


def _build_anew(story: Story) -> None:
    """05: the first four orders on databases of their own, and what 02 left undone."""
    for order_id in ("ORD-1", "ORD-2", "ORD-3", "ORD-4"):
        story.place(order_id)
    story.settle()
    story.settle(also=choreography.service)


_PLAYS: Mapping[str, Callable[[Story], None]] = {
    "01": _write,
    "02": _travel,
    "03": _compensate,
    "04": _heal,
    "05": _build_anew,
}
# 05 begins with the opening stock and no order.
_EARLIER: Mapping[str, tuple[str, ...]] = {
    "01": (),
    "02": ("01",),
    "03": ("01", "02"),
    "04": ("01", "02", "03"),
    "05": (),
}
