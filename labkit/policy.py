"""Policy: what protects one dependency, in the one order in which the layers mean what they say.

    fallback > deadline > retry > breaker > bulkhead > attempt timeout > faults

    policy = Policy("stock", deadline_s=2.0, retry=Retry("stock"), breaker=breaker,
                    fallback=lambda error: UNKNOWN, signals=signals)
    policy.call(client.reserve, "RES-1", idempotent=True)

Guarantee: the layers run in this order; another one is refused when the policy is built, with the
reason. What was not declared idempotent is refused by a policy that retries.
Not guaranteed: that a call ends in time. The deadline ends pauses, waits and attempts that have a
timeout; a call without one ends when it ends. Nor that an `AdaptiveLimit` counts what an attempt
timeout left behind: up to 64 attempts run in all; beside a `Bulkhead`, as many as it has places.
Refusals of the inner layers (`RejectedError`) pass the breaker: have it ignore them, or a full
bulkhead opens it.

Crash windows: none; nothing is stored.

Source: resilience4j's decorators and Polly's pipelines; Nygard, *Release It!*, 2nd ed., ch. 5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import CoroutineType
from typing import Any, Protocol, Self, TypeVar

import pybreaker

from labkit import idempotency, limits
from labkit.adaptive import AdaptiveLimit
from labkit.attempts import AttemptTimeout
from labkit.bulkhead import Bulkhead
from labkit.clock import Clock
from labkit.deadline import Scope, check
from labkit.errors import ConfigurationError, RejectedError, TransientError
from labkit.faults import Faults
from labkit.retry import Retry, refuse_coroutine
from labkit.signals import Signals

T = TypeVar("T")
# What an outage looks like. Why not Exception: a fallback would hide bugs.
OUTAGE = (TransientError, RejectedError, pybreaker.CircuitBreakerError, OSError)


class Layer(Protocol):
    """Anything that calls a function in its own way, such as a breaker."""

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call the function, or refuse."""
        ...


class Fallback:
    """Answers in place of a dependency that does not.

    Args:
        name: whose it is, for signals.
        answer: gets the error, returns what the caller gets. It must not need the dependency, nor
            look like its answer: who reads it should know that it is second best.
        on: the errors that are replaced; others, such as bugs and permanent ones, come out.
        signals: hears `answered`.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Exception], Any],
        *,
        on: tuple[type[Exception], ...] = OUTAGE,
        signals: Signals | None = None,
    ) -> None:
        self.name = name
        self.signals = signals
        self._answer, self._on = answer, on

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function; answer in its place when it fails as an outage does."""
        try:
            return function(*args, **options)
        except self._on as error:
            if self.signals is not None:
                self.signals.tell("fallback", self.name, "answered", f"{type(error).__name__}")
            answer: T = self._answer(error)
            return answer


class Deadline:
    """Gives everything inside so many seconds together.

    Args:
        name: whose it is, for signals.
        seconds: see `labkit.deadline`; a nearer deadline outside stays.
        clock: what measures them.
        signals: hears `refused`.

    Raises:
        ConfigurationError: when the seconds make no sense.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        *,
        clock: Clock | None = None,
        signals: Signals | None = None,
    ) -> None:
        limits.number("deadline_s", seconds, 0.001)
        self.name = name
        self.seconds = seconds
        self.signals = signals
        self._clock = clock

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function inside the deadline.

        Raises:
            DeadlineExceededError: when the one outside has passed; it was not called.
        """
        try:
            check()
        except RejectedError:
            if self.signals is not None:
                self.signals.tell("deadline", self.name, "refused")
            raise
        with Scope(self.seconds, self._clock):
            return function(*args, **options)


# From the outside in: a layer's name, its types, and why it stands outside of those that follow.
_ORDER: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("fallback", (Fallback,), "further in, its answer looks like a success to retry and breaker"),
    ("deadline", (Deadline,), "further in, each attempt gets the whole time anew"),
    (
        "retry",
        (Retry,),
        "inside the breaker, its attempts count as one call and go on when it should be open",
    ),
    (
        "breaker",
        (pybreaker.CircuitBreaker,),
        "further in, calls that will be refused take places and threads first",
    ),
    (
        "bulkhead",
        (Bulkhead, AdaptiveLimit),
        "inside the timeout, waiting for a place counts as slowness of the dependency",
    ),
    (
        "attempt timeout",
        (AttemptTimeout,),
        "inside the faults, a call that was made slow on purpose is never cut off",
    ),
    ("faults", (Faults,), "they stand for the dependency"),
)
_NAMES = [name for name, _, _ in _ORDER]
LINE = " > ".join(_NAMES)


