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

import logging
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.dead_letters import Wanted
from labkit.errors import ConfigurationError, LabkitError
from labkit.lab import story_books
from labkit.lab.bench import Bench
from labkit.lab.pr_de_ayer import code as pr_de_ayer
from labkit.lab.servers import Stack
from labkit.lab.story_card import Card
from labkit.lab.story_cast import CAST, LEDGER, QUESTIONS
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import ReserveStockRequested
from labkit.shop.order_book import reservation_id_of
from labkit.testing import processes


class OffScriptError(LabkitError):
    """The books do not say what the story tells."""


class Story(Bench):
    """The shop at one point of the story; see `open` and `close`.

    Args:
        notebook: which notebook it is for, such as "02".
        name: names databases and streams; `cuaderno_` and the notebook by default.
        servers: where; `stack()` by default.
    """

    def __init__(
        self, notebook: str, *, name: str | None = None, servers: Stack | None = None
    ) -> None:
        # Deaths and losses are the lesson: a warning for operators would land in somebody's cell.
        logging.getLogger("labkit").addHandler(logging.NullHandler())
        processes.prepare()
        self.notebook = notebook
        self.clock = FakeClock()
        super().__init__(name or f"cuaderno_{notebook}", servers=servers, clock=self.clock)
        for side, engine in (("fulfillment", self.orders), ("inventory", self.stock)):
            engine.update_execution_options(
                labkit_clock=self.clock, labkit_new_id=partial(_numbered, side, count(1))
            )

    def __repr__(self) -> str:
        return repr(self.ficha())

    def _repr_markdown_(self) -> str:
        return self.ficha()._repr_markdown_()

    def place(self, order_id: str, *lines: tuple[str, int]) -> str:
        """Place an order, with the lines that the story gives it unless you name others."""
        return super().place(order_id, *(lines or CAST[order_id].lines))

    def ficha(self) -> Card:
        """Return the ficha de estado: what the books say now."""
        found = story_books.read(self)
        done = not story_books.differences(LEDGER[self.notebook], found)
        question = QUESTIONS[self.notebook if done else _before(self.notebook)]
        return Card(self.notebook, found, story_books.lines_of(self), question)

    def check(self, notebook: str | None = None) -> Card:
        """Return the ficha when the books are those that the story has after a notebook.

        Args:
            notebook: which one; this story's own by default.

        Raises:
            OffScriptError: naming every difference.
        """
        notebook = notebook or self.notebook
        ficha = self.ficha()
        if said := story_books.differences(LEDGER[notebook], ficha.books):
            raise OffScriptError(
                f"Los libros no dicen lo que la historia cuenta tras el cuaderno {notebook}:\n"
                + "\n".join(f"· {each}" for each in said)
            )
        return ficha

    def without_event(self) -> list[str]:
        """Return the orders whose request for stock was never written: nobody will send it."""
        query = text("""
            select order_id from orders where not exists (
                select from outbox_messages as sent
                where sent.key = reservation_id and sent.topic = :topic)
            order by order_id
        """)
        with self.orders.connect() as connection:
            found = connection.execute(query, {"topic": ReserveStockRequested.topic})
            return list(found.scalars())

    def recover(self) -> list[str]:
        """Ask for the stock of every order without an event; return which orders those were."""
        lost = self.without_event()
        for order_id in lost:
            self._in_orders(fulfillment.ask_for_stock, order_id)
        return lost

    def release(self, order_id: str) -> None:
        """Ask inventory to give back what an order holds."""
        self._in_orders(fulfillment.ask_for_release, order_id)

    def confirm(self, order_id: str) -> None:
        """Confirm an order whose stock is set aside."""
        self._in_orders(fulfillment.confirm_order, order_id)

    def poison(self, order_id: str, sane: str = '"qty":2', poisoned: str = '"qty":"dos"') -> None:
        """Spoil the unpublished request of an order, as a careless writer would have."""
        table = fulfillment.service.outbox.table
        mine = table.c.key == reservation_id_of(order_id)
        with self.orders.begin() as connection:
            body = connection.execute(select(table.c.body).where(mine)).scalar_one()
            spoilt = update(table).where(mine).values(body=body.replace(sane, poisoned))
            connection.execute(spoilt)

    def cure(self, sane: str = '"qty":2', poisoned: str = '"qty":"dos"') -> int:
        """Correct inventory's dead letters and ask for them again; return how many."""
        held, letters = inventory.service.held.table, inventory.service.dead_letters
        wanted = Wanted(consumer=inventory.service.name)
        with self.stock.begin() as connection:
            found = letters.find(connection, wanted)
            for letter in found:
                body = letter.body.replace(poisoned.encode(), sane.encode())
                mine = held.c.position == letter.position
                connection.execute(update(held).where(mine).values(body=body))
            return len(letters.redrive_all(connection, wanted).flagged)

    def _in_orders(self, verb: Callable[[Session, str], object], order_id: str) -> None:
        with Session(self.orders) as session, session.begin():
            verb(session, order_id)


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
    for earlier in _EARLIER[notebook]:
        _PLAYS[earlier](story)
    return story


def close(notebook: str, *, name: str | None = None, servers: Stack | None = None) -> Story:
    """Build what a notebook leaves behind, as `open` builds what it finds."""
    story = open(notebook, name=name, servers=servers)
    _PLAYS[notebook](story)
    return story


def _known(notebook: str) -> str:
    if notebook not in _PLAYS:
        raise ConfigurationError(
            f"la historia no tiene un cuaderno {notebook!r}: tiene {', '.join(_PLAYS)}"
        )
    return notebook


def _before(notebook: str) -> str:
    return f"{int(notebook) - 1:02}"


def _numbered(side: str, numbers: count[int]) -> str:
    return f"{side}-{next(numbers)}"


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
    story.release("ORD-3")
    for order_id in ("ORD-6", "ORD-7", "ORD-8", "ORD-9", "ORD-11"):
        story.place(order_id)
    story.settle()
    story.place("ORD-10")  # only now: ORD-9 has the last one
    for order_id in ("ORD-6", "ORD-7", "ORD-11"):
        story.cancel(order_id)
    for order_id in ("ORD-8", "ORD-9"):
        story.confirm(order_id)
    story.settle()
    story.place("ORD-17")
    story.settle(without=inventory.service)


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
    story.release("ORD-3")
    story.settle()


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
