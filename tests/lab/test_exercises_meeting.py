"""Two deliveries at once: what is said of one that never ends."""

from __future__ import annotations

import threading

import pytest

from labkit.lab.exercises.meeting import meet
from labkit.lab.exercises.steps import Steps
from labkit.lab.exercises.student import FlawError


def test_a_delivery_that_does_not_end_is_told_as_the_students() -> None:
    end = threading.Event()

    def deliver(_steps: Steps) -> None:
        end.wait()

    try:
        with pytest.raises(FlawError, match="Tu función no terminó en 0,1 s"):
            meet(deliver, lambda: False, patience_s=0.1)
    finally:
        end.set()
