"""Searches for the shortest schedule of faults that breaks the shop, and keeps it as a regression.

A schedule is a list of steps: an order is placed, inventory attends, one of them dies in the
middle, a request is sent again. Steps are drawn by a seed and played on real databases and streams;
when an invariant breaks, steps are taken away for as long as it still breaks. What is left goes to
a JSON file (`tests/chaos_regressions`), and pytest plays it again for ever.

Guarantee: one seed, one search; of what is found, no step and no death can be left out.
Not guaranteed: that nothing was found means that nothing is there. In a search, dying is an
exception at a crash point, so that hundreds of schedules take seconds; the regressions are played
with processes that are killed as well (`tests/testing/test_fault_search.py`).

Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002; Basiri et
al., "Chaos Engineering", IEEE Software, 2016.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from labkit import crash
from labkit.lab.bench import Bench
from labkit.lab.pr_de_ayer import code as pr_de_ayer
from labkit.lab.relaying import attend_all, relay_all
from labkit.shop import fulfillment, inventory
from labkit.shop.contracts import FULFILLMENT
from labkit.shop.order_book import reservation_id_of
from labkit.testing.ledgers import read_entries
from labkit.transports.redis_streams import RedisStreams

PLACE, PLACE_AND_DIE = "place", "place and die"
ATTEND, ATTEND_AND_DIE, SEND_AGAIN = "attend", "attend and die", "send again"
STEPS = (PLACE, PLACE_AND_DIE, ATTEND, ATTEND_AND_DIE, SEND_AGAIN)
_CALM = {PLACE_AND_DIE: PLACE, ATTEND_AND_DIE: ATTEND}
LOST, INVENTED = "saved, and no stock is held for it", "stock is held, and there is no order"
SKU = "BOOK-DDD"
STOCK = {SKU: 1_000_000}
LONGEST, TRIES = 6, 6
# Each version passes one of the two points of a line.
POINTS: Mapping[str, tuple[str, ...]] = {
    PLACE_AND_DIE: ("pr.between_save_and_publish", "relay.after_publish"),
    ATTEND_AND_DIE: ("pr.before_reserving", "consumer.after_commit"),
}
Steps = Sequence[str]
# Runs a part of the shop; with faults it may die.
Run = Callable[..., object]


class Version(NamedTuple):
    """A shop: how orders are placed and sent, how inventory attends, who sends what is left."""

    place: Callable[[Engine, RedisStreams, str], None]
    attend: Callable[[Engine, RedisStreams], None]
    relay: Callable[[Engine, RedisStreams], None] | None = None


def place_as_yesterday(engine: Engine, transport: RedisStreams, order_id: str) -> None:
    """Save, then publish: yesterday's pull request."""
    pr_de_ayer.place_order(engine, transport, order_id, [(SKU, 1)])


def place_with_outbox(engine: Engine, transport: RedisStreams, order_id: str) -> None:
    """Save order and event together, and relay."""
    with Session(engine) as session, session.begin():
        fulfillment.place_order(session, order_id, [(SKU, 1)])
    relay_all(engine, transport)


VERSIONS: Mapping[str, Version] = {
    "la PR de ayer": Version(place_as_yesterday, pr_de_ayer.attend),
    "con bandeja de salida": Version(place_with_outbox, pr_de_ayer.attend, relay_all),
    "y de entrada": Version(place_with_outbox, attend_all, relay_all),
}


class Found(NamedTuple):
    """A schedule that breaks a version, and what it breaks."""

    version: str
    seed: int
    steps: tuple[str, ...]
    broke: str

    def as_json(self) -> str:
        """Return it as a file of `tests/chaos_regressions` has it."""
        return json.dumps(self._asdict(), indent=2, ensure_ascii=False) + "\n"


def read(text: str) -> Found:
    """Return what `as_json` wrote."""
    found = json.loads(text)
    return Found(**found | {"steps": tuple(found["steps"])})


class Iteration(NamedTuple):
    """A version, what it survives of what was found before, and what was found in it."""

    version: str
    survived: int
    known: int
    found: Found | None


