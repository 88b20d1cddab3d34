"""Replies that were not awaited are classified, never applied to whatever step is in hand.

| what comes | what is done |
|---|---|
| the awaited answer | applied |
| the same answer again; a late no | ignored |
| a success after the step was given up | made good: its effect would belong to nobody |
| an answer to what was never asked | dead letter |
"""

from __future__ import annotations

from enum import StrEnum

from labkit.errors import UnknownReplyError
from labkit.messages import Event
from labkit.saga.actions import Command, Outcome
from labkit.saga.definition import DO, UNDO, Saga
from labkit.saga.state import ENDED, Reply, State


class Verdict(StrEnum):
    """What to do with a reply."""

    APPLY = "apply"
    IGNORE = "ignore"
    COMPENSATE = "compensate"


def read_reply(saga: Saga, state: State, event: Event, request: str | None) -> Reply:
    """Return which request an event answers, and how.

    Args:
        saga: the definition of the state's version.
        state: the saga.
        event: what came.
        request: `step/direction` when the answer names it, else its type alone must tell.

    Raises:
        UnknownReplyError: when it answers no step of this saga, or not the named one.
    """
    name = type(event).event_type
    fitting = saga.answered_by(type(event))
    if request is not None:
        fitting = [each for each in fitting if str(each[0]) == request]
    if not fitting:
        raise UnknownReplyError(state.id, f"{name} does not answer {request or 'any step'}")
    asked = [each for each in fitting if state.has_asked(each[0])]
    in_hand = [each for each in asked if each[0] == state.in_hand]
    found, outcome = (in_hand or asked[::-1] or fitting)[0]
    command = saga.action(found)
    assert isinstance(command, Command)  # noqa: S101 - only commands are answered
    return Reply(found, outcome, command.part(event), name, getattr(event, "reason", None))


def classify(saga: Saga, state: State, reply: Reply) -> Verdict:
    """Say what to do with a reply.

    Raises:
        UnknownReplyError: when nobody asked for it.
    """
    if not state.has_asked(reply.request):
        raise UnknownReplyError(state.id, f"{reply.event} answers {reply.request}, never asked for")
    command = saga.action(reply.request)
    if isinstance(command, Command) and reply.part not in command.expected(state.data):
        raise UnknownReplyError(
            state.id, f"{reply.event} is about {reply.part!r:.80}, which {reply.request} has not"
        )
    if state.in_hand == reply.request and state.status not in ENDED:
        return _awaited(state, reply)
    if reply.request.direction is DO and reply.outcome is Outcome.SUCCESS:
        return _late_success(state, reply.request.step)
    return Verdict.IGNORE


def _awaited(state: State, reply: Reply) -> Verdict:
    """Keep the first answer of a part, but never miss that something was granted after all."""
    known = state.answers.get(reply.part)
    return Verdict.IGNORE if known in {reply.outcome, Outcome.SUCCESS} else Verdict.APPLY


def _late_success(state: State, step: str) -> Verdict:
    # What is counted on, or will be made good later, is taken care of. The compensation in hand
    # may have been handled before the late success, so it does not count.
    compensating = state.direction is UNDO and state.status not in ENDED
    settled = state.done[:-1] if compensating else state.done
    return Verdict.IGNORE if step in settled else Verdict.COMPENSATE


def is_complete(saga: Saga, state: State) -> bool:
    """Say whether every part of the step in hand is answered."""
    if state.in_hand is None:
        return False
    command = saga.action(state.in_hand)
    return isinstance(command, Command) and command.expected(state.data) <= set(state.answers)
