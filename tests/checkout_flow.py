"""The checkout as four worker processes, and what they leave in the books."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable
from multiprocessing.context import ForkServerProcess

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from labkit.saga import COMPENSATED, COMPLETED
from labkit.shop import checkout, fulfillment, inventory
from labkit.shop.provider import CHARGED, Fault, SimulatedProvider
from tests.crash.conftest import PATIENCE_S, Crew, until

PROCESSES = ("fulfillment", "inventory", "payments", "checkout")
PLENTY, NONE = "BOOK-DDD", "BOOK-EDA"
CENTS = 2990
_A_TRANSACTION = 50
# Which compensations a checkout needs, in the order in which they must come.
UNDONE = {
    "paid": [],
    "declined": ["create_order/undo", "reserve_stock/undo"],
    "short": ["reserve_stock/undo"],
}


class Floor:
    """Both databases, and a process per service, each restarted under its own name.

    Args:
        crew: starts processes.
        opening: pieces of `PLENTY`; there are none of `NONE`.
    """

    def __init__(self, crew: Crew, opening: int) -> None:
        self.crew, self.opening = crew, opening
        # Who is restarted under its name need not wait for it to end, and a batch of payments must
        # fit into it on a busy machine.
        crew.lease_s = PATIENCE_S
        self.orders, self.stock = crew.engine("fulfillment"), crew.engine("inventory")
        fulfillment.service.create_tables(self.orders)
        inventory.service.create_tables(self.stock)
        inventory.stock_up(self.stock, {PLENTY: opening, NONE: 0})
        self.provider = SimulatedProvider(self.orders)
        self.running: dict[str, ForkServerProcess] = {}

    def close(self) -> None:
        self.orders.dispose()
        self.stock.dispose()

    # --- processes ---

    def start(self, *names: str, role: str = "all", faults: str = "") -> None:
        for name in names:
            path = f"labkit.shop.{name}:service"
            self.running[name] = self.crew.start(path, role, faults, name=name)

    def drain(self, name: str) -> None:
        """Let a process finish what it has in hand, and end."""
        self.running[name].terminate()
        self.running[name].join(PATIENCE_S)
        assert self.running.pop(name).exitcode == 0

    def kill(self, *names: str) -> None:
        victims = [self.running.pop(name) for name in names]
        for victim in victims:
            self.crew.send(victim, signal.SIGKILL)
        for victim in victims:
            victim.join(PATIENCE_S)
        assert [victim.exitcode for victim in victims] == [-signal.SIGKILL] * len(victims)

    def wait_for_death(self, name: str) -> None:
        victim = self.running.pop(name)
        until(lambda: victim.exitcode is not None, f"{name} is killed")
        assert victim.exitcode == -signal.SIGKILL

    # --- what is asked for ---

    def check_out(self, fates: Iterable[str]) -> dict[str, str]:
        """Begin a checkout for each fate, a key of `UNDONE`; return the fates by saga."""
        numbered = list(enumerate(fates))
        for number, fate in numbered:
            if fate == "declined":
                self.provider.switch_on(Fault.DECLINE, f"ORD-{number}")
        for first in range(0, len(numbered), _A_TRANSACTION):
            with Session(self.orders) as session, session.begin():
                for number, fate in numbered[first : first + _A_TRANSACTION]:
                    lines = [(PLENTY, 1)] + ([(NONE, 1)] if fate == "short" else [])
                    checkout.check_out(session, f"ORD-{number}", lines, amount_cents=CENTS)
        return {f"RES-{number}": fate for number, fate in numbered}

    # --- what became of it ---

    def statuses(self) -> dict[str, str]:
        table = checkout.sagas.store.table
        with self.orders.connect() as connection:
            return dict(map(tuple, connection.execute(select(table.c.id, table.c.status))))

    def ended(self) -> int:
        table = checkout.sagas.store.table
        over = table.c.status.in_([COMPLETED, COMPENSATED])
        with self.orders.connect() as connection:
            return connection.execute(select(func.count()).where(over)).scalar_one()

    def steps(self) -> Counter[str]:
        """Count the sagas by the step in hand, as `status step`."""
        table = checkout.sagas.store.table
        query = select(table.c.status + " " + table.c.step)
        with self.orders.connect() as connection:
            return Counter(connection.execute(query).scalars())

    def history(self) -> dict[str, list[tuple[str, str]]]:
        """Return what happened to each saga, and in which step."""
        lines = checkout.sagas.store.history.c
        query = select(lines.id, lines.what, lines.step).order_by(lines.seq)
        found: dict[str, list[tuple[str, str]]] = {}
        with self.orders.connect() as connection:
            for saga_id, what, step in connection.execute(query):
                found.setdefault(saga_id, []).append((what, step))
        return found

    def undone(self) -> dict[str, list[str]]:
        """Return for each saga the compensations that were applied, in order."""
        return {saga_id: _undone(lines) for saga_id, lines in self.history().items()}

    def published(self, service: str, topic: str) -> int:
        """Return how many events of a topic have left a service."""
        engine = self.stock if service == "inventory" else self.orders
        table = fulfillment.service.outbox.table
        gone = (table.c.topic == topic) & table.c.published_at.is_not(None)
        with engine.connect() as connection:
            return connection.execute(select(func.count()).where(gone)).scalar_one()

    def check(self, fates: dict[str, str]) -> None:
        """Check that each saga met its fate, once, and that all books agree."""
        paid = {saga_id for saga_id, fate in fates.items() if fate == "paid"}
        ends = {each: COMPLETED if each in paid else COMPENSATED for each in fates}
        assert self.statuses() == ends
        wanted = {saga_id: UNDONE[fate] for saga_id, fate in fates.items()}
        undone = self.undone()
        assert {each: undone[each] for each in fates if undone[each] != wanted[each]} == {}
        assert self._stock() == [(NONE, 0, 0), (PLENTY, self.opening - len(paid), len(paid))]
        assert self._reserved() == dict.fromkeys(paid, 1)
        charged = [each.order_id for each in self.provider.charges() if each.state == CHARGED]
        assert sorted(charged) == sorted(each.replace("RES", "ORD") for each in paid)

    def _stock(self) -> list[tuple[str, int, int]]:
        query = text("select sku, available, held from stock order by sku desc")
        with self.stock.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _reserved(self) -> dict[str, int]:
        """Return how many pieces each reservation holds."""
        query = text("""select reservation_id, sum(qty) from reservation_lines
                        where state = 'HELD' group by reservation_id""")
        with self.stock.connect() as connection:
            return dict(map(tuple, connection.execute(query)))


def _undone(lines: list[tuple[str, str]]) -> list[str]:
    done = [step for what, step in lines if step.endswith("/undo") and what in {"ran", "answered"}]
    # On a machine so busy that a request is repeated, the second yes may come when the release is
    # in hand; then it is asked for once more, see `labkit.saga.replies`. The books tell the rest.
    is_repeated = any(what == "late success" for what, _ in lines)
    return list(dict.fromkeys(done)) if is_repeated else done
