"""Deaths are real, and each other way in which a process may end is told apart from them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.lab.exercises.deaths import dies_after
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError, PendingError, telling


def works(steps: Steps) -> None:
    steps.done("uno")
    steps.done("dos")


def _open_files() -> set[Path]:
    return set(Path("/dev/fd").iterdir())


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No pipe and no blocked signal, whichever way it ended."""
    before = _open_files()
    yield
    assert _open_files() <= before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_process_that_dies_is_really_killed_and_another_one_is_told_apart() -> None:
    assert dies_after(2, works)
    assert not dies_after(3, works)


def test_a_process_that_does_not_end_is_ended_and_told_as_the_students() -> None:
    heard, told = os.pipe()

    def work(_steps: Steps) -> None:
        os.write(told, str(os.getpid()).encode())
        signal.pause()

    with pytest.raises(FlawError, match="Tu función no terminó en 0,2 s"):
        dies_after(1, work, patience_s=0.2)
    child = int(os.read(heard, 100))
    os.close(heard)
    os.close(told)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_the_students_function_raises_there_is_told_in_its_sentence() -> None:
    def work(_steps: Steps) -> None:
        with telling(work):
            raise ValueError("repetido")

    with pytest.raises(FlawError, match=r"Tu función se detuvo en la línea .*ValueError.*repetido"):
        dies_after(1, work)


def test_a_function_that_is_not_written_there_took_other_steps() -> None:
    def work(_steps: Steps) -> None:
        raise PendingError

    assert not dies_after(1, work)


def test_what_else_is_raised_there_is_not_the_students_fault() -> None:
    def work(_steps: Steps) -> None:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(LabkitError, match="ConnectionRefusedError: nobody listens"):
        dies_after(1, work)


def test_a_fork_that_is_refused_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", refuse)

    with pytest.raises(BlockingIOError):
        dies_after(1, works)


def test_an_interrupt_ends_the_child_too() -> None:
    heard, told = os.pipe()

    def work(_steps: Steps) -> None:
        os.write(told, str(os.getpid()).encode())
        os.kill(os.getppid(), signal.SIGINT)
        signal.pause()

    with pytest.raises(KeyboardInterrupt):
        dies_after(1, work)
    child = int(os.read(heard, 100))
    os.close(heard)
    os.close(told)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
