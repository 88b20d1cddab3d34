"""Faults for a block of code, and what is left of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit import crash
from labkit.crash import CrashError
from labkit.errors import ConfigurationError
from labkit.testing.faults import faults

POINT = "relay.after_publish"


@pytest.fixture(autouse=True)
def no_faults_around() -> Iterator[None]:
    crash.configure({})
    yield
    crash.configure({})


def test_a_fault_strikes_in_its_block_only() -> None:
    with faults(f"{POINT}:raise"), pytest.raises(CrashError):
        crash.point(POINT)

    crash.point(POINT)


def test_an_error_in_the_block_resets_the_faults_too() -> None:
    with pytest.raises(CrashError), faults(f"{POINT}:raise"):
        crash.point(POINT)

    crash.point(POINT)


def test_the_outer_block_goes_on_counting_after_the_inner_one() -> None:
    with faults(f"{POINT}:raise:@2"):
        crash.point(POINT)
        with faults("relay.after_mark:raise"):
            crash.point(POINT)
        with pytest.raises(CrashError):
            crash.point(POINT)


def test_a_misspelt_point_is_refused() -> None:
    refused = pytest.raises(ConfigurationError, match="no such point")
    with refused, faults("relay.after_lunch:raise"):
        pytest.fail("the block must not run")


def test_the_environment_is_still_read_after_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "_configured", False)
    monkeypatch.setenv("LABKIT_FAULTS", f"{POINT}:raise")
    with faults("relay.after_mark:raise"):
        crash.point(POINT)

    with pytest.raises(CrashError):
        crash.point(POINT)
