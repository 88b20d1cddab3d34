"""Experiments: what the notebooks count, with processes that really die.

Those on the switchboard (`labkit.testing.antipatterns`) run on databases of their own, never on
the story's, and return counts under the words that the class uses.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, insert

from labkit.errors import LabkitError
from labkit.lab.bench import Bench
from labkit.lab.charts import Cell, bad, good
from labkit.lab.observations import requests
from labkit.lab.relaying import relay_all
from labkit.lab.spanish import counted
from labkit.lab.tables import processes_line
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT, StockReserved
from labkit.testing.antipatterns import Mishap, Outcome, cross, effects_of_one, run
from labkit.testing.findings import Kind

Found = TypeVar("Found")

SEED = 7
RIGHT = "correcto"
# The switchboard's variants under the names that the class uses.
TWO_WRITES = {"confirmar y publicar": "dual_write", "publicar y confirmar": "publish_before_commit"}
SENDERS = TWO_WRITES | {"bandeja de salida": "labkit"}
NOTERS = {
    "anota antes": "inbox_before_effect",
    "anota después": "inbox_after_effect",
    "en la misma transacción": "labkit",
}
RECEIVERS = {
    "sin anotar": "no_inbox",
    "anota antes": "inbox_before_effect",
    "en la misma transacción": "labkit",
}
RELAYS = {"con cursor": "cursor_relay", "sin dueño": "unfenced_relays", "labkit": "labkit"}
MISHAPS: Mapping[str, Mishap] = {"caída": "crash", "repetición": "repeat"}
# What this process has measured: a variant under one seed gives the same again.
_fates: dict[tuple[str, int], dict[str, int]] = {}
_DATABASES = "experimentos"
_WRONG: Mapping[Kind, str] = {"lost": "perdidos", "phantom": "inventados", "doubled": "repetidos"}


def fates_of_orders(senders: Mapping[str, str], *, orders: int) -> dict[str, dict[str, int]]:
    """Place orders in each way while processes die; count what became of their events.

    No relay is frozen here, which would take a second each: `order_of_relays` does that.

    Args:
        senders: label to variant; each is measured once in this process.
        orders: how many are tried; some roll back, as orders do.

    Returns:
        Label; how many events arrived, were lost and were invented.
    """

    def fate(variant: str, databases: str) -> dict[str, int]:
        if (variant, orders) not in _fates:
            outcome = run(variant, SEED, orders=orders, freeze=False, databases=databases)
            lost, invented = outcome.counts["lost"], outcome.counts["phantom"]
            counts = {"llegaron": outcome.right, "perdidos": lost, "inventados": invented}
            _fates[variant, orders] = counts
        return _fates[variant, orders]

    return _side_by_side(fate, senders)


def order_of_relays(relays: Mapping[str, str] = RELAYS) -> dict[str, dict[str, int]]:
    """Let transactions commit late and relays die and freeze; count what became of the order.

    Args:
        relays: label to variant.

    Returns:
        Label; how many events came in order, too late, or never.
    """

    def order(variant: str, databases: str) -> dict[str, int]:
        outcome = run(variant, SEED, databases=databases)
        late, lost = outcome.counts["reordered"], outcome.counts["lost"]
        return {"en orden": outcome.right, "perdidos": lost, "desordenados": late}

    return _side_by_side(order, relays)


def two_handlers(first: Connection, second: Connection, reservation_id: str) -> None:
    """The first handler reserves and answers; in between, the second fails and rolls back."""
    take_one(first, reservation_id)
    second.rollback()  # the second handler undoes what it takes for its own work
    answer = StockReserved(reservation_id=reservation_id, sku="BOOK-DDD", qty=1)
    inventory.service.outbox.add(first, answer, key=reservation_id)
    first.commit()


def take_one(connection: Connection, reservation_id: str) -> None:
    """Set one copy aside."""
    line = {"reservation_id": reservation_id, "sku": "BOOK-DDD", "qty": 1, "state": inventory.HELD}
    connection.execute(insert(inventory.reservations).values(line))


def send_again(bench: Bench, reservation_id: str, *, qty: int) -> None:
    """Publish a request again as a broken sender would: the same id, another quantity.

    Args:
        bench: where.
        reservation_id: which; it was published before.
        qty: of its only line.
    """
    (sent,) = requests(bench, reservation_id)
    changed = re.sub(rb'"qty":\d+', f'"qty":{qty}'.encode(), sent.body)
    partition = FULFILLMENT.partition_of(reservation_id)
    client: Any = bench.transport.client
    client.xadd(bench.transport.stream_key(FULFILLMENT, partition), {"body": changed})


def relay_process(bench: Bench, *, dies_in: str = "") -> str:
    """Let a relay publish what waits, in a process of its own; say what became of it.

    Args:
        bench: whose orders.
        dies_in: the crash point at which it is killed; by default it ends by itself.
    """
    published, marked = len(requests(bench)), _marked(bench)
    faults = f"{dies_in}:kill:@1" if dies_in else ""
    code = bench.apart(bench.orders, relay_all, faults=faults)
    if (code == -signal.SIGKILL) != bool(dies_in):
        raise LabkitError(f"the relay ended with {code}; is {dies_in!r} a crash point?")
    did = {
        "publicados": len(requests(bench)) - published,
        "marcados": _marked(bench) - marked,
    }
    return processes_line("relay", did, code, died_in=dies_in)


def effects(
    receivers: Mapping[str, str] = NOTERS, mishaps: Mapping[str, Mishap] = MISHAPS
) -> dict[str, dict[str, int]]:
    """Let each receiver handle one message under each mishap; count the effects.

    Args:
        receivers: label to variant.
        mishaps: label to mishap.

    Returns:
        Receiver's label, mishap's label, number of effects: one is right.
    """

    def effect(variant: str, databases: str) -> dict[str, int]:
        return {
            mishap: effects_of_one(variant, kind, databases=databases)
            for mishap, kind in mishaps.items()
        }

    return _side_by_side(effect, receivers)


def crossed(
    senders: Mapping[str, str] = SENDERS, receivers: Mapping[str, str] = RECEIVERS
) -> dict[str, dict[str, str]]:
    """Let every receiver read what every sender sent, processes dying on both sides.

    As in `fates_of_orders`, no relay is frozen.

    Args:
        senders: label to variant.
        receivers: label to variant.

    Returns:
        Sender's label, receiver's label, what was wrong; `RIGHT` when nothing was.
    """

    def verdicts(sender: str, databases: str) -> dict[str, str]:
        names = list(receivers.values())
        found = cross([sender], names, SEED, freeze=False, databases=databases)
        return {label: _verdict(found[sender, name]) for label, name in receivers.items()}

    return _side_by_side(verdicts, senders)


def right_pairs(verdicts: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of sender and receiver of which nothing was wrong.

    Args:
        verdicts: from `crossed`.
    """
    return [(one, other) for one, row in verdicts.items() for other in row if row[other] == RIGHT]