class Policy:
    """The layers around one dependency; share one policy among all that call it.

    Args:
        name: of the dependency.
        fallback: answers in its place, given the error; see `Fallback`.
        deadline_s: for all attempts and pauses together, in seconds.
        retry: see `labkit.retry`.
        breaker: pybreaker's, or anything that has `call`.
        bulkhead: a `Bulkhead` or an `AdaptiveLimit`.
        attempt_timeout_s: for one attempt, in seconds; see `labkit.attempts` for what it costs.
        faults: injected for a test or a game day.
        signals: hears all layers that have no bus of their own.
        clock: for the deadline.

    Raises:
        ConfigurationError: when a number makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        fallback: Callable[[Exception], Any] | Fallback | None = None,
        deadline_s: float | None = None,
        retry: Retry | None = None,
        breaker: Layer | None = None,
        bulkhead: Bulkhead | AdaptiveLimit | None = None,
        attempt_timeout_s: float | None = None,
        faults: Faults | None = None,
        signals: Signals | None = None,
        clock: Clock | None = None,
    ) -> None:
        limits.name("the policy's name", name)
        if fallback is not None and not isinstance(fallback, Fallback):
            fallback = Fallback(name, fallback)
        layers: tuple[Layer | None, ...] = (
            fallback,
            None if deadline_s is None else Deadline(name, deadline_s, clock=clock),
            retry,
            breaker,
            bulkhead,
            None if attempt_timeout_s is None else _timeout(name, attempt_timeout_s, bulkhead),
            faults,
        )
        self._arrange(name, [each for each in layers if each is not None], signals)

    @classmethod
    def of(cls, *layers: Layer, name: str = "policy", signals: Signals | None = None) -> Self:
        """Return a policy of layers, given from the outside in.

        Args:
            layers: in the order of this module's docstring, each at most once.
            name: of the dependency.
            signals: hears all layers that have no bus of their own.

        Raises:
            ConfigurationError: when something is no layer, or stands in the wrong place: why.
        """
        ranks = [_rank(each) for each in layers]
        for outer, inner in pairwise(ranks):
            _refuse_wrong(outer, inner)
        policy = cls(name)
        policy._arrange(name, layers, signals)
        return policy

    def _arrange(
        self, name: str, layers: list[Layer] | tuple[Layer, ...], signals: Signals | None
    ) -> None:
        self.name = name
        self.layers = tuple(layers)
        self._retries = any(isinstance(each, Retry) for each in layers)
        for layer in layers:
            if signals is not None and getattr(layer, "signals", signals) is None:
                layer.signals = signals  # type: ignore[attr-defined]
        self._calls = tuple(each.call for each in self.layers)

    def call(
        self, function: Callable[..., T], /, *args: Any, idempotent: bool = False, **options: Any
    ) -> T:
        """Call a function through all layers.

        Args:
            function: what to call; `args` and `options` are its arguments.
            idempotent: declares for this call that doing it twice does no harm.

        Returns:
            Its answer, or the fallback's.

        Raises:
            ConfigurationError: when the policy retries and nobody declared it idempotent, or it is
                a coroutine function, which would run outside of all layers.
            Exception: what comes out of the outermost layer.
        """
        if self._retries and not idempotent:
            idempotency.refuse_unless_idempotent(self.name, function)
        # Its keywords are its own: a layer must not take one for an argument of itself.
        work = partial(function, **options) if options else function
        # Each layer calls its first argument with those that follow, so the layers are arguments.
        first, *inner = *self._calls, work
        said = {"idempotent": True} if self._retries else {}
        result: T = first(*inner, *args, **said)
        if result.__class__ is CoroutineType:
            refuse_coroutine(result)
        return result


def _timeout(name: str, seconds: float, bulkhead: object) -> AttemptTimeout:
    # An abandoned attempt has left the bulkhead and goes on: counted here, or it gets them all.
    if isinstance(bulkhead, Bulkhead):
        return AttemptTimeout(name, seconds, most=bulkhead.limit)
    return AttemptTimeout(name, seconds)


def _rank(layer: object) -> int:
    for rank, (_, types, _) in enumerate(_ORDER):
        if isinstance(layer, types):
            return rank
    if hasattr(layer, "call") and hasattr(layer, "current_state"):
        return _NAMES.index("breaker")
    raise ConfigurationError(f"{layer!r:.80} is no layer of a policy; there are {LINE}")


def _refuse_wrong(outer: int, inner: int) -> None:
    if outer == inner:
        raise ConfigurationError(f"two layers of one kind ({_NAMES[outer]}): leave one out")
    if outer > inner:
        name, _, why = _ORDER[inner]
        raise ConfigurationError(
            f"{name} belongs outside of {_NAMES[outer]}: {why}. The order is {LINE}"
        )
