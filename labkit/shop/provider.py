"""A payment provider: the port, and a simulated company behind it.

The company has books of its own, which it commits by itself, so its answer and our transaction can
part ways as with any real one: the charge is there and the answer is lost. What helps is the
idempotency key: whoever asks again with the same key gets the first answer, and is charged once.

Guarantee: one key, one charge at most, whoever asks how often, also two at once; what was voided is
never charged again, also when the void overtook the charge. A key that comes back for another
payment is refused: it would be answered with what became of the first.
Not guaranteed: that it answers. Its faults are rows of a table, so that every process meets them.

Source: the idempotency keys of payment interfaces such as Stripe's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple, Protocol

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, TimeoutError as NoConnectionError

from labkit.errors import PermanentError, TransientError

CHARGED, DECLINED, VOIDED = "CHARGED", "DECLINED", "VOIDED"
BOOKS = MetaData()
_charges = Table(
    "provider_charges",
    BOOKS,
    Column("key", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("amount_cents", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("requests", Integer, nullable=False),
)
_faults = Table(
    "provider_faults",
    BOOKS,
    Column("fault", Text, primary_key=True),
    Column("order_id", Text, primary_key=True),
    Column("times_left", Integer, nullable=False),
)


class ProviderAwayError(TransientError):
    """The provider did not answer: whether it charged is unknown; ask again with the same key."""


class KeyReusedError(PermanentError):
    """An idempotency key came back for another order or amount: whoever makes the keys is wrong."""


class Fault(StrEnum):
    """What can go wrong: it says no, is not there, or charges and its answer is lost."""

    DECLINE = "decline"
    DOWN = "down"
    LOSE_ANSWER = "lose_answer"


class Charge(NamedTuple):
    """A line of the provider's books; `requests` counts how often its key was asked for."""

    key: str
    order_id: str
    amount_cents: int
    state: str
    requests: int


class PaymentProvider(Protocol):
    """What we need of a provider."""

    def authorize(self, key: str, order_id: str, amount_cents: int) -> bool:
        """Charge, unless this key was charged before.

        Args:
            key: the idempotency key; the same for all attempts of one payment.
            order_id: what is paid.
            amount_cents: how much, in cents.

        Returns:
            Whether it is charged; False is the provider's no.

        Raises:
            ProviderAwayError: when the answer did not come.
            KeyReusedError: when the key is known for another payment.
        """
        ...

    def void(self, key: str, order_id: str, amount_cents: int) -> None:
        """Take a charge back, or see to it that it never happens; arguments as in `authorize`.

        Raises:
            ProviderAwayError: when the answer did not come.
            KeyReusedError: when the key is known for another payment.
        """
        ...


class SimulatedProvider:
    """The company, with its books in a database of your choice.

    Args:
        engine: where its books are; its transactions are its own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def switch_on(self, fault: Fault, order_id: str, times: int = 1_000_000) -> None:
        """Let something go wrong for an order, so many times."""
        row = {"fault": fault, "order_id": order_id, "times_left": times}
        new = insert(_faults).values(row)
        again = new.on_conflict_do_update(
            index_elements=["fault", "order_id"], set_={"times_left": times}
        )
        with self._engine.begin() as connection:
            connection.execute(again)

    def authorize(self, key: str, order_id: str, amount_cents: int) -> bool:
        """Charge, unless this key was charged before; see `PaymentProvider`."""
        with self._open() as connection:
            self._be_away(connection, order_id)
            says_no = self._meets(connection, Fault.DECLINE, order_id)
            state = DECLINED if says_no else CHARGED
            charged = self._note(connection, Charge(key, order_id, amount_cents, state, 1))
            lost = self._meets(connection, Fault.LOSE_ANSWER, order_id)
        if lost:
            raise ProviderAwayError("the connection broke before the answer came")
        return charged == CHARGED

    def void(self, key: str, order_id: str, amount_cents: int) -> None:
        """Take a charge back, or see to it that it never happens; see `PaymentProvider`."""
        with self._open() as connection:
            self._be_away(connection, order_id)
            self._note(connection, Charge(key, order_id, amount_cents, VOIDED, 1))
            mine = (_charges.c.key == key) & (_charges.c.state == CHARGED)
            connection.execute(update(_charges).where(mine).values(state=VOIDED))

    def charges(self) -> list[Charge]:
        """Return its books, by key."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_charges).order_by(_charges.c.key))
            return [Charge(*row) for row in rows]

    def _note(self, connection: Connection, charge: Charge) -> str:
        """Write a charge down unless its key is known; return the state that it has now."""
        new = insert(_charges).values(charge._asdict())
        counted = new.on_conflict_do_update(
            index_elements=["key"],
            set_={"requests": _charges.c.requests + 1},
            where=(_charges.c.order_id == charge.order_id)
            & (_charges.c.amount_cents == charge.amount_cents),
        )
        state: str | None = connection.execute(counted.returning(_charges.c.state)).scalar()
        if state is None:
            raise KeyReusedError(f"{charge.key} was used for another payment: give each its own")
        return state

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        """Open its books: whatever hinders it there is, from outside, a company that is away."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (DBAPIError, NoConnectionError) as error:
            raise ProviderAwayError("the provider does not answer") from error

    def _be_away(self, connection: Connection, order_id: str) -> None:
        if self._meets(connection, Fault.DOWN, order_id):
            # Committed before it is raised: an outage that is met is one less that is left.
            connection.commit()
            raise ProviderAwayError("the provider is not there")

    def _meets(self, connection: Connection, fault: Fault, order_id: str) -> bool:
        mine = (_faults.c.fault == fault) & (_faults.c.order_id == order_id)
        left = update(_faults).where(mine, _faults.c.times_left > 0)
        fewer = left.values(times_left=_faults.c.times_left - 1).returning(_faults.c.fault)
        return connection.execute(fewer).scalar() is not None
