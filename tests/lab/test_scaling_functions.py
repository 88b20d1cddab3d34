"""Functions whose instances are processes, and the mapping that brings them messages."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from labkit.errors import BulkheadFullError
from labkit.lab.processes import inspect
from labkit.lab.scaling import functions, samples
from labkit.lab.scaling.functions import Run, run
from labkit.lab.scaling.instances import Function, FunctionError
from labkit.lab.scaling.mapping import Coming, Settings
from labkit.lab.servers import Stack
from labkit.lab.simulations import partial_batch
from tests.waiting import eventually

pytestmark = pytest.mark.thorough

EVENT = {
    "Records": [{"messageId": "1", "body": "{}"}, {"messageId": "2", "body": '{"poison": true}'}]
}
GOOD, BAD = Coming(0.0, {}), Coming(0.0, {"poison": True})


def function_of(handler: str, **options: Any) -> Function:
    return Function(f"{samples.__name__}:{handler}", **options)


@pytest.fixture
def partial() -> Iterator[Function]:
    with closing(function_of("partial", idle_s=0.0)) as made:
        yield made


def test_the_first_invocation_is_cold_and_the_next_one_is_warm(partial: Function) -> None:
    first, second = partial.invoke(EVENT), partial.invoke(EVENT)

    assert first.response == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert first.log == ["executed 1", "executed 2"]
    assert (first.cold, second.cold, partial.instances) == (True, False, 1)
    # A new interpreter against a pipe: a hundred times as long, and always longer.
    assert first.took_s > second.took_s


def test_an_idle_instance_ends_and_the_next_invocation_is_cold_again(partial: Function) -> None:
    partial.invoke(EVENT)
    pid = partial._idle[0]._process.pid
    partial.end_idle()

    assert (partial.instances, inspect(pid)) == (0, None)
    assert partial.invoke(EVENT).cold


def test_an_invocation_is_throttled_when_all_instances_are_busy() -> None:
    with closing(function_of("partial", reserved_concurrency=1)) as function:
        busy, _ = function._take()
        with pytest.raises(BulkheadFullError, match="all 1 places are taken"):
            function.invoke(EVENT)
        function._give_back(busy)

        assert not function.invoke(EVENT).cold


def test_what_a_handler_raises_reaches_the_caller_with_its_log() -> None:
    with closing(function_of("all_or_nothing")) as function:
        with pytest.raises(FunctionError, match="ValueError: 1 records failed") as raised:
            function.invoke(EVENT)

        assert raised.value.log == ["executed 1", "executed 2"]
        assert function.instances == 1


def test_a_function_that_cannot_be_loaded_fails_its_invocations(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with closing(Function("labkit.no_such_module:handler")) as function:
        with pytest.raises(FunctionError, match="the process ended with 1"):
            function.invoke(EVENT)

        assert function.instances == 0
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_a_bad_message_costs_what_the_arithmetic_says(running: Stack) -> None:
    found = functions.whole_or_partial(running)

    assert list(found.index) == list(functions.HANDLERS)
    assert found.to_numpy().tolist() == [[30, 10, 9], [12, 1, 0]]
    assert found.to_numpy().tolist() == partial_batch.compare().to_numpy().tolist()


def test_a_mapping_that_does_not_read_the_response_deletes_what_failed(
    running: Stack, partial: Function
) -> None:
    found = run(running, partial, [GOOD, BAD], Settings(report_failures=False))

    assert (found.executions, found.dead) == (2, [])


def test_a_response_of_another_shape_fails_the_whole_batch(running: Stack) -> None:
    with closing(Function("operator:is_")) as function:  # its response is false
        found = run(running, function, [GOOD, GOOD], Settings(receives=2))

    assert list(found.deliveries["outcome"]) == ["failed", "failed"]
    assert len(found.dead) == 2


def test_a_batch_whose_instance_is_killed_comes_back(running: Stack) -> None:
    with (
        closing(function_of("slow", reserved_concurrency=1)) as function,
        ThreadPoolExecutor(1) as pool,
    ):
        function.invoke(EVENT)  # so that it is killed at work, and not while it starts
        delivered = pool.submit(run, running, function, [GOOD], Settings(pollers=1))
        eventually(lambda: len(function._busy), 1)
        (instance,) = function._busy
        os.kill(instance._process.pid, signal.SIGKILL)
        found = delivered.result()

    assert list(found.deliveries["outcome"]) == ["failed", "done"]
    assert (found.executions, found.dead) == (1, [])


def test_a_throttled_message_becomes_a_dead_letter_that_no_code_ever_saw(running: Stack) -> None:
    found = functions.too_little_concurrency(running)

    assert found.loc[1].to_dict() == {"executions": 8, "throttled": 0, "dead": 0}
    assert found["executions"][4] + found["dead"][4] == 8
    assert found["dead"][4] >= 1
    assert found["throttled"][4] >= 3 * found["dead"][4]


def test_instances_come_with_a_burst_up_to_the_concurrency_and_all_of_them_go(
    running: Stack,
) -> None:
    found = functions.trickle_and_burst(running, [*[GOOD] * 6, Coming(0.2, {})], concurrency=2)

    assert (found.executions, found.throttled, found.dead) == (7, 0, [])
    assert (found.alive["instances"].max(), found.alive["instances"].iloc[-1]) == (2, 0)
    assert 1 <= found.deliveries["cold"].sum() <= 2
    assert _mentions(found, "en frío", "en caliente", "2 instancias; al final, 0.")


def _mentions(found: Run, *words: str) -> bool:
    return all(word in functions.reading(found) for word in words)
