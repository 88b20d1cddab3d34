"""What was heard is a table: a row per signal, in order."""

from __future__ import annotations

import threading

from labkit.clock import FakeClock
from labkit.lab.heard import Heard
from labkit.signals import Signals


def test_every_signal_is_a_row_with_its_time() -> None:
    heard, clock = Heard(), FakeClock()
    signals = Signals(heard, clock=clock)

    signals.tell("retry", "stock", "retry", "attempt 2")
    clock.advance(2)
    signals.tell("breaker", "stock", "opened")

    frame = heard.frame()
    assert list(frame.columns) == ["at", "pattern", "name", "what", "detail"]
    assert list(frame["what"]) == ["retry", "opened"]
    assert (frame["at"][1] - frame["at"][0]).total_seconds() == 2


def test_deeds_are_counted_by_pattern() -> None:
    heard = Heard()
    signals = Signals(heard)
    for what in ("retry", "retry", "gave up"):
        signals.tell("retry", "stock", what)
    signals.tell("fallback", "stock", "answered")

    counts = heard.counts()

    assert counts.loc["retry", "retry"] == 2
    assert counts.loc["fallback"].to_dict() == {"answered": 1, "gave up": 0, "retry": 0}


def test_nothing_heard_is_an_empty_table_with_its_columns() -> None:
    heard = Heard()

    assert heard.frame().empty
    assert "detail" in heard.frame()
    assert heard.counts().empty


def test_signals_of_many_threads_are_all_kept_until_they_are_cleared() -> None:
    heard = Heard()
    signals = Signals(heard)

    def tell() -> None:
        for _ in range(200):
            signals.tell("retry", "stock", "retry")

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(heard.frame()) == 1600
    heard.clear()
    assert len(heard.frame()) == 0
