"""Crash points: what can be asked for, and that it happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import crash
from labkit.crash import CrashError, Fault
from labkit.errors import ConfigurationError

SOURCE = Path(crash.__file__).parent
PASS_TWICE = (
    "from labkit import crash; [crash.point('relay.after_mark') for _ in '12']; print('alive')"
)


@pytest.fixture(autouse=True)
def no_faults_afterwards() -> Iterator[None]:
    yield
    crash.configure({})


def test_rules_are_read_with_their_chances() -> None:
    faults = crash.parse(" a.b:kill:0.02, c.d:pause ,e.f:raise:@7,")

    assert faults == {
        "a.b": Fault("kill", probability=0.02),
        "c.d": Fault("pause"),
        "e.f": Fault("raise", nth=7),
    }


@pytest.mark.parametrize(
    "rule",
    [
        "a.b",
        "a.b:",
        ":kill",
        "a.b:explode",
        "a.b:kill:often",
        "a.b:kill:1.5",
        "a.b:kill:-1",
        "a.b:kill:nan",
        "a.b:kill:@0",
        "a.b:kill:@x",
        "a.b:kill:0.1:0.2",
        "a b:kill",
    ],
)
def test_a_rule_that_cannot_be_read_is_named_with_the_remedy(rule: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write point:action\[:chance\]") as caught:
        crash.parse(rule)

    assert repr(rule) in str(caught.value)
    assert "kill, pause, raise, delay" in str(caught.value)


def test_two_faults_for_one_point_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one fault only"):
        crash.parse("a.b:delay,a.b:kill:0.1")


def test_a_rule_that_cannot_be_read_leaves_the_old_ones_in_force() -> None:
    crash.configure({"LABKIT_FAULTS": "a.b:raise"})

    with pytest.raises(ConfigurationError):
        crash.configure({"LABKIT_FAULTS": "nonsense"})

    with pytest.raises(CrashError):
        crash.point("a.b")


def passages_that_strike(rule: str, passages: int, seed: str = "1") -> list[int]:
    crash.configure({"LABKIT_FAULTS": rule, "LABKIT_FAULTS_SEED": seed})
    struck = []
    for passage in range(1, passages + 1):
        try:
            crash.point("a.b")
        except CrashError:
            struck.append(passage)
    return struck


@pytest.mark.parametrize(
    ("chance", "struck"),
    [("0", []), ("1", [1, 2, 3, 4]), ("@3", [3]), ("@9", []), ("1.0", [1, 2, 3, 4])],
)
def test_a_chance_decides_which_passages_strike(chance: str, struck: list[int]) -> None:
    assert passages_that_strike(f"a.b:raise:{chance}", 4) == struck


def test_a_probability_strikes_about_as_often_as_it_says() -> None:
    assert 150 < len(passages_that_strike("a.b:raise:0.2", 1000)) < 250


def test_a_seed_makes_the_strikes_repeatable() -> None:
    first = passages_that_strike("a.b:raise:0.1", 100, seed="7")

    assert passages_that_strike("a.b:raise:0.1", 100, seed="7") == first
    assert passages_that_strike("a.b:raise:0.1", 100, seed="8") != first


def test_only_the_named_point_strikes() -> None:
    crash.configure({"LABKIT_FAULTS": "a.b:raise"})

    crash.point("a.c")


def test_a_delay_takes_its_time_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "DELAY_S", 0.005)
    crash.configure({"LABKIT_FAULTS": "a.b:delay"})
    started_s = time.monotonic()

    crash.point("a.b")

    assert time.monotonic() - started_s >= crash.DELAY_S


def start(faults: str) -> subprocess.Popen[str]:
    environment = os.environ | {"LABKIT_FAULTS": faults}
    command = [sys.executable, "-c", PASS_TWICE]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_kill_ends_a_process_at_once() -> None:
    with start("relay.after_mark:kill:@2") as process:
        said, _ = process.communicate(timeout=10)

    assert process.returncode == -signal.SIGKILL
    assert said == ""


def test_pause_freezes_a_process_until_it_is_continued() -> None:
    with start("relay.after_mark:pause:@2") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=10)

    assert (said, process.returncode) == ("alive\n", 0)


def test_an_unconfigured_point_costs_next_to_nothing() -> None:
    crash.configure({})
    started_s = time.perf_counter()

    for _ in range(10_000):
        crash.point("a.b")

    assert (time.perf_counter() - started_s) / 10_000 < 5e-6


def test_every_crash_point_stands_below_its_crash_window() -> None:
    for path in SOURCE.rglob("*.py"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"^\s+crash\.point\(", line):
                above = number - 1
                while lines[above].strip().startswith("#") and "Crash window:" not in lines[above]:
                    above -= 1
                assert "# Crash window: " in lines[above], f"{path.name}:{number + 1}"


def test_the_known_points_are_the_ones_in_the_code() -> None:
    code = "".join(path.read_text() for path in Path(crash.__file__).parent.glob("*.py"))

    assert set(re.findall(r'crash\.point\("([\w.]+)"\)', code)) - {"module.moment"} == crash.POINTS


def test_a_point_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_FAULTS", "relay.afterpublish:kill")

    with pytest.raises(ConfigurationError, match=r"no such point: relay\.afterpublish"):
        crash.configure()
