"""Threads whose work may be left behind have a limit, and know their caller's context."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

import pytest

from labkit.abandoned import Threads
from labkit.errors import ConfigurationError

SOON_S = 30.0  # a test that waits this long hangs
place: ContextVar[str] = ContextVar("place", default="nowhere")


def test_answers_and_errors_come_back() -> None:
    threads = Threads("test", 2)
    answer, error = threads.start(lambda: 7), threads.start(lambda: 1 / 0)

    assert answer is not None
    assert error is not None
    assert answer.result(SOON_S) == 7
    assert isinstance(error.exception(SOON_S), ZeroDivisionError)
    assert threads.running == 0


def test_no_more_than_the_limit_run_and_an_ended_one_makes_room() -> None:
    threads, let_go = Threads("test", 1), threading.Event()
    first = threads.start(lambda: let_go.wait(SOON_S))

    assert threads.start(lambda: True) is None
    let_go.set()
    assert first is not None
    assert first.result(SOON_S)
    second = threads.start(lambda: True)
    assert second is not None
    assert second.result(SOON_S)


def test_the_callers_context_is_copied() -> None:
    token = place.set("here")
    seen = Threads("test", 1).start(place.get)
    place.reset(token)

    assert seen is not None
    assert seen.result(SOON_S) == "here"


def test_a_system_without_threads_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads("test", 1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert threads.start(lambda: True) is None

    assert threads.running == 0
    assert threads.start(lambda: True) is not None


@pytest.mark.parametrize("most", [0, 1.5, "2"])
def test_a_limit_that_makes_no_sense_is_refused(most: Any) -> None:
    with pytest.raises(ConfigurationError, match="most threads"):
        Threads("test", most)
