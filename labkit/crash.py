"""Named crash points: places where a process can be killed, paused or made to fail on purpose.

Every `# Crash window:` comment in labkit stands above a `crash.point("module.moment")`.
In production nothing is configured and a point costs one comparison. `LABKIT_FAULTS` switches
faults on for a process:

    LABKIT_FAULTS="relay.after_publish:kill:0.02,consumer.before_commit:pause"

Each rule is `point:action[:chance]`. A chance is a probability per passage (0.02), or `@n`
for exactly the n-th passage (`@7`). Actions:

    kill    SIGKILL to this process: no cleanup, no flush, as a power cut
    pause   SIGSTOP to this process: frozen until somebody sends SIGCONT
    raise   raises `CrashError`
    delay   waits 50 ms

`LABKIT_FAULTS_SEED` makes the probabilities repeatable; give each process a seed of its own.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from labkit.errors import ConfigurationError, TransientError

DELAY_S = 0.05
POINTS = frozenset(
    {
        "lease.after_raise",
        "relay.after_claim",
        "relay.after_publish",
        "relay.after_mark",
        "consumer.before_commit",
        "consumer.after_commit",
        "consumer.after_start",
        "rebuild.before_swap",
    }
)


class CrashError(TransientError):
    """A fault that was asked for."""


@dataclass
class Fault:
    """One rule: strike at the `nth` passage (from 1), else with a probability from 0 to 1."""

    action: str
    probability: float = 1.0
    nth: int | None = None
    passages: int = field(default=0, init=False)

    def strikes(self, rng: random.Random) -> bool:
        """Count one passage and say whether this is the one."""
        self.passages += 1
        if self.nth is not None:
            return self.passages == self.nth
        return rng.random() < self.probability


def _raise() -> None:
    raise CrashError("a fault that LABKIT_FAULTS asked for")


# Why not getattr(signal, ...): looked up by name at import, SIGKILL would break Windows.
_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": lambda: signal.raise_signal(signal.SIGKILL),
    "pause": lambda: signal.raise_signal(signal.SIGSTOP),
    "raise": _raise,
    "delay": lambda: time.sleep(DELAY_S),
}
_RULE = re.compile(r"([\w.]+):(\w+)(?::(?:@(\d+)|(\d*\.?\d+)))?")


def _parse_rule(rule: str) -> tuple[str, Fault]:
    read = _RULE.fullmatch(rule.strip())
    name, action, nth, probability = read.groups() if read else ("", "", None, None)
    if action not in _ACTIONS or nth == "0" or not 0 <= float(probability or 1) <= 1:
        raise ConfigurationError(
            f"LABKIT_FAULTS: cannot read {rule!r}; write point:action[:chance] with an action of "
            f"{', '.join(_ACTIONS)} and a chance such as 0.02 or @7"
        )
    return name, Fault(action, float(probability or 1), int(nth) if nth else None)


def parse(text: str) -> dict[str, Fault]:
    """Read the value of `LABKIT_FAULTS`: the fault of each named point.

    Raises:
        ConfigurationError: when a rule cannot be read, or a point has two.
    """
    rules = [_parse_rule(rule) for rule in text.split(",") if rule.strip()]
    faults = dict(rules)
    if len(faults) < len(rules):
        raise ConfigurationError(f"LABKIT_FAULTS: a point can have one fault only: {text}")
    return faults


_faults: dict[str, Fault] = {}
_configured = False
_rng = random.Random()


def configure(environ: Mapping[str, str] | None = None) -> None:
    """Switch faults on or off for this process, as `environ` says.

    Args:
        environ: the process environment by default; then each point must be one of `POINTS`,
            for a misspelt one would never strike, and everything would seem to survive it.

    Raises:
        ConfigurationError: when a rule cannot be read, or names no point.
    """
    global _configured  # noqa: PLW0603 - faults belong to the process
    source = os.environ if environ is None else environ
    faults = parse(source.get("LABKIT_FAULTS", ""))
    unknown = faults.keys() - POINTS if environ is None else set()
    if unknown:
        raise ConfigurationError(
            f"LABKIT_FAULTS: no such point: {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(POINTS))}"
        )
    _configured = True
    _faults.clear()
    _faults.update(faults)
    _rng.seed(source.get("LABKIT_FAULTS_SEED"))


def point(name: str) -> None:
    """Pass a crash point; nothing happens unless a fault was configured for it."""
    if not _configured:
        configure()
    if not _faults:
        return
    fault = _faults.get(name)
    if fault is not None and fault.strikes(_rng):
        _ACTIONS[fault.action]()
