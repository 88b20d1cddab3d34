"""The student's function: whether it is written yet, how it is called, what is said when it fails.

Guarantee: whatever the function raises becomes one sentence in Spanish with the student's own
line, never a traceback of ours. `KeyboardInterrupt` passes: a loop without end can be stopped.
Not guaranteed: an end. Where another process or thread runs the function, patience ends and
`unending` says so; elsewhere the student interrupts.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from psycopg import errors as postgres
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from labkit.lab.spanish import number

StudentFunction = Callable[..., object]
_LONGEST = 200
_IDLE = ("RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST")
_WAITED = (
    postgres.QueryCanceled,
    postgres.IdleInTransactionSessionTimeout,
    postgres.TransactionTimeout,
    postgres.DeadlockDetected,
)


class PendingError(Exception):
    """The function is not written yet."""


class FlawError(Exception):
    """The function does something wrong: the sentence that says what, and what shows it."""

    def __init__(self, sentence: str, shown: object = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.shown = str(shown)


class RaisedError(FlawError):
    """The function raised `error`."""

    def __init__(self, sentence: str, error: Exception) -> None:
        super().__init__(sentence)
        self.error = error


def unending(patience_s: float) -> FlawError:
    """Return what is said of a function that does not end."""
    return FlawError(
        f"Tu función no terminó en {number(patience_s)} s: busca un bucle o una espera sin fin."
    )


def refuse_unfit(function: object, signature: str) -> StudentFunction:
    """Refuse what cannot be called as the exercise does.

    Args:
        function: what the student handed over.
        signature: such as `colocar_pedido(session, pedido)`.

    Returns:
        The function.

    Raises:
        FlawError: saying what to change.
        PendingError: when its body is empty.
    """
    if not isinstance(function, FunctionType):
        kind = type(function).__name__
        raise FlawError(
            f"Esto es `{kind}`, no una función tuya escrita con `def`: pásala sin paréntesis."
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise FlawError("Escribe una función normal, sin `async` ni `yield`: aquí nada se espera.")
    expected = signature.count(",") + 1
    try:
        inspect.signature(function).bind(*range(expected))
    except TypeError:
        mine = ", ".join(inspect.signature(function).parameters)
        raise FlawError(
            f"Tu función recibe `({mine})`, y aquí se llama con {expected} argumentos: "
            f"`{signature}`."
        ) from None
    if _does_nothing(function):
        raise PendingError
    return function


def _does_nothing(function: FunctionType) -> bool:
    """Say whether it is a stub; one that always returns the same word is an answer."""
    steps = list(dis.get_instructions(function))
    returns_something = any("CONST" in step.opname and step.argval is not None for step in steps)
    return all(step.opname in _IDLE for step in steps) and not returns_something


@contextlib.contextmanager
def telling(function: StudentFunction) -> Iterator[None]:
    """Turn what happens inside into a sentence about this function.

    Raises:
        PendingError: when the function says that it is not written.
        RaisedError: when anything else is raised.
    """
    try:
        yield
    except NotImplementedError:
        raise PendingError from None
    except FlawError:
        raise
    except Exception as error:
        raise RaisedError(_told(error, function), error) from error


@contextlib.contextmanager
def lent_session(engine: Engine) -> Iterator[Session]:
    """Lend a session that has no transaction yet; what is not committed is rolled back."""
    session = Session(engine)
    try:
        yield session
    finally:
        # A connection that the server ended cannot roll back, and need not: the server has.
        with contextlib.suppress(DBAPIError):
            session.close()


def _told(error: Exception, function: StudentFunction) -> str:
    cause: BaseException = getattr(error, "orig", None) or error
    message = (str(cause).strip().splitlines() or [""])[0][:_LONGEST]
    name = f"`{type(cause).__name__}`" + (f": {message}" if message else "")
    where = _place(error, function)
    # The server ends what waits too long by cutting the connection; it cannot always say so.
    cut = isinstance(error, DBAPIError) and error.connection_invalidated
    if cut or isinstance(cause, _WAITED):
        return (
            f"Tu función esperó demasiado a un bloqueo {where}: ¿abriste otra transacción que "
            f"necesita una fila que la primera no ha confirmado? ({name})"
        )
    return f"Tu función se detuvo {where}. {name}"


def _place(error: Exception, function: Any) -> str:
    """Tell the last line of the student's own that the error came through."""
    mine = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals is function.__globals__
    ]
    if not mine:
        return "al confirmar la transacción"
    frame, line = mine[-1]
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    return f"en la línea {line}" + (f", `{source}`" if source else "")
