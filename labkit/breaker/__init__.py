"""Breaker: stop calling a dependency that fails, and find out gently when it is well again.

The problem: callers that keep trying a sick dependency wait for it, and keep it sick. pybreaker
knows the pattern; across processes its state in Redis is a race (docs/adr/0012 lists 26 findings).
`SharedBreaker` keeps pybreaker's class, listeners, errors and state names, and replaces the call
and the state. `LocalBreaker` is the same for one process.

    breaker = SharedBreaker("payments", connect(url), failure_rate=0.5, exclude=(CardDeclined,))
    breaker.call(authorize, order)      # or @breaker, or await breaker.acall(...)

Reading order: `rules` (when), `circuit` (in memory), `scripts` and `store` (in Redis), `calls`
(the protected call), `notices` (what others see), `shared` (cached mode, Redis away).

Guarantee: of all processes one transition, one event, one trial at a time; a result counts only in
the generation in which its call began; no lock is held during a call; no client's clock takes
part; a Redis that is away or hangs leaves calls protected by each process alone.
Not guaranteed: in cached mode a process may go on for `refresh_s` after another one opened it;
when Redis goes away each process counts anew, and each makes trials of its own. Generators are
refused. A breaker protects callers from waiting, it does not make the dependency well.

Crash windows (tests/crash/test_breaker_kills.py kills a process in each):
    after a trial was admitted     its permit ends with its lease, and the next trial begins
    before successes are told      up to `refresh_s` of them are missing in the window: it may
                                   open a little early, never late

Source: Nygard, *Release It!*, 2nd ed., ch. 5 ("Circuit Breaker"); leases: Gray and Cheriton (1989).
"""

from labkit.breaker.connection import connect
from labkit.breaker.local import LocalBreaker
from labkit.breaker.notices import CircuitOpenError
from labkit.breaker.rules import (
    CLOSED,
    DISABLED,
    FORCED_OPEN,
    HALF_OPEN,
    OPEN,
    Answer,
    Counts,
    Rules,
    Transition,
)
from labkit.breaker.shared import SharedBreaker

__all__ = [
    "CLOSED",
    "DISABLED",
    "FORCED_OPEN",
    "HALF_OPEN",
    "OPEN",
    "Answer",
    "CircuitOpenError",
    "Counts",
    "LocalBreaker",
    "Rules",
    "SharedBreaker",
    "Transition",
    "connect",
]
