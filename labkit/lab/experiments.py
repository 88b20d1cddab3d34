"""Experiments: what the notebooks count, with processes that really die.

Those on the switchboard (`labkit.testing.antipatterns`) run on databases of their own, never on
the story's, and return counts under the words that the class uses.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine

from labkit.lab.bench import Bench
from labkit.lab.charts import Cell, bad, good
from labkit.lab.spanish import counted
from labkit.lab.tables import processes_line
from labkit.shop import fulfillment
from labkit.testing.antipatterns import Mishap, Outcome, cross, effects_of_one, run
from labkit.testing.findings import Kind
from labkit.transports.redis_streams import RedisStreams

SEED = 7
RIGHT = "correcto"
_DATABASES = "experimentos"
_WRONG: Mapping[Kind, str] = {"lost": "perdidos", "phantom": "inventados", "doubled": "repetidos"}


def fate_of_orders(variant: str, *, orders: int) -> dict[str, int]:
    """Place orders in one way while processes die; count what became of their events.

    Args:
        variant: one of the switchboard's.
        orders: how many are tried; some roll back, as orders do.

    Returns:
        How many events arrived, were lost and were invented.
    """
    outcome = run(variant, SEED, orders=orders, databases=_DATABASES)
    counts = outcome.counts
    return {"llegaron": outcome.right, "perdidos": counts["lost"], "inventados": counts["phantom"]}


def relay_process(bench: Bench, *, dies_in: str = "") -> str:
    """Let a relay publish what waits, in a process of its own; say what became of it.

    Args:
        bench: whose orders.
        dies_in: the crash point at which it is killed; by default it ends by itself.
    """
    before = _published(bench)
    faults = f"{dies_in}:kill:@1" if dies_in else ""
    code = bench.apart(bench.orders, relay_all, faults=faults)
    did = {"marcados": _published(bench) - before}
    return processes_line("relay", did, code, died_in=dies_in)


def relay_all(engine: Engine, transport: RedisStreams) -> None:
    """Be a relay until nothing waits; the next one under this name goes on without waiting."""
    relay = fulfillment.service.relay(engine, transport, owner="repetidor")
    while relay.run_once():
        pass
    relay.leases.release()


def effects(
    receivers: Mapping[str, str], mishaps: Mapping[str, Mishap]
) -> dict[str, dict[str, int]]:
    """Let each receiver handle one message under each mishap; count the effects.

    Args:
        receivers: label to variant.
        mishaps: label to mishap.

    Returns:
        Receiver's label, mishap's label, number of effects: one is right.
    """
    return {
        label: {
            mishap: effects_of_one(variant, kind, databases=_DATABASES)
            for mishap, kind in mishaps.items()
        }
        for label, variant in receivers.items()
    }


def crossed(senders: Mapping[str, str], receivers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Let every receiver read what every sender sent, processes dying on both sides.

    Args:
        senders: label to variant.
        receivers: label to variant.

    Returns:
        Sender's label, receiver's label, what was wrong; `RIGHT` when nothing was.
    """
    found = cross(list(senders.values()), list(receivers.values()), SEED, databases=_DATABASES)
    return {
        sender: {receiver: _verdict(found[one, other]) for receiver, other in receivers.items()}
        for sender, one in senders.items()
    }


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


def _verdict(outcome: Outcome) -> str:
    counts = outcome.counts
    wrong = [counted(counts[kind], word) for kind, word in _WRONG.items() if counts[kind]]
    return ", ".join(wrong) or RIGHT


def _published(bench: Bench) -> int:
    table = fulfillment.service.outbox.table.name
    marked = f"select seq from {table} where published_at is not null"
    return len(bench.table(bench.orders, marked))
