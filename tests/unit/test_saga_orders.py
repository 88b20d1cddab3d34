"""Whatever is late, lost, repeated or out of order: in the end every service says the same."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from labkit.messages import Event
from labkit.saga import COMPENSATED, COMPLETED, STUCK, Status
from labkit.testing.sagas import Rehearsal
from tests.toy_saga import (
    Declined,
    OutOfStock,
    Paid,
    Pay,
    Release,
    Released,
    Reserve,
    Reserved,
    Ship,
    Shipped,
    Toy,
    Voided,
    VoidPayment,
    toy_saga,
)

LINES = ("A", "B")
ANSWERS = (Reserved, OutOfStock, Released, Paid, Declined, Voided, Shipped)
LOSE, REPEAT, WAIT = 1, 2, 3


class World:
    """A saga and its participants: each acts once per request, and answers every time."""

    def __init__(self, missing: frozenset[str], *, declines: bool, tombstones: bool = True) -> None:
        self.missing, self.declines, self.tombstones = missing, declines, tombstones
        self.held: set[str] = set()
        self.released = self.paid = self.voided = self.shipped = False
        self.saga = Rehearsal(toy_saga(), Toy("ORD-1", LINES), "S-1")
        self.commands: list[Event] = []
        self.answers: list[Event] = []
        self.collect()

    def collect(self) -> None:
        self.commands += self.saga.sent
        self.saga.sent.clear()

    def handle(self, command: Event) -> list[Event]:
        if isinstance(command, Reserve):
            return [self._reserve(line) for line in LINES]
        if isinstance(command, Release):
            self.held, self.released = set(), True
            return [Released()]
        if isinstance(command, Pay):
            refused = self.tombstones and self.voided
            self.paid = self.paid or not (self.declines or refused)
            return [Paid() if self.paid else Declined()]
        if isinstance(command, VoidPayment):
            self.paid, self.voided = False, True
            return [Voided()]
        assert isinstance(command, Ship)
        self.shipped = True
        return [Shipped()]

    def _reserve(self, line: str) -> Event:
        refused = self.tombstones and self.released and line not in self.held
        if line in self.missing or refused:
            return OutOfStock(line=line)
        self.held.add(line)
        return Reserved(line=line)

    def step(self, choice: int) -> None:
        """Deliver one message of those under way, lose it, deliver it twice, or let time pass."""
        under_way = self.commands + self.answers
        fate, place = choice % 5, choice // 5
        if not under_way or fate == WAIT:
            self.saga.advance(20 if place % 2 else 100)
        else:
            message = under_way[place % len(under_way)]
            if fate != REPEAT:
                (self.commands if message in self.commands else self.answers).remove(message)
            # A lost answer is one whose effect nobody can know of: outboxes do not lose any.
            if fate != LOSE or isinstance(message, ANSWERS):
                self._deliver(message)
        self.collect()

    def _deliver(self, message: Event) -> None:
        if isinstance(message, Reserve | Release | Pay | VoidPayment | Ship):
            self.answers += self.handle(message)
        else:
            self.saga.reply(message)

    def end(self, *, newest_first: bool = False) -> Status:
        """Deliver all that is left; a person retries what is stuck."""
        while self.commands or self.answers or self.saga.state.due_at:
            if self.commands or self.answers:
                queue = self.commands or self.answers
                self._deliver(queue.pop(-1 if newest_first else 0))
            else:
                self.saga.advance(self.saga.until_due_s or 0.0)
            if self.saga.state.status is STUCK and not (self.commands or self.answers):
                self.saga.retry()
            self.collect()
        return self.saga.state.status


def undone(notes: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return the steps that were made good, in order, each once."""
    found = [step for what, step, _ in notes if what in {"asked", "ran"} and step.endswith("/undo")]
    return list(dict.fromkeys(found))


@settings(max_examples=300, deadline=None)
@given(
    missing=st.frozensets(st.sampled_from(LINES)),
    declines=st.booleans(),
    tombstones=st.booleans(),
    newest_first=st.booleans(),
    choices=st.lists(st.integers(0, 49), max_size=40),
)
def test_all_services_agree_in_the_end(
    missing: frozenset[str],
    declines: bool,
    tombstones: bool,
    newest_first: bool,
    choices: list[int],
) -> None:
    world = World(missing, declines=declines, tombstones=tombstones)
    for choice in choices:
        world.step(choice)
        if world.saga.state.status is STUCK:
            world.saga.retry()
            world.collect()
    status = world.end(newest_first=newest_first)
    assert status in {COMPLETED, COMPENSATED}
    everything = (world.held, world.paid, world.shipped)
    assert everything == (
        (set(LINES), True, True) if status is COMPLETED else (set(), False, False)
    )


@settings(max_examples=200, deadline=None)
@given(declines=st.booleans(), choices=st.lists(st.integers(0, 49), max_size=40))
def test_what_was_done_is_made_good_in_reverse_order(declines: bool, choices: list[int]) -> None:
    world = World(frozenset(), declines=declines)
    for choice in choices:
        world.step(choice)
    order = {"payment/undo": 0, "order/undo": 1, "stock/undo": 2}
    made_good = [order[step] for step in undone(world.saga.notes)]
    assert made_good == sorted(made_good)
