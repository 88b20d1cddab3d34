"""Handlers: what a service does with an event, one message at a time or many at once.

Guarantee: what could not run, or would do nothing, for every message is refused when it is
registered: a wrong number of arguments, a coroutine, a generator.
Not guaranteed: that one call ends before the next begins. Workers of other partitions call the
same function at the same time, each with a session of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from labkit.clock import Clock
from labkit.deadline import LATE, Late, of_message
from labkit.errors import ConfigurationError, HandlerTransactionError
from labkit.messages import Message
from labkit.partial_batches import BatchResponse, raise_failures
from labkit.wire import DEADLINE


@dataclass(frozen=True)
class Handler:
    """What to do with one type of event.

    Args:
        handle: applies the effect in the given session; never commits.
        lock_first: called once per batch, before any message is handled, with all messages of
            the types that name this function, to lock the rows they share in one fixed order.
            Without it two consumers whose batches touch the same rows would deadlock.
        late: what to do with a message when half of the time from its sending to its deadline has
            passed: `handle` it; `dead_letter` it, where its key waits for an operator, and redriven
            it is handled; or `count` it, and go on. For requests: a fact stays true when it is
            late, and who drops it knows less than the others.

    Raises:
        ConfigurationError: when it cannot be called with session and message, or would only
            return something to be awaited: its message would be gone without an effect.
    """

    handle: Callable[[Session, Message[Any]], None]
    lock_first: Callable[[Session, Sequence[Message[Any]]], None] | None = None
    late: Late = "handle"

    def __post_init__(self) -> None:
        """Refuse what fails, or does nothing, for every message."""
        _refuse_unfit(self.handle, self.lock_first, self.late)

    def run(self, session: Session, messages: Sequence[Message[Any]], clock: Clock) -> None:
        """Handle messages that follow each other, each within what is left of its deadline.

        What is handled after it has none: all that asks for one would refuse, at each attempt.
        """
        handle: Callable[..., object] = self.handle
        for message in messages:
            if DEADLINE in message.headers:
                scope = of_message(message, clock)
                with scope if scope and scope.remaining_s() > 0 else nullcontext():
                    _refuse_unrun(handle(session, message))
            else:
                _refuse_unrun(handle(session, message))


@dataclass(frozen=True)
class BatchHandler:
    """What to do with many events at once: one statement for a set, instead of one each.

    A batch with a member that fails is done again one by one, so `handle_all` must do the same
    for a message alone as for a message among others. Its messages may have a deadline each, so
    none holds for the call.

    Args:
        handle_all: applies the effects of messages that follow each other in the stream, oldest
            first, all of types that name this function; a key may be there several times. It may
            name those that failed: see `labkit.partial_batches`.
        lock_first: see `Handler`. One statement locks its rows in no fixed order.
        late: see `Handler`.
    """

    handle_all: Callable[[Session, Sequence[Message[Any]]], BatchResponse | None]
    lock_first: Callable[[Session, Sequence[Message[Any]]], None] | None = None
    late: Late = "handle"

    def __post_init__(self) -> None:
        """Refuse what fails, or does nothing, for every message."""
        _refuse_unfit(self.handle_all, self.lock_first, self.late)

    def run(self, session: Session, messages: Sequence[Message[Any]], _: Clock) -> None:
        """Handle messages that follow each other.

        Raises:
            BatchItemFailuresError: when the handler named messages that failed.
        """
        handle_all: Callable[..., object] = self.handle_all
        response = handle_all(session, messages)
        if response is not None:
            _refuse_unrun(response)
            raise_failures(response, messages)


AnyHandler = Handler | BatchHandler


def _refuse_unfit(
    handle: Callable[..., object], lock: Callable[..., object] | None, late: str
) -> None:
    if late not in LATE:
        raise ConfigurationError(f"late is one of {', '.join(LATE)}, not {late!r:.40}")
    for function in (handle, lock or handle):
        try:
            inspect.signature(function).bind(None, None)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"a handler takes two arguments, session first, not {function!r:.80}: {error}"
            ) from error
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(f"a handler is a plain def: {function!r:.80} would not run")


def _refuse_unrun(result: object) -> None:
    if isinstance(result, Coroutine | Generator):
        result.close()
        raise HandlerTransactionError("a handler returned a coroutine: write a plain def")
