"""Partial batches: a batch handler names the messages that failed, and the others go on.

The shape is that of AWS Lambda with `ReportBatchItemFailures`, so that a handler can move there:

    return {"batchItemFailures": [{"itemIdentifier": message.message_id}]}

All messages of a batch share one transaction here, so the failed ones cannot simply be left out: it
is rolled back, and the rest is run again in one without them. What failed is held like any other
failure, with its attempts and its pause; what comes behind it on the same key waits.

Guarantee: a message that was named has no effect, and a message that was not has it once. None, an
empty response and an empty list say that all went well. A response of another shape, and one that
names a message which is not in the batch, is a failure of the whole batch: AWS's rule, for the
other reading would lose messages.
Not guaranteed: that the rest is run again as one batch more than once. When it fails too, each
message runs alone.

Crash windows: those of `labkit.consumer`. Between the commit of the rest and the holding of what
failed, that is pending, and held by whoever comes next.

Source: AWS Lambda, "Handling errors for an SQS event source".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from labkit.errors import BatchItemFailuresError, TransientError
from labkit.messages import Message

_LIST, _ID = "batchItemFailures", "itemIdentifier"


class BatchItemFailure(TypedDict):
    """One message that failed."""

    itemIdentifier: str


class BatchResponse(TypedDict, total=False):
    """What a batch handler returns."""

    batchItemFailures: Sequence[BatchItemFailure]


def _listed(named: Any) -> Sequence[Any]:
    if named is None:
        return ()
    if isinstance(named, str) or not isinstance(named, Sequence):
        raise TypeError
    return named


def raise_failures(response: object, messages: Sequence[Message[Any]]) -> None:
    """Raise what a batch handler reports; return when it reports nothing.

    Args:
        response: what it returned.
        messages: what it was given.

    Raises:
        BatchItemFailuresError: naming the messages that failed.
        TransientError: when nobody can tell from it which ones did.
    """
    if not isinstance(response, Mapping) or response.keys() - {_LIST}:
        raise TransientError(f"a batch handler returned {response!r:.80}, not {{{_LIST!r}: [...]}}")
    named = response.get(_LIST)
    try:
        failed = frozenset(item[_ID] for item in _listed(named))
    except (TypeError, KeyError) as error:
        raise TransientError(f"{_LIST} holds {{{_ID!r}: id}}, not {named!r:.80}") from error
    if unknown := failed - {message.message_id for message in messages}:
        raise TransientError(f"{_LIST} names what is not in the batch: {unknown!r:.80}")
    if failed:
        raise BatchItemFailuresError(failed)
