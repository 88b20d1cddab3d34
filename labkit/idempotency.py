"""Idempotency is declared: whoever would do a thing twice asks for it first.

The problem: a call that raised may have happened. Doing it again charges a card twice, unless its
author has seen to that; no library can find it out, so it must be told.

Guarantee: what nobody declared is refused. Not guaranteed: that the declaration is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from labkit.errors import ConfigurationError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def idempotent(function: FunctionT) -> FunctionT:
    """Declare that doing it twice is the same as doing it once, so that it may be retried."""
    try:
        function.labkit_idempotent = True  # type: ignore[attr-defined]
    except AttributeError as error:
        raise ConfigurationError(
            f"{function!r:.80} cannot be marked: declare it at the call, with idempotent=True"
        ) from error
    return function


def is_idempotent(function: object) -> bool:
    """Say whether a function was declared idempotent."""
    return getattr(function, "labkit_idempotent", False) is True


def refuse_unless_idempotent(name: str, function: object) -> None:
    """Refuse to do twice what was not declared idempotent.

    Raises:
        ConfigurationError: saying how to declare it.
    """
    if not is_idempotent(function):
        raise ConfigurationError(
            f"{name}: {function!r:.80} may have happened although it raised, and would happen "
            "twice: mark it @idempotent, or declare it at the call, with idempotent=True"
        )
