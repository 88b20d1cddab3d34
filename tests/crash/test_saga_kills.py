"""Every worker of the checkout is really killed; each saga ends once, and all books agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.checkout_flow import PROCESSES, Floor
from tests.crash.conftest import Crew, until

MANY, FEW = 300, 12
# Of ten checkouts eight are paid, one is declined, one lacks stock for one of its lines.
FATES = ("paid", "paid", "short", "paid", "paid", "paid", "paid", "declined", "paid", "paid")


@pytest.fixture
def floor(crew: Crew) -> Iterator[Floor]:
    made = Floor(crew, opening=2 * MANY)
    yield made
    made.close()


def end_well(floor: Floor, fates: dict[str, str]) -> None:
    until(lambda: floor.ended() == len(fates), "all sagas have ended")
    floor.crew.end()
    floor.check(fates)


def test_when_every_worker_is_killed_under_way_all_end_and_nothing_is_done_twice(
    floor: Floor,
) -> None:
    fates = floor.check_out(itertools.islice(itertools.cycle(FATES), MANY))
    floor.start(*PROCESSES)
    until(lambda: floor.ended() >= 0.4 * MANY, "two of five have ended")
    floor.kill(*PROCESSES)
    assert floor.ended() < MANY
    floor.start(*PROCESSES)
    end_well(floor, fates)
