"""Answers in every order, one of them twice: a counter against the correlator.

An order of three lines waits for A, B and C. Inventory rejects C. A comes twice, the second time
with another message id (the request was answered again), so no inbox holds it back.

Guarantee: the correlator's verdicts come from its table in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from matplotlib.figure import Figure
from sqlalchemy import Connection, Engine, MetaData

from labkit.lab import charts_heat
from labkit.lab.spanish import number
from labkit.shop.order_book import (
    PARTIALLY_RESERVED,
    REJECTED,
    RESERVATION_PENDING,
    RESERVED,
    status_of as status_of_all,
)
from labkit.translation import Correlator

Arrival = tuple[str, ...]
RESULTS: Mapping[str, str] = {"A": RESERVED, "B": RESERVED, "C": REJECTED}
AGAIN = "A′"
ANSWERS = ("A", "B", "C", AGAIN)
RIGHT = REJECTED
# What a receiver ends with, by arrival.
Statuses = Mapping[Arrival, str]


class Counter:
    """Counts answers: the third one makes the order complete."""

    def __init__(self) -> None:
        self.answers = 0
        self.status = RESERVATION_PENDING

    def answer(self, result: str) -> None:
        """Count one more, unless the order is decided."""
        if self.status in {RESERVED, REJECTED}:
            return
        self.answers += 1
        if result == REJECTED:
            self.status = REJECTED
        else:
            self.status = RESERVED if self.answers == len(RESULTS) else PARTIALLY_RESERVED


lines = Correlator(MetaData(), "arrivals")


def all_arrivals() -> list[Arrival]:
    """Return the 24 orders of the four answers, those first in which C comes first."""
    return sorted(permutations(ANSWERS), key=lambda arrival: arrival.index("C"))


def counted() -> Statuses:
    """Let a counter take every arrival."""
    ends = {}
    for arrival in all_arrivals():
        counter = Counter()
        for answer in arrival:
            counter.answer(result_of(answer))
        ends[arrival] = counter.status
    return ends


def correlated(engine: Engine) -> Statuses:
    """Let the correlator take every arrival, each as a conversation of its own.

    What comes at the same moment is one transaction, as a consumer's batch is.

    Args:
        engine: a database that is thrown away.
    """
    lines.table.create(engine)
    orders = {f"RES-{n}": arrival for n, arrival in enumerate(all_arrivals(), 1001)}
    with engine.begin() as connection:
        for reservation_id in orders:
            lines.expect(connection, reservation_id, dict.fromkeys(RESULTS, reservation_id))
    ends = {}
    for moment in range(len(ANSWERS)):
        with engine.begin() as connection:
            for reservation_id, arrival in orders.items():
                ends[arrival] = take(connection, reservation_id, arrival[moment])
    return ends


def take(connection: Connection, reservation_id: str, answer: str) -> str:
    """Note an answer; return the status that follows from all lines so far."""
    match = lines.answer(connection, reservation_id, part_of(answer), result_of(answer))
    return status_of_all(match.answers.values() if match else ())


def part_of(answer: str) -> str:
    """Return the line that an answer is about: A′ is about A."""
    return answer[0]


def result_of(answer: str) -> str:
    """Return what inventory says of a line."""
    return RESULTS[part_of(answer)]


def wrong(statuses: Statuses) -> list[Arrival]:
    """Return the arrivals after which the order is not rejected, though C was."""
    return [arrival for arrival, status in statuses.items() if status != RIGHT]


def heat_map(found: Mapping[str, Statuses], *, title: str) -> Figure:
    """Draw who was right after which arrival.

    Args:
        found: receiver, and what it ends with by arrival.
        title: what the figure shows.
    """
    rows = {name: [status == RIGHT for status in ends.values()] for name, ends in found.items()}
    return charts_heat.heat_map(rows, all_arrivals(), title=title, head="llegada, de arriba abajo")


def reading(found: Mapping[str, Statuses]) -> str:
    """Read how often each receiver is wrong, and what those arrivals have in common.

    Args:
        found: receiver, and what it ends with by arrival.
    """
    said = [
        f"«{name}» se equivoca en {number(len(wrong(statuses)))} de {number(len(statuses))}"
        f"{_common(wrong(statuses))}"
        for name, statuses in found.items()
    ]
    return "; ".join(said) + "."


def _common(arrivals: Sequence[Arrival]) -> str:
    last = {arrival[-1] for arrival in arrivals}
    return f" (la última es siempre {last.pop()})" if len(last) == 1 else ""
