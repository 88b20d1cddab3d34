"""The error tree: what a caller may do about a failure is its type.

    LabkitError
    ├── TransientError               trying again may help
    │   ├── BrokerUnavailableError       the broker did not answer
    │   ├── AttemptTimeoutError          nobody waited longer, what it did is unknown .after_s
    │   ├── BatchItemFailuresError       a batch handler named what failed    .message_ids
    │   ├── CommitUnknownError           COMMIT was sent, its answer was lost   .xid
    │   └── CrashError                   a fault that LABKIT_FAULTS asked for (labkit.crash)
    ├── RejectedError                refused without trying
    │   ├── DeadlineExceededError        nobody waits for the answer any more
    │   ├── BulkheadFullError            all of its places are taken             .limit
    │   ├── BreakerOpenError             the dependency is given a rest          .retry_after_s
    │   ├── LockedError                  another saga is at work on it           .holder .since
    │   └── LeaseLostError               another owner has the partition        .partition
    │       └── HeadMismatchError        the broker's log is not where we left it  .head
    ├── PermanentError               trying again cannot help: to the dead letters
    │   ├── InvalidMessageError          the bytes are not our wire contract     .raw
    │   ├── InvalidEventError            an event that must not leave this service
    │   ├── LateMessageError             half of its deadline had passed, and its handler drops such
    │   ├── UnknownEventError            no such type and version                .type .version
    │   ├── PayloadMismatchError         a known id came back with other content .message_id
    │   ├── HandlerTransactionError      the handler ended our transaction
    │   ├── UnknownReplyError            a saga never asked for this answer      .saga_id
    │   ├── UnknownSagaError             no such saga, or a version of it that nobody registered
    │   └── RefusedByBrokerError         the broker takes the batch, not this row .index
    ├── ConfigurationError           the set-up is wrong: says what to change
    └── SagaError                    a saga cannot do now what it was asked to

A business "no" is not in this tree: it is an event.
"""

from __future__ import annotations

import datetime as dt


class LabkitError(Exception):
    """Something went wrong in labkit."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class TransientError(LabkitError):
    """Trying again may help."""


class BrokerUnavailableError(TransientError):
    """The broker did not answer; nothing is lost, the relay tries again."""


class AttemptTimeoutError(TransientError, TimeoutError):
    """Nobody waited longer than `after_s`; the work goes on, and its outcome is unknown."""

    def __init__(self, name: str, after_s: float) -> None:
        self.after_s = after_s
        super().__init__(
            f"{name}: no answer after {after_s:.3g} s; the work goes on, and its outcome is unknown"
        )


class BatchItemFailuresError(TransientError):
    """A batch handler named the messages that failed: `message_ids`; the others can go on."""

    def __init__(self, message_ids: frozenset[str]) -> None:
        self.message_ids = message_ids
        super().__init__("the batch handler named it in batchItemFailures")


class CommitUnknownError(TransientError):
    """COMMIT was sent and its answer was lost: look for what you wrote before doing it again.

    `pg_xact_status(xid)` knows too, unless the server crashed meanwhile: a number that was not yet
    in its log is given out again, and then tells what became of another transaction.
    Raised for transactions that hold an event, on engines from `labkit.db.connect`.
    """

    def __init__(self, xid: int) -> None:
        self.xid = xid
        super().__init__(
            f"the answer to COMMIT was lost (xid {xid}): it may have happened; "
            "look for what you wrote before doing it again "
            f"(or with select pg_xact_status('{xid}'), if the server did not crash)"
        )


class RejectedError(LabkitError):
    """Refused without trying."""


class DeadlineExceededError(RejectedError):
    """The deadline has passed: nobody waits for the answer any more."""


class BulkheadFullError(RejectedError):
    """All places are taken; nothing was tried."""

    def __init__(self, name: str, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{name}: all {limit} places are taken")


class BreakerOpenError(RejectedError):
    """The breaker is open: the dependency is given a rest, for `retry_after_s` seconds more."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{name} is open: try again in {retry_after_s:.1f} s")


class LockedError(RejectedError):
    """Another is at work on the `target`: `holder`, `since` when."""

    def __init__(self, target: str, holder: str, since: dt.datetime) -> None:
        self.target, self.holder, self.since = target, holder, since
        super().__init__(
            f"{target} is held by {holder} since {since.isoformat(' ', 'seconds')}: "
            "try again when that has ended"
        )


class LeaseLostError(RejectedError):
    """Another owner has the partition: stop working on it."""

    def __init__(self, partition: int, detail: str = "another owner holds it now") -> None:
        self.partition = partition
        super().__init__(f"partition {partition}: {detail}")


class HeadMismatchError(LeaseLostError):
    """The broker's log is not where this relay left it: look again before publishing.

    `head` is the last batch that the broker knows, None when it knows none.
    """

    def __init__(self, partition: int, head: int | None) -> None:
        self.head = head
        super().__init__(partition, f"the broker's head is {head}, not what was published last")


class PermanentError(LabkitError):
    """Trying again cannot help: the message goes to the dead letters."""


class InvalidMessageError(PermanentError):
    """The bytes do not keep to the wire contract; `raw` holds them, for whoever repairs them."""

    def __init__(self, message: str, raw: bytes | str | None = None) -> None:
        self.raw = raw
        super().__init__(message)


class InvalidEventError(PermanentError):
    """The event must not leave this service as it is."""


class LateMessageError(PermanentError):
    """Half of the message's deadline had passed: redriven, it is handled all the same."""


class UnknownEventError(PermanentError):
    """No event of this type and version is registered."""

    def __init__(self, type_: str, version: int) -> None:
        self.type = type_
        self.version = version
        super().__init__(
            f"unknown event {type_} v{version}: register the class, or an upcaster from v{version}"
        )


class PayloadMismatchError(PermanentError):
    """A message id that was handled before came back with other content."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        super().__init__(
            f"message {message_id} was handled with another payload: its producer reuses ids"
        )


class HandlerTransactionError(PermanentError):
    """A handler ended the transaction that it was lent: leave commit and rollback to labkit."""


class RefusedByBrokerError(PermanentError):
    """The broker refuses one message of the batch: the one at `index`, counted from 0."""

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        super().__init__(reason)


class ConfigurationError(LabkitError):
    """The set-up is wrong."""


class SagaError(LabkitError):
    """A saga cannot do now what somebody asked it to."""


class UnknownReplyError(PermanentError):
    """A reply answers what this saga never asked for."""

    def __init__(self, saga_id: str, said: str) -> None:
        self.saga_id = saga_id
        super().__init__(f"saga {saga_id}: {said}")


class UnknownSagaError(PermanentError):
    """There is no such saga, or nobody registered the version that it began with."""
