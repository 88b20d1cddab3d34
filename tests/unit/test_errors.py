"""The error tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from labkit import errors
from labkit.crash import CrashError
from labkit.errors import LabkitError


def tree(root: type[LabkitError]) -> Iterator[type[LabkitError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_error_stands_in_the_drawing() -> None:
    ours = [cls for cls in tree(LabkitError) if cls.__module__ == errors.__name__]

    assert [cls.__name__ for cls in ours if cls.__name__ not in (errors.__doc__ or "")] == []


def test_every_error_says_what_a_caller_may_do() -> None:
    kinds = {
        errors.TransientError,
        errors.RejectedError,
        errors.PermanentError,
        errors.ConfigurationError,
        errors.SagaError,
    }
    defined = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]

    assert [cls for cls in defined if cls is not LabkitError and not kinds & {*cls.__mro__}] == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.CommitUnknownError(42), "select pg_xact_status('42')"),
        (errors.LeaseLostError(3), "partition 3: another owner"),
        (errors.HeadMismatchError(3, None), "partition 3: the broker's head is None"),
        (
            errors.UnknownEventError("T", 2),
            "unknown event T v2: register the class, or an upcaster",
        ),
        (errors.PayloadMismatchError("M-1"), "message M-1 was handled with another payload"),
        (errors.RefusedByBrokerError(1, "too large"), "too large"),
        (errors.BrokerUnavailableError(), "The broker did not answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_what_an_operator_needs(error: LabkitError, said: str) -> None:
    assert said in str(error)


def test_a_fault_on_purpose_is_transient() -> None:
    assert issubclass(CrashError, errors.TransientError)
