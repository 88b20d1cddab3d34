"""The resequencer: whatever the order of arrival, each key's items leave in theirs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, MetaData, text

from labkit.clock import FakeClock
from labkit.errors import ConfigurationError, PermanentError
from labkit.translation import DeadlineWorker, GivenUp, Place, Resequencer, Sequenced
from tests.databases import Databases, emptied, lent_database
from tests.waiting import until_it_waits

METADATA = MetaData()
RESEQUENCER = Resequencer(METADATA, "sequences", gap_s=30.0)
NOTHING: list[Any] = []


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine, clock: FakeClock) -> Engine:
    shared.update_execution_options(labkit_clock=clock)
    return emptied(shared, METADATA)


def accept(engine: Engine, number: Any, key: str = "K") -> Sequenced:
    with engine.begin() as connection:
        return RESEQUENCER.accept(connection, key, number, f"item {number}")


def released(engine: Engine, *numbers: int) -> list[int]:
    found = [accept(engine, number).released for number in numbers]
    return numbers_of([item for items in found for item in items])


def numbers_of(items: list[str]) -> list[int]:
    return [int(item.removeprefix("item ")) for item in items]


def give_up(engine: Engine, clock: FakeClock) -> list[GivenUp]:
    with engine.begin() as connection:
        return RESEQUENCER.give_up(connection, clock.now())


def test_what_comes_in_order_goes_out_at_once(engine: Engine) -> None:
    assert [accept(engine, n) for n in (1, 2)] == [
        Sequenced(Place.NEXT, ["item 1"]),
        Sequenced(Place.NEXT, ["item 2"]),
    ]


def test_what_is_ahead_waits_for_the_gap_to_close(engine: Engine) -> None:
    assert accept(engine, 3) == Sequenced(Place.AHEAD, NOTHING)
    assert accept(engine, 2) == Sequenced(Place.AHEAD, NOTHING)

    assert accept(engine, 1) == Sequenced(Place.NEXT, ["item 1", "item 2", "item 3"])


def test_what_waits_behind_a_second_gap_goes_on_waiting(engine: Engine) -> None:
    assert released(engine, 2, 4, 1) == [1, 2]
    assert released(engine, 3) == [3, 4]


@pytest.mark.parametrize("number", [1, 3])
def test_a_number_that_comes_twice_is_a_duplicate_released_or_not(
    engine: Engine, number: int
) -> None:
    released(engine, 1, 3)

    assert accept(engine, number) == Sequenced(Place.DUPLICATE, NOTHING)


def test_keys_have_sequences_of_their_own(engine: Engine) -> None:
    accept(engine, 2)

    assert accept(engine, 1, key="other").released == ["item 1"]


def test_a_gap_that_stays_open_is_given_up_and_told(engine: Engine, clock: FakeClock) -> None:
    released(engine, 1, 4, 5, 7)
    clock.advance(29.9)
    assert give_up(engine, clock) == []
    clock.advance(0.1)

    found = give_up(engine, clock)

    assert found == [GivenUp("K", missing=range(2, 4), released=["item 4", "item 5"])]
    assert give_up(engine, clock) == []


def test_what_was_given_up_is_late_when_it_comes_and_is_not_released(
    engine: Engine, clock: FakeClock
) -> None:
    released(engine, 1, 4)
    clock.advance(30)
    give_up(engine, clock)

    places = [accept(engine, number).place for number in (2, 3, 2, 4, 1)]

    assert places == [Place.LATE, Place.LATE, Place.LATE, Place.DUPLICATE, Place.DUPLICATE]
    assert released(engine, 5) == [5]


def test_each_gap_has_a_time_of_its_own(engine: Engine, clock: FakeClock) -> None:
    released(engine, 2, 4)
    clock.advance(30)
    assert [each.missing for each in give_up(engine, clock)] == [range(1, 2)]
    clock.advance(29)
    assert give_up(engine, clock) == []
    clock.advance(1)

    assert [each.missing for each in give_up(engine, clock)] == [range(3, 4)]
    assert [accept(engine, number).place for number in (1, 3)] == [Place.LATE, Place.LATE]


def test_the_time_of_a_gap_runs_from_the_first_item_behind_it(
    engine: Engine, clock: FakeClock
) -> None:
    released(engine, 3)
    clock.advance(20)
    released(engine, 4)
    clock.advance(10)

    assert [each.missing for each in give_up(engine, clock)] == [range(1, 3)]


def test_a_gap_that_closes_in_time_is_not_given_up(engine: Engine, clock: FakeClock) -> None:
    released(engine, 2, 1)
    clock.advance(hours=1)

    assert give_up(engine, clock) == []


@pytest.mark.parametrize("before", [[], [3]], ids=["a new key", "a key that has a gap already"])
def test_an_item_waits_for_the_transaction_that_has_its_key(
    engine: Engine, before: list[int]
) -> None:
    # With a gap already, what is ahead changes nothing in the key's row: its lock alone counts.
    released(engine, *before)
    with ThreadPoolExecutor(1) as pool, engine.connect() as busy:
        RESEQUENCER.accept(busy, "K", 2, "item 2")
        other = pool.submit(accept, engine, 1)
        until_it_waits(engine, other)
        busy.commit()

        assert numbers_of(other.result().released) == [1, 2, *before]


def test_a_release_that_was_rolled_back_comes_again(engine: Engine) -> None:
    accept(engine, 2)
    with engine.connect() as connection:
        assert RESEQUENCER.accept(connection, "K", 1, "item 1").released == ["item 1", "item 2"]
        connection.rollback()

    assert released(engine, 1) == [1, 2]


def test_giving_up_leaves_alone_the_key_that_an_item_is_moving(
    engine: Engine, clock: FakeClock
) -> None:
    accept(engine, 2)
    clock.advance(30)
    with engine.begin() as busy:
        RESEQUENCER.accept(busy, "K", 1, "item 1")

        assert give_up(engine, clock) == []

    assert give_up(engine, clock) == []


def test_a_worker_gives_up_by_itself(engine: Engine, clock: FakeClock) -> None:
    told: list[GivenUp] = []
    worker = DeadlineWorker(engine, RESEQUENCER.give_up, lambda _session, each: told.append(each))
    accept(engine, 2)
    clock.advance(30)

    assert [worker.run_once(), worker.run_once()] == [1, 0]
    assert [each.released for each in told] == [["item 2"]]


def test_what_has_gone_out_is_not_kept(engine: Engine) -> None:
    released(engine, 3, 2, 1, 5)

    with engine.connect() as connection:
        kept = connection.execute(text("select number from sequences_items")).scalars().all()
    assert kept == [5]


def forget(engine: Engine, *keys: str) -> list[str]:
    with engine.begin() as connection:
        return RESEQUENCER.forget(connection, keys)


def test_a_sequence_that_has_ended_is_forgotten_and_one_with_a_gap_is_not(engine: Engine) -> None:
    for key, numbers in {"A": [1, 2], "B": [1, 3], "C": [1]}.items():
        for number in numbers:
            accept(engine, number, key)

    assert forget(engine, "B", "A", "nobody's") == ["A"]
    with engine.connect() as connection:
        kept = connection.execute(text("select key from sequences order by key")).scalars().all()
    assert kept == ["B", "C"]
    assert accept(engine, 2, "B").released == ["item 2", "item 3"]
    assert forget(engine, "B") == ["B"]


def test_a_key_that_was_forgotten_begins_anew(engine: Engine) -> None:
    released(engine, 1, 2)
    assert forget(engine, "K") == ["K"]

    assert released(engine, 1) == [1]


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None, 2**62 + 1])
def test_what_is_no_number_of_the_sequence_is_a_permanent_error(
    engine: Engine, number: Any
) -> None:
    with pytest.raises(PermanentError, match=r"K: .* is no number from 1"):
        accept(engine, number)


def test_a_gap_may_be_as_wide_as_numbers_go(engine: Engine, clock: FakeClock) -> None:
    accept(engine, 2**62)
    clock.advance(30)

    assert [each.missing for each in give_up(engine, clock)] == [range(1, 2**62)]
    assert accept(engine, 10**9).place is Place.LATE


@pytest.mark.parametrize("gap_s", [0.0, float("nan"), None])
def test_a_gap_without_end_is_refused(gap_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="gap_s"):
        Resequencer(MetaData(), gap_s=gap_s)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.integers(1, 6).flatmap(
        lambda last: (
            st.lists(st.integers(1, last), max_size=4)
            .map(lambda extra: [*range(1, last + 1), *extra])
            .flatmap(st.permutations)
        )
    )
)
def test_any_order_and_duplicates_go_out_complete_and_in_order(
    shared: Engine, arrivals: list[int]
) -> None:
    shared.update_execution_options(labkit_clock=FakeClock())

    found = released(emptied(shared, METADATA), *arrivals)

    assert found == list(range(1, max(arrivals) + 1))


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.integers(1, 8), max_size=10),
    pauses=st.lists(st.sampled_from([0, 10, 30]), min_size=10, max_size=10),
)
def test_whatever_is_lost_items_rise_and_each_number_is_released_or_told_once(
    shared: Engine, arrivals: list[int], pauses: list[int]
) -> None:
    clock = FakeClock()
    shared.update_execution_options(labkit_clock=clock)
    engine = emptied(shared, METADATA)
    out: list[int] = []
    missing: list[int] = []

    def wait(seconds: float) -> None:
        clock.advance(seconds)
        for each in give_up(engine, clock):
            missing.extend(each.missing)
            out.extend(numbers_of(each.released))

    for number, pause_s in zip(arrivals, pauses, strict=False):
        found = accept(engine, number)
        assert (found.place is Place.LATE) == (number in missing)
        out.extend(numbers_of(found.released))
        wait(pause_s)
    for _ in arrivals:
        wait(30)

    assert out == sorted(set(out))
    assert sorted(out + missing) == list(range(1, max(arrivals, default=0) + 1))
