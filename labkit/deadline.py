"""Deadline: until when somebody waits for the answer, known to everything that works on it.

The problem: each layer has a timeout of its own, so the inner ones go on working for a caller who
has left. A deadline is one moment that is handed down: through calls as a context variable, through
messages as the header `deadline`.

    with deadline(2.0):
        reserve()        # retries, bulkheads and attempts inside see how much time is left

Guarantee: of nested deadlines the nearer one holds; what is stored in the outbox inside carries it.
Not guaranteed: that anything is interrupted. A deadline ends what asks for it (`check`,
`remaining_s`), and a new thread has none unless it runs in a copy of the context. Events are facts
and stay true after it: let only handlers of requests drop what is `late`.

Crash windows: none; nothing is stored.

Source: Beyer et al., *Site Reliability Engineering*, ch. 22 ("Deadline propagation").
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from labkit import limits
from labkit.clock import Clock, SystemClock
from labkit.errors import DeadlineExceededError, InvalidMessageError
from labkit.messages import Message
from labkit.wire import DEADLINE, read_time, wire_time

Late = Literal["handle", "dead_letter", "count"]
LATE: tuple[Late, ...] = ("handle", "dead_letter", "count")
_UNKNOWN_TIME = read_time(None)
_SYSTEM = SystemClock()


class Scope:
    """The block in which a deadline holds; made by `deadline` and `of_message`.

    Args:
        seconds: from now; below zero for a deadline that has passed.
        clock: what measures them.
    """

    __slots__ = ("_at_s", "_token", "clock")

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self.clock = clock or _SYSTEM
        self._at_s = self.clock.monotonic_s() + seconds
        self._token: Token[Scope | None] | None = None

    def remaining_s(self) -> float:
        """Return the seconds that are left, below zero when it has passed."""
        return self._at_s - self.clock.monotonic_s()

    def __enter__(self) -> Self:
        outer = _current.get()
        # Remaining times are compared, since the two may be on different clocks.
        is_nearer = outer is None or self.remaining_s() < outer.remaining_s()
        self._token = _current.set(self if is_nearer else outer)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


_current: ContextVar[Scope | None] = ContextVar("labkit_deadline", default=None)


def deadline(seconds: float, *, clock: Clock | None = None) -> Scope:
    """Give a block so many seconds; a nearer deadline around it stays.

    Args:
        seconds: from now.
        clock: what measures them.

    Raises:
        ConfigurationError: when the seconds make no sense.
    """
    limits.number("a deadline in seconds", seconds, 0.0)
    return Scope(seconds, clock)


def remaining_s() -> float | None:
    """Return the seconds that are left, below zero when it has passed; None without a deadline."""
    scope = _current.get()
    return None if scope is None else scope.remaining_s()


def check() -> None:
    """Go on only if somebody still waits.

    Raises:
        DeadlineExceededError: when the deadline has passed.
    """
    left_s = remaining_s()
    if left_s is not None and left_s <= 0:
        raise DeadlineExceededError


def deadline_headers() -> dict[str, str]:
    """Return the header that hands the deadline on with a message; empty when there is none."""
    scope = _current.get()
    if scope is None:
        return {}
    return {DEADLINE: wire_time(scope.clock.now() + timedelta(seconds=scope.remaining_s()))}


def deadline_of(message: Message[Any]) -> datetime | None:
    """Return until when the sender waits; None when the header is missing or is no time."""
    text = message.headers.get(DEADLINE)
    try:
        return read_time(text) if text else None
    except InvalidMessageError:  # a stranger's header costs nobody a message
        return None


def of_message(message: Message[Any], clock: Clock) -> Scope | None:
    """Return the block in which a message's deadline holds; None when it has none.

    Args:
        message: with or without the header.
        clock: whose `now` is compared with the sender's; the hosts' clocks must agree roughly.
    """
    until = deadline_of(message)
    return Scope((until - clock.now()).total_seconds(), clock) if until else None


def is_late(message: Message[Any], now: datetime) -> bool:
    """Say whether half of the time between sending and deadline has passed.

    Why half: what begins shortly before the deadline ends after it, so a queue that drops only
    what has expired keeps its worker busy with work that expires in its hands.

    Args:
        message: without a deadline, it is never late; without a time of its own, at the deadline.
        now: the time.
    """
    until = deadline_of(message)
    if until is None:
        return False
    sent = min(message.occurred_at, until)
    return now >= (until if sent == _UNKNOWN_TIME else sent + (until - sent) / 2)
