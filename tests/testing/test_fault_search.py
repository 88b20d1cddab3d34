"""Schedules that once broke the shop break labkit no more, with processes that are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.lab.bench import Bench
from labkit.lab.servers import Stack
from labkit.testing import fault_search
from labkit.testing.fault_search import ATTEND_AND_DIE, PLACE, PLACE_AND_DIE, VERSIONS, Found, Shop

REGRESSIONS = sorted((Path(__file__).parents[1] / "chaos_regressions").glob("*.json"))
LABKIT = VERSIONS["y de entrada"]


@pytest.fixture
def bench(servers: Stack) -> Iterator[Bench]:
    made = Bench("fault_search", servers=servers, stock=fault_search.STOCK)
    yield made
    made.delete()
    made.close()


def saved(path: Path) -> Found:
    return fault_search.read(path.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_once_broke_breaks_no_more_when_processes_are_killed(bench: Bench, path: Path) -> None:
    assert Shop(bench, apart=True).play(LABKIT, saved(path).steps) is None


@pytest.mark.slow
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_a_regression_still_breaks_the_version_it_was_found_in(bench: Bench, path: Path) -> None:
    found = saved(path)

    broke = Shop(bench, apart=True).play(VERSIONS[found.version], found.steps)

    assert broke is not None
    assert broke.partition(":")[2] == found.broke.partition(":")[2]


@pytest.mark.slow
def test_the_search_finds_what_is_kept_and_each_version_survives_what_is_known(
    bench: Bench,
) -> None:
    iterations = fault_search.learn(Shop(bench))

    assert [each.survived for each in iterations] == [0, 1, 2]
    assert iterations[-1].found is None
    found = [each.found for each in iterations if each.found]
    assert sorted(found) == sorted(saved(path) for path in REGRESSIONS)


def test_steps_that_are_not_needed_are_taken_away(bench: Bench) -> None:
    shop, version = Shop(bench), VERSIONS["la PR de ayer"]
    steps = (PLACE, ATTEND_AND_DIE, PLACE_AND_DIE)
    broke = shop.play(version, steps)

    assert broke
    shortest, _ = fault_search._shortened(shop, version, steps, broke)
    assert shortest == (PLACE_AND_DIE,)


def test_a_search_without_a_fault_finds_nothing(bench: Bench) -> None:
    assert Shop(bench).play(LABKIT, (PLACE, "attend", "send again", PLACE)) is None


def test_a_regression_is_read_as_it_was_written() -> None:
    found = Found("la PR de ayer", 7, (PLACE, ATTEND_AND_DIE), "RES-1: saved")

    assert fault_search.read(found.as_json()) == found
