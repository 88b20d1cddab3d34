"""What protection costs a call that works: retry alone, and a whole policy.

The ceiling is what one writes by hand: a loop with a try in it, around pybreaker and a semaphore
for the policy. The peer is tenacity as its documentation shows it.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable

import msgspec
import pybreaker
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from benchmarks.lines import Line, Target, line_of, take_turns
from benchmarks.size import Size
from labkit.budget import RetryBudget
from labkit.bulkhead import Bulkhead
from labkit.lab.servers import Stack
from labkit.policy import Policy
from labkit.retry import Retry, idempotent

CALLS_PER_MESSAGE = 10
ATTEMPTS = 3


@idempotent
def work() -> int:
    """Work that works."""
    return 1


def by_hand() -> int:
    """Try three times."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except OSError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


def measure_retry(_: Stack, size: Size) -> list[Line]:
    """Measure a retry with a budget around a call that works, in µs."""
    retry = Retry("bench", ATTEMPTS, budget=RetryBudget())
    plain = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.1, 10),
        retry=retry_if_exception_type(OSError),
        reraise=True,
    )
    ours, ceiling, peer = take_turns(
        "retry",
        size.runs,
        _cost_of(lambda: retry.call(work), size),
        _cost_of(by_hand, size),
        _cost_of(lambda: plain(work), size),
    )
    target = Target("value", at_least=False, limit=1.0)
    line = line_of("retry", "µs/call", ours, ceiling, target)
    return [msgspec.structs.replace(line, peers={"tenacity": round(statistics.median(peer), 3)})]


def measure_policy(_: Stack, size: Size) -> list[Line]:
    """Measure deadline, retry, breaker and bulkhead around a call that works, in µs."""
    policy = Policy(
        "bench",
        deadline_s=2.0,
        retry=Retry("bench", ATTEMPTS, budget=RetryBudget()),
        breaker=pybreaker.CircuitBreaker(),
        bulkhead=Bulkhead("bench", 10),
    )
    breaker, places = pybreaker.CircuitBreaker(), threading.Semaphore(10)

    def nested() -> int:
        with places:
            return breaker.call(by_hand)

    ours, ceiling = take_turns(
        "policy", size.runs, _cost_of(lambda: policy.call(work), size), _cost_of(nested, size)
    )
    target = Target("value", at_least=False, limit=4.0)
    return [line_of("policy", "µs/call", ours, ceiling, target)]


def _cost_of(call: Callable[[], int], size: Size) -> Callable[[], float]:
    calls = size.messages * CALLS_PER_MESSAGE

    def work_through() -> None:
        for _ in range(calls):
            call()

    def cost() -> float:
        gc.collect()
        # Processor time of this thread: nothing waits here, and neighbours do not count.
        started_s = time.thread_time()
        work_through()
        return (time.thread_time() - started_s) / calls * 1e6

    return cost
