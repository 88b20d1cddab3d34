"""Crash matrix: a real process dies in each crash window, under each message of a checkout's saga.

Every cell is an order of its own whose payment is declined, so that its saga goes there and back:
six messages. The bench carries them one by one; when it is the turn of a cell's message, a worker
process takes it up and is killed there by SIGKILL, and a new worker of the same name goes on.

Guarantee: a cell exists only when the process died with that message in hand, which the books must
say (`labkit.lab.crash_books`); otherwise it is an error.
Not guaranteed: other windows than these five; `make chaos` kills at random.

Crash windows: those of `labkit.relay` and `labkit.consumer`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, product
from typing import NamedTuple

from matplotlib.figure import Figure
from sqlalchemy.orm import Session

from labkit.consumer import Consumer
from labkit.errors import LabkitError
from labkit.lab import charts_heat
from labkit.lab.bench import Bench
from labkit.lab.crash_books import JOURNEY, SKU, Facts, Hop, engine_of, facts, wrong_with
from labkit.lab.spanish import number
from labkit.lab.working import SERVICES, work_as
from labkit.ports import Stream
from labkit.service import Role, Worker
from labkit.shop import checkout
from labkit.shop.provider import Fault, SimulatedProvider

CENTS = 3000
_AT_A_TIME = 2  # mostly they wait for processes and for the disk
_OWNER = "turno"  # whoever works under it takes the place of who was killed


# The windows in the order in which a message passes them, and how a figure names them.
POINTS: Mapping[str, tuple[str, ...]] = {
    "relay.after_claim": ("tomado,", "sin", "publicar"),
    "relay.after_publish": ("publicado,", "sin", "marcar"),
    "relay.after_mark": ("marcado", "como", "publicado"),
    "consumer.before_commit": ("atendido,", "sin", "confirmar"),
    "consumer.after_commit": ("confirmado,", "sin", "acuse"),
}


# What a death in a window leaves behind; anything else was another death.
_LEFT = {
    "relay.after_claim": Facts(0, 0, 0, 0),
    "relay.after_publish": Facts(1, 0, 0, 0),
    "relay.after_mark": Facts(1, 1, 0, 0),
    "consumer.before_commit": Facts(1, 1, 0, 1),
    "consumer.after_commit": Facts(1, 1, 1, 1),
}


class Death(NamedTuple):
    """What one death led to.

    `wrong` names what is not as it should be; `delivered` counts how often the message reached its
    consumer.
    """

    order_id: str
    message: str
    point: str
    wrong: tuple[str, ...]
    delivered: int


def deaths(
    bench: Bench, journey: Sequence[Hop] = JOURNEY, points: Sequence[str] = tuple(POINTS)
) -> list[Death]:
    """Let a process die in each window of each message, on databases of their own.

    Args:
        bench: one with the checkout beside fulfillment; it lends its name, and is not touched.
        journey: the messages.
        points: the windows.

    Raises:
        LabkitError: when a process ended otherwise, or elsewhere.
    """
    cells = [(f"ORD-{n}", *cell) for n, cell in enumerate(product(journey, points), 1)]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        shares = [cells[n::_AT_A_TIME] for n in range(_AT_A_TIME)]
        names = [f"{bench.name}_caidas_{n}" for n in range(_AT_A_TIME)]
        found = chain(*pool.map(partial(_deaths, bench), names, shares))
    return sorted(found, key=lambda death: int(death.order_id.removeprefix("ORD-")))


def _deaths(bench: Bench, name: str, cells: Sequence[tuple[str, Hop, str]]) -> list[Death]:
    made = Bench(name, servers=bench.servers, beside=bench.beside)
    try:
        floor = _Floor(made)
        return [floor.kill(*cell) for cell in cells]
    finally:
        made.close()


def heat_map(found: Sequence[Death], *, title: str) -> Figure:
    """Draw for each message and window whether its saga ended well, and how often it came.

    Args:
        found: from `deaths`.
        title: what the figure shows.
    """
    rows = {each.message: [d for d in found if d.message == each.message] for each in found}
    cases = [POINTS[each.point] for each in next(iter(rows.values()))]
    return charts_heat.heat_map(
        {message: [not each.wrong for each in row] for message, row in rows.items()},
        cases,
        title=title,
        head="el proceso muere con el mensaje",
        notes={message: [f"×{each.delivered}" for each in row] for message, row in rows.items()},
    )


def reading(found: Sequence[Death]) -> str:
    """Read how many ended well, and how many messages came more than once.

    Args:
        found: from `deaths`.
    """
    right = sum(not each.wrong for each in found)
    wrong = sorted({what for each in found for what in each.wrong})
    again = sum(each.delivered > 1 for each in found)
    said = f"mal: {', '.join(wrong)}" if wrong else "nada se pierde ni ocurre dos veces"
    return (
        f"{number(len(found))} procesos muertos, {number(right)} sagas bien acabadas; "
        f"{number(again)} mensajes llegaron más de una vez; {said}."
    )


class _Floor:
    """A bench whose workers are started one by one, and restarted where a process died."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._provider = SimulatedProvider(bench.orders)
        self._crews: dict[tuple[str, Role], list[Worker]] = {}

    def kill(self, order_id: str, fatal: Hop, point: str) -> Death:
        """Carry an order's messages; let a process die in a window of one of them."""
        self._check_out(order_id)
        unacknowledged = 0
        for hop in JOURNEY:
            if hop is fatal:
                unacknowledged = self._die(order_id, hop, point)
            self._carry(hop)
        published = facts(self._bench, order_id, fatal).published
        wrong = tuple(wrong_with(self._bench, order_id))
        return Death(order_id, fatal.event.event_type, point, wrong, published + unacknowledged)

    def _check_out(self, order_id: str) -> None:
        self._provider.switch_on(Fault.DECLINE, order_id)
        with Session(self._bench.orders) as session, session.begin():
            checkout.check_out(session, order_id, [(SKU, 1)], amount_cents=CENTS)

    def _carry(self, hop: Hop) -> None:
        self._work(hop.sender, "relay")
        self._work(hop.receiver, "consumer", SERVICES[hop.sender].stream)

    def _work(self, name: str, role: Role, source: Stream | None = None) -> None:
        """Let workers work once, consumers of one source or of all; new ones after a death."""
        if (name, role) not in self._crews:
            engine, transport = engine_of(self._bench, name), self._bench.transport
            workers = SERVICES[name].workers(role, engine, transport, owner=_OWNER)
            self._crews[name, role] = workers
        for worker in self._crews[name, role]:
            # Why not always all: a pass over the eight partitions of a stream takes its time.
            if source is None or (isinstance(worker, Consumer) and worker.stream == source):
                worker.run_once()

    def _die(self, order_id: str, hop: Hop, point: str) -> int:
        """Kill whoever has the message in hand; return how many were read and not acknowledged."""
        name, role = _victim(hop, point)
        # So that the message is all that the victim finds.
        self._work(hop.receiver, "consumer")
        if role == "consumer":
            self._work(hop.sender, "relay")
        engine, faults = engine_of(self._bench, name), f"{point}:kill:@1"
        code = self._bench.apart(engine, work_as, name, role, _OWNER, faults=faults)
        left = facts(self._bench, order_id, hop)
        if (code, left) != (-signal.SIGKILL, _LEFT[point]):
            raise LabkitError(f"{order_id}, {hop.event.event_type}, {point}: {code}, {left}")
        self._crews.pop((name, role), None)
        return left.unacknowledged


def _victim(hop: Hop, point: str) -> tuple[str, Role]:
    return (hop.sender, "relay") if point.startswith("relay.") else (hop.receiver, "consumer")
