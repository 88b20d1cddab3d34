"""Workers that come with the backlog and go when it is gone."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import closing
from multiprocessing import active_children

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import insert

from labkit.errors import LabkitError
from labkit.lab.charts_scaling import autoscaling
from labkit.lab.scaling import autoscaler
from labkit.lab.scaling.autoscaler import GROUP, Burst, Outcome, Rules, backlog_of, decide
from labkit.lab.scaling.jobs import service, take_part
from labkit.lab.scaling.jobs_bench import Jobs
from labkit.lab.servers import Stack
from labkit.ports import GroupState, PartitionState
from tests.figures import problems
from tests.waiting import eventually

pytestmark = pytest.mark.thorough

RULES = st.builds(
    lambda least, more, per_worker, cooldown_s: Rules(least, least + more, per_worker, cooldown_s),
    least=st.integers(0, 3),
    more=st.integers(1, 9),
    per_worker=st.integers(1, 50),
    cooldown_s=st.integers(1, 10),
)
BACKLOG, WORKERS, SINCE_S = st.integers(0, 200), st.integers(0, 12), st.integers(0, 20)


@settings(deadline=None)
@given(BACKLOG, WORKERS, SINCE_S, RULES)
def test_the_number_of_workers_keeps_to_its_limits(
    backlog: int, workers: int, since_s: float, rules: Rules
) -> None:
    assert rules.least <= decide(backlog, workers, since_s, 0.0, rules) <= rules.most


@settings(deadline=None)
@given(BACKLOG, WORKERS, SINCE_S, RULES)
def test_while_a_job_waits_there_is_a_worker(
    backlog: int, workers: int, since_s: float, rules: Rules
) -> None:
    asked = decide(backlog, workers, since_s, 0.0, rules)

    assert asked >= min(1, backlog)
    assert asked * rules.per_worker >= backlog or asked == rules.most


@settings(deadline=None)
@given(BACKLOG, WORKERS, st.floats(0, 0.99), RULES)
def test_nobody_is_stopped_before_the_cooldown_has_passed(
    backlog: int, workers: int, share: float, rules: Rules
) -> None:
    asked = decide(backlog, workers, share * rules.cooldown_s, 0.0, rules)

    assert asked == max(rules.wanted(backlog), min(workers, rules.most))


@settings(deadline=None)
@given(BACKLOG, WORKERS, RULES)
def test_after_the_cooldown_there_are_as_many_as_the_backlog_asks_for(
    backlog: int, workers: int, rules: Rules
) -> None:
    assert decide(backlog, workers, rules.cooldown_s, 0.0, rules) == rules.wanted(backlog)


@settings(deadline=None)
@given(BACKLOG, BACKLOG, WORKERS, SINCE_S, RULES)
def test_a_longer_backlog_never_asks_for_fewer_workers(
    one: int, other: int, workers: int, since_s: float, rules: Rules
) -> None:
    less, more = sorted((one, other))

    asked = [decide(backlog, workers, since_s, 0.0, rules) for backlog in (less, more)]
    assert asked == sorted(asked)


def test_the_backlog_is_what_was_not_given_and_what_was_not_acknowledged() -> None:
    def group(name: str, lag: int | None, pending: int) -> GroupState:
        return GroupState(name, lag, pending, 0.0, 0.0, ())

    states = [
        PartitionState(0, 10, (group("other", 9, 9), group("mine", 3, 2))),
        PartitionState(1, 10, (group("mine", None, 1),)),  # Redis cannot tell
        PartitionState(2, 4, ()),  # nobody has come yet
    ]

    assert [backlog_of([each], "mine") for each in states] == [5, 11, 4]
    assert backlog_of(states, "mine") == 20


def test_a_job_that_is_to_be_tried_again_asks_for_a_worker_and_a_dead_letter_does_not(
    running: Stack,
) -> None:
    with closing(Jobs("autoescalado_prueba", running)) as jobs:
        row = {
            "consumer": GROUP,
            "stream": service.stream.name,
            "partition": 0,
            "body": b"{}",
            "due_at": dt.datetime.now(dt.UTC),
        }
        with jobs.engine.begin() as connection:
            for message_id, state in (("1", "retry"), ("2", "parked"), ("3", "waiting")):
                added = row | {"message_id": message_id, "state": state}
                connection.execute(insert(service.held.table).values(added))

        assert (jobs.to_try_again(GROUP), jobs.to_try_again("another")) == (1, 0)


@pytest.mark.slow
def test_workers_come_from_zero_with_a_burst_and_go_when_all_is_handled(running: Stack) -> None:
    rules = Rules(most=2, per_worker=5, cooldown_s=0.2)
    outcome = autoscaler.run(
        running, bursts=[Burst(60.0, 0.1, 0.6)], rules=rules, name="autoescalado_prueba"
    )

    seen = outcome.seen
    assert outcome.sent == outcome.handled == 30
    assert (seen["workers"].iloc[0], seen["workers"].iloc[-1]) == (0, 0)
    assert seen["backlog"].iloc[-1] == 0
    assert seen["asked"].max() == 2
    assert seen["asked"].diff().max() >= 1
    assert outcome.started >= 2
    assert outcome.worker_s > 0
    assert active_children() == []
    assert problems(autoscaling(seen)) == []


@pytest.mark.slow
def test_within_the_cooldown_workers_stay_through_a_lull(running: Stack) -> None:
    rules = Rules(most=2, per_worker=5, cooldown_s=1.5)
    waves = [each._replace(per_s=50.0) for each in autoscaler.WAVES[:2]]
    outcome = autoscaler.run(running, bursts=waves, rules=rules, name="autoescalado_prueba")

    last_wave = outcome.seen["second"] < waves[-1].since_s
    assert outcome.seen["asked"][last_wave].is_monotonic_increasing
    assert outcome.handled == 20
    assert outcome.changes >= 2


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_no_job_is_lost(running: Stack) -> None:
    with closing(Jobs("autoescalado_prueba", running)) as jobs:
        crew = autoscaler._Crew(jobs, Rules(most=1, cooldown_s=0.0))
        try:
            jobs.publish(24)
            crew.adjust()
            eventually(lambda: jobs.handled(GROUP) > 0, True)
            killed = crew._working[0].process
            killed.kill()
            killed.join()
            eventually(crew.adjust, 0)
        finally:
            crew.end()

        assert (jobs.handled(GROUP), crew.started, crew.alive) == (24, 2, 0)


def test_a_worker_that_fails_is_an_error_and_not_started_again_and_again(
    running: Stack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(autoscaler, "work", take_part)  # it takes other arguments, and fails

    with pytest.raises(LabkitError, match="a worker ended by itself"):
        autoscaler.run(running, bursts=[Burst(60.0, 0.0, 0.1)], name="autoescalado_prueba")
    assert active_children() == []


def test_the_reading_says_what_was_given_and_what_it_cost() -> None:
    seen = pd.DataFrame({"backlog": [0, 75, 0], "workers": [0, 4, 0], "asked": [0, 4, 0]})

    assert autoscaler.reading(Outcome(seen, 150, 150, 4, 7.04, 13.2)) == (
        "De 150 mensajes se atienden 150; llegan a esperar 75 y a trabajar 4 procesos, en 2 "
        "cambios. Cuesta 7 segundos de proceso; tener siempre el máximo, 13,2."
    )


def test_a_worker_that_has_ended_costs_no_more(running: Stack) -> None:
    with closing(Jobs("autoescalado_prueba", running)) as jobs:
        crew = autoscaler._Crew(jobs, Rules())
        crew._start()
        crew.end()
        cost_s = crew.worker_s
        time.sleep(0.01)
        crew.adjust()

        assert (crew.worker_s, crew.alive) == (cost_s, 0)
