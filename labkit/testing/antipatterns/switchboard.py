"""Runs variants: processes that die as scheduled, then the audit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from labkit.errors import LabkitError
from labkit.lab.servers import Stack, stack
from labkit.testing import processes
from labkit.testing.antipatterns.lab import FROZEN_LEASE_S, LEASE_S, Lab, Setting
from labkit.testing.antipatterns.scene import Seen, scene
from labkit.testing.antipatterns.schedule import ORDERS, Life, receiving, sending
from labkit.testing.antipatterns.variants import VARIANTS
from labkit.testing.findings import KINDS, Findings, Kind

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What a variant led to.

    Args:
        variant: its name; sender and receiver, where they are two.
        seed: of the schedule.
        findings: the audit's.
        killed: processes that ended by SIGKILL.
        frozen: processes that were frozen and woken.
        events: everything that happened, by time.
    """

    variant: str
    seed: int
    findings: Findings
    killed: int
    frozen: int
    events: list[Seen]

    @property
    def right(self) -> int:
        """Return how many committed orders had their effect exactly once, and in order."""
        wrong = {finding.message_id for finding in self.findings.all}
        committed = {seen.order_id for seen in self.events if seen.stage == "committed"}
        return len(committed - wrong)

    @property
    def counts(self) -> dict[Kind, int]:
        """Return the number of orders by kind of finding."""
        return {kind: self.findings.count(kind) for kind in KINDS}


def run(
    name: str,
    seed: int = 1,
    *,
    orders: int = ORDERS,
    freeze: bool = True,
    servers: Stack | None = None,
    databases: str = "antipatterns",
) -> Outcome:
    """Run a variant from empty databases, and audit what is left.

    Args:
        name: one of `VARIANTS`.
        seed: of the schedule.
        orders: how many; more orders, more deaths between commit and publication.
        freeze: freeze a relay where the relay is in question, which takes a lease's time.
        servers: where; `stack()` by default.
        databases: first part of the two databases' names; they are kept and emptied, so a run
            waits for another one under the same name.

    Raises:
        LabkitError: when there is no such variant, or a process ends by itself.
    """
    found = cross(
        [name], [name], seed, orders=orders, freeze=freeze, servers=servers, databases=databases
    )
    return found[name, name]


def cross(
    senders: Sequence[str],
    receivers: Sequence[str],
    seed: int = 1,
    *,
    orders: int = ORDERS,
    freeze: bool = True,
    servers: Stack | None = None,
    databases: str = "antipatterns",
) -> dict[tuple[str, str], Outcome]:
    """Run each sender once, and let each receiver read what it sent, all by one schedule.

    Args:
        senders: variants whose way to write and relay counts.
        receivers: variants whose way to consume counts.
        seed: of the schedule.
        orders: how many.
        freeze: as in `run`.
        servers: where; `stack()` by default.
        databases: as in `run`.

    Raises:
        LabkitError: when there is no such variant, or a process ends by itself.
    """
    for name in [*senders, *receivers]:
        if name not in VARIANTS:
            raise LabkitError(f"{name!r} is none of {', '.join(VARIANTS)}")
    found: dict[tuple[str, str], Outcome] = {}
    for sender in senders:
        with scene(servers or stack(), databases, seed, orders) as built:
            dead, frozen = _send(sender, built.setting, freeze=freeze)
            for receiver in receivers:
                built.forget_the_receiver()
                killed = dead + _receive(receiver, built.setting)
                findings, events = built.look(VARIANTS[receiver])
                name = sender if sender == receiver else f"{sender} + {receiver}"
                found[sender, receiver] = Outcome(name, seed, findings, killed, frozen, events)
    return found


def send(
    name: str, setting: Setting, owner: str, jobs: tuple[str, ...], lease_s: float = LEASE_S
) -> None:
    """Be one process that writes and relays; the schedule may end it anywhere."""
    variant, lab = VARIANTS[name], Lab(setting, owner, lease_s)
    if "write" in jobs:
        lab.write_all(variant.write, variant.relay)
    if "relay" in jobs:
        while variant.relay(lab):
            pass


def receive(name: str, setting: Setting) -> None:
    """Be one process that consumes; the schedule may end it anywhere."""
    variant, lab = VARIANTS[name], Lab(setting, "relay-1")
    if variant.consume is None:
        lab.consume_with_labkit()
        return
    for delivery in lab.deliveries():
        variant.consume(lab, delivery)


def _send(name: str, setting: Setting, *, freeze: bool) -> tuple[int, int]:
    """Run the sending processes in turn; return how many were killed and frozen."""
    *dying, last = sending(setting.seed, setting.orders)
    killed, owner, sleeper = 0, "relay-1", None
    freeze = freeze and VARIANTS[name].has_frozen_relay
    try:
        for life in dying:
            if "relay" in life.jobs and freeze:  # there are rows by now
                sleeper = _frozen_relay(name, setting, owner)
                owner = "relay-2"
            started = processes.start(send, name, setting, owner, life.jobs, faults=life.faults)
            killed += ended(started)
        killed += ended(processes.start(send, name, setting, owner, last.jobs))
        if sleeper and sleeper.pid:  # the others have gone on without it
            os.kill(sleeper.pid, signal.SIGCONT)
            ended(sleeper)
    finally:
        if sleeper:  # frozen, it would outlive us
            processes.end(sleeper)
    return killed, int(sleeper is not None)


def _frozen_relay(name: str, setting: Setting, owner: str) -> BaseProcess:
    frozen = "relay.after_claim:pause:@1"
    what = (name, setting, owner, ("relay",), FROZEN_LEASE_S)
    sleeper = processes.start(send, *what, faults=frozen)
    try:
        _wait_until_frozen(sleeper)
    except BaseException:
        processes.end(sleeper)
        raise
    return sleeper


def _receive(name: str, setting: Setting) -> int:
    lives: Iterable[Life] = receiving(setting.seed)
    return sum(ended(processes.start(receive, name, setting, faults=x.faults)) for x in lives)


def ended(process: BaseProcess) -> bool:
    """Wait for the end of a process; say whether it was killed."""
    code = processes.wait(process, _PATIENCE_S)
    if code not in {0, -signal.SIGKILL}:
        raise LabkitError(f"a process ended by itself with {code}")
    return code == -signal.SIGKILL


def _wait_until_frozen(process: BaseProcess) -> None:
    # Why not waitid: the process is the forkserver's child, not ours.
    deadline_s = time.monotonic() + _PATIENCE_S
    while not processes.is_frozen(process):
        if processes.has_ended(process) or time.monotonic() > deadline_s:
            raise LabkitError("the second relay was not frozen")
        time.sleep(0.005)
