"""The shop of the story: the bench with the story's clock, cast and books.

Guarantee: clock and message ids are the same in every run; `check` refuses books that do not say
what the story tells.
Not guaranteed: what processes started beside it (`apart`) write: they have the machine's time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.errors import LabkitError
from labkit.lab import poisoned as poisoned_, story_books
from labkit.lab.bench import Bench
from labkit.lab.servers import Stack
from labkit.lab.story_card import Card
from labkit.lab.story_cast import CAST, LEDGER, QUESTIONS
from labkit.saga.operations import Operations
from labkit.shop import checkout, fulfillment, payments
from labkit.shop.contracts import ReserveStockRequested
from labkit.shop.order_book import reservation_id_of
from labkit.shop.provider import Fault, SimulatedProvider
from labkit.testing import processes

# Who works beside fulfillment once there is a checkout.
_CHECKOUT = (checkout.service, payments.service)
PRICE_CENTS = 3000


class OffScriptError(LabkitError):
    """The books do not say what the story tells."""


class Story(Bench):
    """The shop at one point of the story; see `open` and `close`.

    Args:
        notebook: which notebook it is for, such as "02".
        name: names databases and streams; `cuaderno_` and the notebook by default.
        servers: where; `stack()` by default.
        options: passed to `Bench`, such as `sides`.
    """

    def __init__(
        self,
        notebook: str,
        *,
        name: str | None = None,
        servers: Stack | None = None,
        **options: Any,
    ) -> None:
        # Deaths and losses are the lesson: a warning for operators would land in somebody's cell.
        logging.getLogger("labkit").addHandler(logging.NullHandler())
        processes.prepare()
        self.notebook = notebook
        self.clock = FakeClock()
        super().__init__(
            name or f"cuaderno_{notebook}",
            servers=servers,
            beside=_CHECKOUT if notebook in {"03", "04"} else (),
            clock=self.clock,
            **options,
        )
        for side, engine in (("fulfillment", self.orders), ("inventory", self.stock)):
            engine.update_execution_options(
                labkit_clock=self.clock, labkit_new_id=partial(_numbered, side, count(1))
            )
        self.provider = SimulatedProvider(self.orders)

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

    def check_out(self, order_id: str) -> str:
        """Begin the checkout of an order with its lines; return its saga's id."""
        lines = CAST[order_id].lines
        amount_cents = PRICE_CENTS * sum(qty for _, qty in lines)
        with Session(self.orders) as session, session.begin():
            return checkout.check_out(session, order_id, lines, amount_cents=amount_cents)

    def decline(self, order_id: str) -> None:
        """Let the payment provider say no to an order."""
        self.provider.switch_on(Fault.DECLINE, order_id)

    def pass_deadlines(self, count: int) -> None:
        """Move the clock from one deadline of a saga to the next, so many times.

        Each wakes its saga. What that asks for leaves with the next `settle`.
        """
        deadlines = checkout.sagas.deadlines(self.orders, self.transport)
        due = select(func.min(checkout.sagas.store.table.c.due_at))
        for _ in range(count):
            with self.orders.connect() as connection:
                until = connection.execute(due).scalar_one()
            self.clock.advance(max(0.0, (until - self.clock.now()).total_seconds()))
            deadlines.run_once()

    def decide(self, verb: str, order_id: str, *, why: str) -> None:
        """Do what an operator does about a saga: `retry`, `skip`, `compensate` or `cancel`."""
        act = getattr(Operations(checkout.sagas), verb)
        with Session(self.orders) as session, session.begin():
            act(session, reservation_id_of(order_id), who="operador", why=why)

    def poison(self, order_id: str, sane: str = '"qty":2', poisoned: str = '"qty":"dos"') -> None:
        """Spoil the unpublished request of an order, as a careless writer would have."""
        poisoned_.poison(self, order_id, sane, poisoned)

    def cure(self, sane: str = '"qty":2', poisoned: str = '"qty":"dos"') -> int:
        """Correct inventory's dead letters and ask for them again; return how many."""
        return poisoned_.cure(self, sane, poisoned)

    def _in_orders(self, verb: Callable[[Session, str], object], order_id: str) -> None:
        with Session(self.orders) as session, session.begin():
            verb(session, order_id)


def _before(notebook: str) -> str:
    return f"{int(notebook) - 1:02}"


def _numbered(side: str, numbers: count[int]) -> str:
    return f"{side}-{next(numbers)}"