def cells_of_effects(found: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Cell]]:
    """Return the effects of `effects` as cells of a matrix: one effect is right.

    Args:
        found: from `effects`.
    """
    words = {0: "perdido", 1: "correcto"}
    return {
        name: {
            mishap: (good if times == 1 else bad)(
                f"{counted(times, 'efectos')}: {words.get(times, 'repetido')}"
            )
            for mishap, times in row.items()
        }
        for name, row in found.items()
    }


def cells_of_verdicts(verdicts: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Cell]]:
    """Return the verdicts of `crossed` as cells of a matrix.

    Args:
        verdicts: from `crossed`.
    """
    return {
        sender: {name: (good if said == RIGHT else bad)(said) for name, said in row.items()}
        for sender, row in verdicts.items()
    }


def _side_by_side(one: Callable[[str, str], Found], ways: Mapping[str, str]) -> dict[str, Found]:
    """Call `one` with each variant and databases of its own; all at a time, since they wait."""
    names = [f"{_DATABASES}_{n}" for n in range(len(ways))]
    with ThreadPoolExecutor(max_workers=len(ways)) as pool:
        return dict(zip(ways, pool.map(one, ways.values(), names), strict=True))


def _verdict(outcome: Outcome) -> str:
    counts = outcome.counts
    wrong = [counted(counts[kind], word) for kind, word in _WRONG.items() if counts[kind]]
    return ", ".join(wrong) or RIGHT


def _marked(bench: Bench) -> int:
    table = fulfillment.service.outbox.table.name
    marked = f"select seq from {table} where published_at is not null"
    return len(bench.table(bench.orders, marked))