class Shop:
    """Plays schedules on one bench, each with orders of its own.

    Args:
        bench: opened with `STOCK`; one that is thrown away.
        apart: let each step run in a process of its own, so that dying is SIGKILL.
    """

    def __init__(self, bench: Bench, *, apart: bool = False) -> None:
        self._bench, self._apart = bench, apart
        self._numbers = count(1)

    def play(self, version: Version, steps: Steps) -> str | None:
        """Play a schedule, let all end, and return what broke; None when all holds."""
        orders: list[str] = []
        for step in steps:
            if step in {PLACE, PLACE_AND_DIE}:
                orders.append(f"ORD-{next(self._numbers)}")
            self._step(version, step, orders)
        if version.relay:
            self._run(self._bench.orders, version.relay, faults="")
        self._attend(version, "")
        return self._broken(orders)

    def _step(self, version: Version, step: str, orders: Sequence[str]) -> None:
        faults = _faults(step, kills=self._apart)
        if step in {PLACE, PLACE_AND_DIE}:
            self._run(self._bench.orders, version.place, orders[-1], faults=faults)
        elif step in {ATTEND, ATTEND_AND_DIE}:
            self._attend(version, faults)
        elif orders:
            _send_again(self._bench, orders[-1])

    def _attend(self, version: Version, faults: str) -> None:
        self._run(self._bench.stock, version.attend, faults=faults)

    def _run(self, engine: Engine, part: Run, *arguments: Any, faults: str) -> None:
        if self._apart:
            self._bench.apart(engine, part, *arguments, faults=faults)
        else:
            _survive(part, engine, self._bench.transport, *arguments, faults=faults)

    def _broken(self, orders: Sequence[str]) -> str | None:
        saved = fulfillment.orders.c.order_id
        with self._bench.orders.connect() as connection:
            query = select(saved).where(saved.in_(orders))
            there = {reservation_id_of(each) for each in connection.execute(query).scalars()}
        lines = inventory.reservations.c
        wanted = [reservation_id_of(each) for each in orders]
        with self._bench.stock.connect() as connection:
            mine = lines.reservation_id.in_(wanted) & (lines.state == inventory.HELD)
            held = set(connection.execute(select(lines.reservation_id).where(mine)).scalars())
            units = connection.execute(select(inventory.stock.c.held)).scalar_one()
            noted = connection.execute(select(func.sum(lines.qty))).scalar_one()
        if lost := sorted(there - held):
            return f"{lost[0]}: {LOST}"
        if invented := sorted(held - there):
            return f"{invented[0]}: {INVENTED}"
        return None if units == (noted or 0) else f"{units} units held, {noted} noted"


def search(shop: Shop, name: str, *, seed: int, tries: int = TRIES) -> Found | None:
    """Look for a schedule that breaks a version, and make it as short as it gets.

    Args:
        shop: where.
        name: of one of `VERSIONS`.
        seed: of the schedules.
        tries: how many schedules, at most.
    """
    rng, version = random.Random(seed), VERSIONS[name]
    for _ in range(tries):
        steps = tuple(rng.choices(STEPS, k=rng.randint(2, LONGEST)))
        if broke := shop.play(version, steps):
            shortest, broke = _shortened(shop, version, steps, broke)
            return Found(name, seed, shortest, broke)
    return None


def learn(shop: Shop, *, seed: int = 7) -> list[Iteration]:
    """Search version after version; each must first survive what was found in those before."""
    known: list[Found] = []
    iterations = []
    for name, version in VERSIONS.items():
        survived = sum(shop.play(version, each.steps) is None for each in known)
        found = search(shop, name, seed=seed)
        iterations.append(Iteration(name, survived, len(known), found))
        known += [found] if found else []
    return iterations


def _shortened(
    shop: Shop, version: Version, steps: tuple[str, ...], broke: str
) -> tuple[tuple[str, ...], str]:
    for n, step in enumerate(steps):
        # Without the step; or, if it is needed, without its death.
        for instead in ((), (_CALM[step],) if step in _CALM else None):
            simpler = None if instead is None else (*steps[:n], *instead, *steps[n + 1 :])
            if simpler is not None and (still := shop.play(version, simpler)):
                return _shortened(shop, version, simpler, still)
    return steps, broke


def _faults(step: str, *, kills: bool) -> str:
    action = "kill" if kills else "raise"
    return ",".join(f"{point}:{action}:@1" for point in POINTS.get(step, ()))


def _survive(part: Run, *arguments: Any, faults: str) -> None:
    # It dies: whatever it had in hand is left as it is.
    with _faults_on(faults), suppress(crash.CrashError):
        part(*arguments)


@contextmanager
def _faults_on(faults: str) -> Iterator[None]:
    crash.configure({"LABKIT_FAULTS": faults})
    try:
        yield
    finally:
        crash.configure({})


def _send_again(bench: Bench, order_id: str) -> None:
    """Publish the last request of an order once more, as it is, if it was published."""
    key = reservation_id_of(order_id)
    partition = FULFILLMENT.partition_of(key)
    entries = read_entries(bench.transport, FULFILLMENT, partition)
    if sent := [each.body for each in entries if each.key == key]:
        client: Any = bench.transport.client
        client.xadd(bench.transport.stream_key(FULFILLMENT, partition), {"body": sent[-1]})
