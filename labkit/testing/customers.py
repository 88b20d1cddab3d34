"""Customers: they place and cancel orders without a pause, whatever happens to the servers.

Each of them does what the documentation asks of a client. An error that says "not committed" is
tried again. Where the answer to COMMIT was lost nobody knows, so the customer looks for the order
before placing it again. Cancelling is idempotent and needs no look.

Guarantee: `placed` and `cancelled` hold exactly what the customers were told; at the end nothing
is in doubt.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from labkit.errors import CommitUnknownError
from labkit.shop import fulfillment
from labkit.shop.order_book import OrderError

_PAUSE_S = 0.1
_BETWEEN_S = (0.05, 0.15)
_CANCELLED_SHARE = 0.25
_LATE_CANCEL_SHARE = 0.5
Lines = list[tuple[str, int]]


@dataclass
class Customers:
    """Some threads that order.

    Args:
        engine: the orders' database.
        seed: what they order.
        number: how many there are.
    """

    engine: Engine
    seed: int
    number: int = 4
    placed: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    retried: int = 0
    doubts: int = 0

    def __post_init__(self) -> None:
        """Nobody orders yet."""
        self._no_more = threading.Event()
        self._given_up = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._body, args=(place,), daemon=True)
            for place in range(self.number)
        ]

    def start(self) -> None:
        """Let them begin."""
        for thread in self._threads:
            thread.start()

    def finish(self, within_s: float) -> None:
        """Let each finish what it began; then all know what became of their orders.

        Args:
            within_s: how long that may take, in seconds.

        Raises:
            BaseException: the first error that a customer did not expect.
            TimeoutError: when the database does not answer.
        """
        self._no_more.set()
        for thread in self._threads:
            thread.join(within_s)
        self._given_up.set()
        if self._errors:
            raise self._errors[0]
        if any(thread.is_alive() for thread in self._threads):
            raise TimeoutError(f"a customer still waits for the database after {within_s:.0f} s")

    def _body(self, place: int) -> None:
        rng, waiting, count = random.Random(f"{self.seed} {place}"), list[str](), 0
        try:
            while not self._no_more.wait(rng.uniform(*_BETWEEN_S)):
                count += 1
                order_id = f"ORD-{place}-{count}"
                self._place(order_id, _some_lines(rng))
                if rng.random() < _CANCELLED_SHARE:
                    # At once, when the request may still be under way, or later.
                    waiting.append(order_id)
                    late = len(waiting) > 1 and rng.random() < _LATE_CANCEL_SHARE
                    self._cancel(waiting.pop(0 if late else -1))
        except BaseException as error:  # noqa: BLE001 - the run must hear of it
            self._errors.append(error)

    def _place(self, order_id: str, lines: Lines) -> None:
        def attempt() -> None:
            with Session(self.engine) as session, session.begin():
                fulfillment.place_order(session, order_id, lines)

        if self._insist(attempt, done=lambda: self._exists(order_id)):
            self.placed.add(order_id)

    def _cancel(self, order_id: str) -> None:
        def attempt() -> None:
            with Session(self.engine) as session, session.begin():
                fulfillment.cancel_order(session, order_id)

        if self._insist(attempt, done=lambda: False):
            self.cancelled.add(order_id)

    def _insist(self, attempt: Callable[[], None], done: Callable[[], bool]) -> bool:
        """Try until it happened; after an answer that was lost, look whether it did."""
        in_doubt = False
        while not self._given_up.is_set():
            try:
                if not (in_doubt and done()):
                    attempt()
            except CommitUnknownError:
                self.doubts += 1
                in_doubt = True
            except DBAPIError:
                self.retried += 1
            except OrderError:
                # It went through after we had looked. Without a doubt it would be a lie.
                if in_doubt:
                    return True
                raise
            else:
                return True
            self._given_up.wait(_PAUSE_S)
        return False

    def _exists(self, order_id: str) -> bool:
        query = select(fulfillment.orders.c.order_id).where(
            fulfillment.orders.c.order_id == order_id
        )
        with Session(self.engine) as session:
            return session.execute(query).scalar() is not None


def _some_lines(rng: random.Random) -> Lines:
    skus = rng.sample(["BOOK-DDD", "BOOK-HEX", "BOOK-EDA"], rng.choice([1, 1, 2, 3]))
    return [(sku, rng.choice([1, 1, 2])) for sku in skus]
