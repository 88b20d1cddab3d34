"""The saga's rules, pure: from a state and what happened to the new state and what to do.

Guarantee: no input leaves a saga in between. It goes forward, pauses before another attempt, makes
good what it did (in reverse order, one step at a time, each as durable as a step forward), or is
STUCK with a reason for a person to decide. Three outcomes are told apart: a success goes on, a
business "no" compensates without another attempt (once every line has its answer), a failure or a
missing answer is tried again first. A step whose outcome stays unknown, or of which only some
parts succeeded, is made good too.
Not guaranteed: isolation. Between two steps others see what the first one did; see
`labkit.saga.locks`.

Pattern: Richardson, *Microservices Patterns*, ch. 4; pausing and due times are those of
`labkit.saga.deadlines`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from labkit.errors import SagaError, UnknownReplyError
from labkit.saga.actions import Command, Outcome
from labkit.saga.definition import COMPENSATABLE, DO, PIVOT, UNDO, Request, Saga
from labkit.saga.replies import Verdict, classify, is_complete
from labkit.saga.state import (
    COMPENSATED,
    COMPENSATING,
    COMPLETED,
    RUNNING,
    STUCK,
    Cancel,
    Compensate,
    Decision,
    Do,
    Due,
    Note,
    Reply,
    Retry,
    Skip,
    Started,
    State,
    Stimulus,
)

_MOST_DOUBLINGS = 30


def decide(saga: Saga, state: State, stimulus: Stimulus, now: datetime) -> Decision:
    """Return what follows when something happens to a saga.

    Args:
        saga: the definition of the state's version.
        state: the saga before.
        stimulus: what happened.
        now: the time, with zone.

    Raises:
        labkit.errors.UnknownReplyError: when a reply answers nothing that was asked.
        SagaError: when an operator or the business asks for what cannot be; nothing changes.
    """
    return _RULES[type(stimulus)](saga, state, stimulus, now)


def _start(saga: Saga, state: State, _: Started, now: datetime) -> Decision:
    first = Request(next(iter(saga.steps)), DO)
    return _noted(Note("started"), _enter(saga, state, first, now))


def _reply(saga: Saga, state: State, reply: Reply, now: datetime) -> Decision:
    verdict = classify(saga, state, reply)
    said = f"{reply.event} {reply.part}".strip() + (f": {reply.reason}" if reply.reason else "")
    note = Note(_WORDS[verdict], str(reply.request), said)
    if verdict is Verdict.IGNORE:
        return Decision(state, notes=(note,))
    if verdict is Verdict.COMPENSATE:
        return _noted(note, _undo_again(saga, state, reply.request, now))
    if reply.outcome is Outcome.FAILURE:
        return _noted(note, _not_now(saga, state, reply, now))
    answered = state.with_(answers=state.answers | {reply.part: reply.outcome})
    if answered.status is STUCK:
        return Decision(answered, notes=(note,))
    return _noted(note, _answered(saga, answered, reply, now))


_WORDS = {
    Verdict.APPLY: "answered",
    Verdict.IGNORE: "ignored",
    Verdict.COMPENSATE: "late success",
}


def _answered(saga: Saga, state: State, reply: Reply, now: datetime) -> Decision:
    """Go on when the step has all its answers."""
    says_no = reply.outcome is Outcome.REJECTION
    if not is_complete(saga, state):
        # Kept, because the last answer of a refused step may be a yes.
        said = {"reason": reply.reason or reply.event} if says_no else {}
        return Decision(state.with_(**said))
    if Outcome.REJECTION in state.answers.values():
        why = state.reason if not says_no and state.reason else reply.reason or reply.event
        return _rejected(saga, state, why, now)
    return _advance(saga, state, now)


def _not_now(saga: Saga, state: State, reply: Reply, now: datetime) -> Decision:
    if not state.sent:  # stuck, or another part said so before and the next attempt is set
        return Decision(state)
    return _failed(saga, state, f"{reply.event}: {reply.reason or 'no reason given'}", now)


def _due(saga: Saga, state: State, _: Due, now: datetime) -> Decision:
    request = state.in_hand
    if request is None or state.due_at is None or state.due_at > now:
        return Decision(state)
    if not state.sent:
        return _send(saga, state, request, state.attempt + 1, now)
    note = Note("timed out", str(request), f"attempt {state.attempt}")
    return _noted(note, _failed(saga, state, "no answer in time", now))


def _failed(saga: Saga, state: State, why: str, now: datetime) -> Decision:
    """Pause before the next attempt; without one left, go back or give the step to a person."""
    request, command = _request(saga, state)
    if state.attempt < command.attempts:
        pause = timedelta(seconds=_pause_s(command, state))
        return Decision(state.with_(sent=False, due_at=now + pause))
    why = f"{request.step}: {why}, {state.attempt} times"
    step = saga.steps[request.step]
    if request.direction is UNDO or saga.is_past_return(step.name):
        return _stick(state, why)
    if step.kind is PIVOT and step.undo is None:
        return _stick(state, f"{why}; nobody knows whether the point of no return is behind us")
    return _go_back(saga, _with_effect(state), why, now)


def _pause_s(command: Command, state: State) -> float:
    """Return the pause after an attempt: doubled each time, between a half and all of it.

    Why not a random source: the same state must give the same decision. The id spreads those
    that failed together.
    """
    longest_s = command.pause_s * 2.0 ** min(state.attempt - 1, _MOST_DOUBLINGS)
    spread = crc32(f"{state.id} {state.step} {state.attempt}".encode()) / 2**32
    return min(command.cap_s, longest_s) * (0.5 + spread / 2)


def _rejected(saga: Saga, state: State, why: str, now: datetime) -> Decision:
    request, _ = _request(saga, state)
    said = f"{request.step}: {why}"
    if request.direction is UNDO or saga.is_past_return(request.step):
        return _stick(state, f"{said}: a no where none is possible")
    # What every part refused has no effect; what some parts granted has.
    partly = Outcome.SUCCESS in state.answers.values()
    return _go_back(saga, _with_effect(state) if partly else state, said, now)


def _with_effect(state: State) -> State:
    return state.with_(done=(*state.done, state.step))


def _advance(saga: Saga, state: State, now: datetime) -> Decision:
    """Go to the next step, forward or back, or to the end."""
    if state.direction is UNDO:
        undone = state.with_(done=state.done[:-1], undone=(*state.undone, state.step))
        return _undo_next(saga, undone, now)
    done = _with_effect(state)
    following = saga.after(state.step)
    if following is None:
        return _end(done, COMPLETED)
    return _enter(saga, done, Request(following, DO), now)


def _go_back(saga: Saga, state: State, why: str, now: datetime) -> Decision:
    going = state.with_(status=COMPENSATING, direction=UNDO, reason=why)
    return _noted(Note("compensating", detail=why), _undo_next(saga, going, now))


def _undo_next(saga: Saga, state: State, now: datetime) -> Decision:
    while state.done and saga.steps[state.done[-1]].undo is None:
        state = state.with_(done=state.done[:-1])
    if not state.done:
        return _end(state, COMPENSATED)
    return _enter(saga, state, Request(state.done[-1], UNDO), now)


def _undo_again(saga: Saga, state: State, request: Request, now: datetime) -> Decision:
    """Make good a step that succeeded after it was given up."""
    if saga.steps[request.step].undo is None:
        raise UnknownReplyError(
            state.id, f"{request} succeeded after it was given up, and nothing makes it good"
        )
    undone = tuple(step for step in state.undone if step != request.step)
    # At the front, so the last to be made good, once for all that comes late until then.
    waiting = state.with_(done=(request.step, *state.done), undone=undone)
    if state.status is COMPENSATED:
        return _undo_next(saga, waiting.with_(status=COMPENSATING), now)
    return Decision(waiting)


def _enter(saga: Saga, state: State, request: Request, now: datetime) -> Decision:
    entered = state.with_(
        step=request.step, direction=request.direction, attempt=0, sent=False, answers={}
    )
    return _send(saga, entered, request, 1, now)


def _send(saga: Saga, state: State, request: Request, attempt: int, now: datetime) -> Decision:
    action = saga.action(request)
    # Nobody answers a request of no parts, so waiting for it would end in giving it up.
    awaited = isinstance(action, Command) and action.outcomes and action.expected(state.data)
    due_at = now + timedelta(seconds=action.timeout_s) if isinstance(action, Command) else None
    asked = state.asked if state.has_asked(request) else (*state.asked, str(request))
    sent = state.with_(attempt=attempt, sent=True, asked=asked, due_at=due_at if awaited else None)
    what = "asked" if isinstance(action, Command) else "ran"
    note = Note(what, str(request), f"attempt {attempt}" if attempt > 1 else "")
    # What nobody answers, and what runs in this transaction, is done when it commits.
    following = Decision(sent) if awaited else _advance(saga, sent, now)
    return Decision(
        following.state, (Do(request, attempt), *following.actions), (note, *following.notes)
    )


def _end(state: State, status: Any) -> Decision:
    ended = state.with_(status=status, step="", answers={}, due_at=None, attempt=0, sent=False)
    return Decision(ended, notes=(Note(str(status).lower()),))


def _stick(state: State, why: str) -> Decision:
    stuck = state.with_(status=STUCK, due_at=None, sent=False, reason=why)
    return Decision(stuck, notes=(Note("stuck", str(state.in_hand), why),))


def _cancel(saga: Saga, state: State, cancel: Cancel, now: datetime) -> Decision:
    if state.status is not RUNNING:
        raise SagaError(f"{state.id} is {state.status}: only what is running can be cancelled")
    if saga.steps[state.step].kind is not COMPENSATABLE:
        raise SagaError(f"{state.id} is at {state.step}: it can no longer be cancelled")
    # Its answer is still out, so its outcome is unknown.
    return _noted(
        Note("cancelled", detail=cancel.why), _go_back(saga, _with_effect(state), cancel.why, now)
    )


def _retry(saga: Saga, state: State, retry: Retry, now: datetime) -> Decision:
    request = _stuck(state)
    note = Note("retried", str(request), retry.why)
    going = state.with_(status=COMPENSATING if state.direction is UNDO else RUNNING)
    if is_complete(saga, going) and Outcome.REJECTION not in going.answers.values():
        return _noted(note, _advance(saga, going, now))
    return _noted(note, _enter(saga, going, request, now))


def _skip(saga: Saga, state: State, skip: Skip, now: datetime) -> Decision:
    request = _stuck(state)
    going = state.with_(status=COMPENSATING if state.direction is UNDO else RUNNING)
    return _noted(Note("skipped", str(request), skip.why), _advance(saga, going, now))


def _compensate(saga: Saga, state: State, wanted: Compensate, now: datetime) -> Decision:
    request = _stuck(state)
    if request.direction is UNDO:
        raise SagaError(f"{state.id} is stuck while compensating: retry or skip {request.step}")
    if saga.is_past_return(request.step):
        raise SagaError(f"{state.id} is past the point of no return: retry or skip {request.step}")
    note = Note("told to compensate", str(request), wanted.why)
    return _noted(note, _go_back(saga, _with_effect(state), wanted.why, now))


def _stuck(state: State) -> Request:
    if state.status is not STUCK or state.in_hand is None:
        raise SagaError(f"{state.id} is {state.status}: only what is STUCK waits for a person")
    return state.in_hand


def _request(saga: Saga, state: State) -> tuple[Request, Command]:
    request = Request(state.step, state.direction)
    action = saga.action(request)
    assert isinstance(action, Command)  # noqa: S101 - only commands are answered
    return request, action


def _noted(note: Note, decision: Decision) -> Decision:
    return decision._replace(notes=(note, *decision.notes))


_RULES: dict[type[Stimulus], Callable[[Saga, State, Any, datetime], Decision]] = {
    Started: _start,
    Reply: _reply,
    Due: _due,
    Cancel: _cancel,
    Retry: _retry,
    Skip: _skip,
    Compensate: _compensate,
}
