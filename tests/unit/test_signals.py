"""Signals reach whoever listens, and nobody can disturb the call that gives them."""

from __future__ import annotations

import logging

import pytest

from labkit.clock import FakeClock
from labkit.signals import Signal, Signals


def test_listeners_hear_signals_in_order() -> None:
    clock, heard = FakeClock(), list[Signal]()
    signals = Signals(heard.append, clock=clock)

    signals.tell("retry", "payments", "attempt", "2")
    clock.advance(1.5)
    signals.tell("breaker", "payments", "opened")

    assert [(each.pattern, each.what, each.detail) for each in heard] == [
        ("retry", "attempt", "2"),
        ("breaker", "opened", ""),
    ]
    assert (heard[1].at - heard[0].at).total_seconds() == 1.5


def test_a_listener_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Signal) -> None:
        raise RuntimeError("out of disk")

    heard = list[Signal]()
    signals = Signals(broken)
    signals.listen(heard.append)
    with caplog.at_level(logging.ERROR, logger="labkit.signals"):
        signals.tell("retry", "payments", "attempt")

    assert len(heard) == 1
    assert "out of disk" in caplog.text
