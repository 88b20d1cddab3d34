"""Each anti-pattern is caught for its own reason; labkit's own code passes the same schedule."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
from sqlalchemy import text

from labkit.errors import LabkitError
from labkit.lab.servers import Stack
from labkit.testing import processes, sample
from labkit.testing.antipatterns import VARIANTS, Mishap, Outcome, cross, effects_of_one, run
from labkit.testing.antipatterns.lab import Lab
from labkit.testing.antipatterns.scene import scene
from labkit.testing.antipatterns.schedule import receiving, schedule, sending

DEATHS = {"dual_write": 4, "publish_before_commit": 4}


def _run(servers: Stack, name: str, seed: int = 1) -> Outcome:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    return run(name, seed, servers=servers, databases=f"antipatterns_{worker}")


@pytest.mark.slow
# That one schedule catches a variant is enough; labkit has to pass every one.
@pytest.mark.parametrize(("name", "seed"), [*((name, 1) for name in VARIANTS), ("labkit", 2)])
def test_a_variant_is_caught_for_its_own_reason_and_for_no_other(
    servers: Stack, name: str, seed: int
) -> None:
    expected = VARIANTS[name].finds

    outcome = _run(servers, name, seed)

    assert outcome.findings.kinds == ({expected} if expected else set()), str(outcome.findings)
    # The relay does not die where there is none.
    assert outcome.killed == DEATHS.get(name, len(sending(seed)) + len(receiving(seed)) - 2)
    assert outcome.frozen == VARIANTS[name].has_frozen_relay


@pytest.mark.slow
def test_an_outcome_tells_what_happened_to_every_order(servers: Stack) -> None:
    outcome = _run(servers, "no_inbox")

    committed = {seen.order_id for seen in outcome.events if seen.stage == "committed"}
    applied = Counter(seen.order_id for seen in outcome.events if seen.stage == "applied")
    assert applied.keys() == committed
    assert outcome.counts["doubled"] == sum(times > 1 for times in applied.values()) > 0
    assert [seen.at for seen in outcome.events] == sorted(seen.at for seen in outcome.events)


@pytest.mark.slow
def test_a_sender_loses_and_invents_whoever_receives_and_a_receiver_repeats_whoever_sends(
    servers: Stack,
) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    ways = ["dual_write", "labkit"], ["no_inbox", "inbox_before_effect", "labkit"]

    found = cross(*ways, servers=servers, databases=f"antipatterns_{worker}")

    kinds = {pair: outcome.findings.kinds for pair, outcome in found.items()}
    assert kinds == {
        ("dual_write", "no_inbox"): {"lost", "doubled"},
        ("dual_write", "inbox_before_effect"): {"lost"},
        ("dual_write", "labkit"): {"lost"},
        ("labkit", "no_inbox"): {"doubled"},
        ("labkit", "inbox_before_effect"): {"lost"},
        ("labkit", "labkit"): set(),
    }
    lost = {pair: outcome.counts["lost"] for pair, outcome in found.items()}
    assert lost["dual_write", "inbox_before_effect"] > lost["dual_write", "labkit"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receiver", "after_a_crash", "after_a_repeat"),
    [
        ("inbox_before_effect", 0, 1),
        ("inbox_after_effect", 2, 1),
        ("ack_first", 0, 1),
        ("no_inbox", 2, 2),
        ("labkit", 1, 1),
    ],
)
def test_one_message_is_applied_once_only_where_inbox_and_effect_are_one_transaction(
    servers: Stack, receiver: str, after_a_crash: int, after_a_repeat: int
) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    mishaps: tuple[Mishap, ...] = ("crash", "repeat")

    times = [
        effects_of_one(receiver, each, servers=servers, databases=f"antipatterns_{worker}")
        for each in mishaps
    ]

    assert times == [after_a_crash, after_a_repeat]


def test_an_order_may_stay_open_for_as_long_as_a_busy_machine_takes(servers: Stack) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with scene(servers, f"antipatterns_{worker}", seed=1, orders=1) as built:
        lab = Lab(built.setting, "relay-1")
        (step,) = schedule(1, orders=1)
        with lab.source.begin() as connection:
            sample.insert_order(connection, step.order)
            connection.execute(text("select pg_sleep(1.5)"))
        with built.source.connect() as connection:
            assert [fact.message_id for fact in sample.placed(connection)] == [step.order.order_id]
        for engine in (lab.source, lab.unlimited, lab.target):
            engine.dispose()
        lab.client.close()


@pytest.mark.slow
def test_two_runs_under_one_name_wait_for_each_other(servers: Stack) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        one, other = pool.map(lambda _: _run(servers, "no_inbox"), range(2))

    assert one.counts == other.counts
    assert one.findings.kinds == {"doubled"}


@pytest.mark.slow
def test_more_orders_are_more_deaths_between_commit_and_publication(servers: Stack) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")

    outcome = run("dual_write", orders=120, servers=servers, databases=f"antipatterns_{worker}")

    assert outcome.counts["lost"] == 3
    committed = sum(seen.stage == "committed" for seen in outcome.events)
    assert outcome.right == committed - 3


def test_one_seed_is_one_schedule() -> None:
    assert schedule(7) == schedule(7) != schedule(8)
    assert {step.fate for step in schedule(7)} == {"commits", "rolls back", "commits late"}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_lines_in_question_are_short_enough_to_show(name: str) -> None:
    lines = inspect.getsource(VARIANTS[name].culprit).splitlines()

    assert len(lines) <= 18
    assert len({variant.culprit for variant in VARIANTS.values()}) == len(VARIANTS)


def test_a_frozen_relay_is_ended_when_the_run_fails(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[BaseProcess] = []
    start = processes.start

    def note(target: Callable[..., None], *arguments: Any, faults: str = "") -> BaseProcess:
        # The process after the frozen one gets a variant that does not exist, and fails.
        known = faults == "relay.after_claim:pause:@1" or not started
        mine = arguments if known else ("nothing of the kind", *arguments[1:])
        process = start(target, *mine, faults=faults)
        if started or "pause" in faults:
            started.append(process)
        return process

    monkeypatch.setattr(processes, "start", note)
    with pytest.raises(LabkitError, match="ended by itself with 1"):
        _run(servers, "unfenced_relays")

    assert [process.is_alive() for process in started] == [False, False]


def test_an_unknown_variant_is_refused_with_the_names() -> None:
    with pytest.raises(LabkitError, match="none of dual_write, "):
        run("triple_write")
