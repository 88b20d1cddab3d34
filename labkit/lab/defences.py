"""Faults and defences, each with each: what customers get, and what it costs the dependency.

Fifty customers pay, one a second, and the provider does what a script says. Between them stands a
`labkit.policy.Policy`; the clock moves only when somebody works or waits. A cell is right when
nobody is charged twice, nobody waits longer than they would, the provider gets at most a third more
calls than there are customers, and 19 of 20 get an answer: the real one, or one that says of itself
that it is second best.

Guarantee: every cell is run; the same script meets every defence.
Not guaranteed: that a defence helps your dependency: the scripts are simple, and one process calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from labkit.breaker import LocalBreaker
from labkit.clock import FakeClock
from labkit.errors import AttemptTimeoutError, LabkitError, TransientError
from labkit.lab.charts_matrix import Cell, bad, good
from labkit.lab.spanish import number
from labkit.policy import Policy
from labkit.retry import Retry, RetryBudget

CUSTOMERS, EVERY_S, PATIENCE_S = 50, 1.0, 2.0
SLOW_S, QUICK_S, LIMIT_S = 30.0, 0.05, 0.5
MOST_CALLS, LEAST_SERVED = CUSTOMERS * 4 // 3, CUSTOMERS * 19 // 20
ONE_IN = 10

Script = Callable[[int, int], str]
REFUSED, LOST, SLOW, NO, WELL = "refused", "lost", "slow", "no", "well"


class DeclinedError(Exception):
    """The provider says no: an answer."""


def _once(what: str) -> Script:
    return lambda customer, attempt: what if customer % ONE_IN == 1 == attempt else WELL


def _always(what: str) -> Script:
    return lambda _customer, _attempt: what


FAULTS: Mapping[str, Script] = {
    "cortes sueltos": _once(REFUSED),
    "respuestas perdidas": _once(LOST),
    "una caída larga": _always(REFUSED),
    "todo lento": _always(SLOW),
    "un no del negocio": _always(NO),
}


class Provider:
    """Charges, or fails, as its script says of a customer and an attempt (from 1).

    Args:
        clock: moves while it works.
        script: what happens.
        keyed: whether it knows an attempt of a payment from another payment.
        limit_s: how long callers wait for it; None: until it is done.
    """

    def __init__(
        self, clock: FakeClock, script: Script, *, keyed: bool, limit_s: float | None
    ) -> None:
        self.attempts: dict[int, int] = {}
        self.charges: list[int] = []
        self._clock, self._script, self._keyed, self._limit_s = clock, script, keyed, limit_s

    def charge(self, customer: int) -> None:
        """Charge a customer."""
        attempt = self.attempts[customer] = self.attempts.get(customer, 0) + 1
        what = self._script(customer, attempt)
        if what == REFUSED:
            raise TransientError
        if what == NO:
            raise DeclinedError
        if not self._keyed or customer not in self.charges:
            self.charges.append(customer)
        self._work(SLOW_S if what == SLOW else QUICK_S)
        if what == LOST:
            raise TransientError

    def _work(self, seconds: float) -> None:
        if self._limit_s is not None and seconds > self._limit_s:
            self._clock.advance(self._limit_s)
            raise AttemptTimeoutError("provider", self._limit_s)
        self._clock.advance(seconds)


class Defence(NamedTuple):
    """How the provider is called."""

    policy: Callable[[FakeClock], Policy]
    keyed: bool = False
    limit_s: float | None = None


def _retry(clock: FakeClock, *, everything: bool = False, budget: bool = False) -> Retry:
    return Retry(
        "provider",
        on=(Exception,) if everything else (TransientError,),
        budget=RetryBudget(clock=clock) if budget else None,
        clock=clock,
        sleep=clock.advance,
        random=lambda: 0.5,
    )


def _breaker(clock: FakeClock) -> LocalBreaker:
    return LocalBreaker(
        "provider", min_calls=5, exclude=(DeclinedError,), clock=clock, random=lambda: 0.5
    )


def _all_of_it(clock: FakeClock) -> Policy:
    return Policy(
        "provider",
        fallback=lambda _: None,  # «pendiente»: it says of itself that nothing is decided
        deadline_s=PATIENCE_S,
        retry=_retry(clock, budget=True),
        breaker=_breaker(clock),
        clock=clock,
    )


DEFENCES: Mapping[str, Defence] = {
    "nada": Defence(lambda _: Policy("provider")),
    "reintentar todo": Defence(lambda c: Policy("provider", retry=_retry(c, everything=True))),
    "reintentar, con clave": Defence(lambda c: Policy("provider", retry=_retry(c)), keyed=True),
    "tiempo límite": Defence(lambda _: Policy("provider"), limit_s=LIMIT_S),
    "cortar": Defence(lambda c: Policy("provider", breaker=_breaker(c))),
    "todo junto": Defence(_all_of_it, keyed=True, limit_s=LIMIT_S),
}


class Outcome(NamedTuple):
    """What came of a cell: customers served, charged twice, calls, and the longest wait."""

    served: int
    twice: int
    calls: int
    longest_s: float

    def flaw(self) -> str | None:
        """Return what is wrong, the worst first; None when nothing is."""
        if self.twice:
            return f"{number(self.twice)} cobros dobles"
        if self.longest_s > PATIENCE_S:
            return f"{number(round(self.longest_s))} s de espera"
        if self.calls > MOST_CALLS:
            return f"{number(self.calls)} llamadas"
        if self.served < LEAST_SERVED:
            return f"{number(CUSTOMERS - self.served)} sin respuesta"
        return None


def run(defence: Defence, script: Script) -> Outcome:
    """Let all customers pay."""
    clock = FakeClock()
    policy = defence.policy(clock)
    provider = Provider(clock, script, keyed=defence.keyed, limit_s=defence.limit_s)
    served, longest_s = 0, 0.0
    for customer in range(CUSTOMERS):
        since_s = clock.monotonic_s()
        served += _is_served(policy, provider, customer)
        longest_s = max(longest_s, clock.monotonic_s() - since_s)
        clock.advance(EVERY_S)
    twice = len(provider.charges) - len(set(provider.charges))
    return Outcome(served, twice, sum(provider.attempts.values()), longest_s)


def _is_served(policy: Policy, provider: Provider, customer: int) -> bool:
    try:
        policy.call(provider.charge, customer, idempotent=True)
    except DeclinedError:
        return True
    except LabkitError:
        return False
    return True


def every_pair() -> dict[str, dict[str, Outcome]]:
    """Return what comes of each fault under each defence."""
    return {
        fault: {name: run(defence, script) for name, defence in DEFENCES.items()}
        for fault, script in FAULTS.items()
    }


def cells(found: Mapping[str, Mapping[str, Outcome]]) -> dict[str, dict[str, Cell]]:
    """Return the outcomes as a matrix."""
    return {
        fault: {
            name: bad(flaw) if (flaw := each.flaw()) else good("") for name, each in row.items()
        }
        for fault, row in found.items()
    }


def withstood(found: Mapping[str, Mapping[str, Outcome]]) -> dict[str, int]:
    """Return how many of the faults each defence withstands."""
    return {name: sum(row[name].flaw() is None for row in found.values()) for name in DEFENCES}


def reading(found: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Read how many faults each defence withstands."""
    said = [f"«{name}» {number(count)}" for name, count in withstood(found).items()]
    return f"De {number(len(FAULTS))} fallos aguanta cada defensa: {', '.join(said)}."
