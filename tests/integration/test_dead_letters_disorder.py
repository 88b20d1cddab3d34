"""Failures, redrives, discards and repeats in any order: each message ends once, in its order."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings, strategies as st

from labkit.dead_letters import DeadLetter, Wanted
from tests import toy
from tests.flow import Flow
from tests.toy import happen

KEYS = ["a", "b"]
BROKEN = "permanent no"
letters = toy.target.dead_letters
examples = itertools.count()

steps = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(KEYS), st.sampled_from(["record", BROKEN])),
    st.tuples(st.just("append"), st.sampled_from(KEYS), st.sampled_from(["until 2", "record"])),
    st.tuples(st.sampled_from(["redrive", "discard"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["work", "work", "repair", "break", "repeat", "handover", "wait"])),
)


class Story:
    """One example on keys of its own, with the owner that does the work."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.number = next(examples)
        self.committed: dict[str, list[int]] = {self.name(key): [] for key in KEYS}
        self.given_up: set[tuple[str, int]] = set()
        self.consumer = flow.consumer(batch=3)
        toy.repaired.clear()

    def name(self, key: str) -> str:
        return f"{self.number}-{key}"

    def append(self, key: str, behaviour: str) -> None:
        numbers = self.committed[self.name(key)]
        numbers.append(len(numbers) + 1)
        happen(self.flow.source, self.name(key), numbers[-1], behaviour=behaviour)

    def work(self) -> None:
        self.flow.relay.run_once()
        self.consumer.run_once()

    def wait(self) -> None:
        self.flow.clock.advance(60)

    def repair(self) -> None:
        toy.repaired.add(BROKEN)

    def break_(self) -> None:
        toy.repaired.clear()

    def repeat(self) -> None:
        self.flow.publish_again()

    def handover(self) -> None:
        self.flow.expire_leases()
        self.consumer = self.flow.consumer(batch=3)

    def found(self) -> list[DeadLetter]:
        with self.flow.target.connect() as connection:
            return letters.find(connection, Wanted())

    def redrive(self, index: int) -> None:
        if letter := next(iter(self.found()[index:]), None):
            with self.flow.target.begin() as connection:
                letters.redrive(connection, letter.position)

    def discard(self, index: int) -> None:
        if letter := next(iter(self.found()[index:]), None):
            event = letter.envelope and toy.REGISTRY.decode(letter.envelope)
            assert isinstance(event, toy.Happened)
            self.given_up.add((event.key, event.n))
            with self.flow.target.begin() as connection:
                letters.discard(connection, letter.position, who="operator", why="a test")

    def settle(self) -> None:
        """Repair everything, redrive what is dead, and let the owner finish."""
        self.repair()
        self.handover()
        while True:
            self.flow.deliver(self.consumer)
            self.wait()
            if not self.flow.deliver(self.consumer) and not self.found():
                return
            for letter in self.found():
                with self.flow.target.begin() as connection:
                    letters.redrive(connection, letter.position)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=st.lists(steps, min_size=4, max_size=25))
def test_every_message_is_handled_once_in_order_or_was_given_up(
    flow: Flow, plan: list[tuple[str, ...]]
) -> None:
    story = Story(flow)
    for verb, *arguments in plan:
        getattr(story, {"break": "break_"}.get(verb, verb))(*arguments)

    story.settle()

    for key, numbers in story.committed.items():
        assert flow.effects(key) == [n for n in numbers if (key, n) not in story.given_up]
    assert (flow.held(), flow.pending()) == ([], 0)
