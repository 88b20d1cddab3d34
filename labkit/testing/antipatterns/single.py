"""One message and one mishap: how often does a receiver apply it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from labkit.errors import LabkitError
from labkit.lab.servers import Stack, stack
from labkit.testing import processes
from labkit.testing.antipatterns.scene import Seen, scene
from labkit.testing.antipatterns.switchboard import ended, receive, send
from labkit.testing.antipatterns.variants import VARIANTS

Mishap = Literal["crash", "repeat"]
# Between note and effect, between effect and acknowledgement: each receiver passes one of them.
_CRASH = "consumer.between:kill:@1,consumer.after_commit:kill:@1"


def effects_of_one(
    receiver: str,
    mishap: Mishap,
    *,
    servers: Stack | None = None,
    databases: str = "antipatterns",
) -> int:
    """Send one order through labkit's outbox; count its effects when all has come to rest.

    Args:
        receiver: one of `VARIANTS`; its way to consume counts.
        mishap: the receiving process is killed once, or the message is published twice.
        servers: where; `stack()` by default.
        databases: as in `run`.

    Raises:
        LabkitError: when there is no such variant, or nobody died who should have.
    """
    if receiver not in VARIANTS:
        raise LabkitError(f"{receiver!r} is none of {', '.join(VARIANTS)}")
    with scene(servers or stack(), databases, seed=1, orders=1) as built:
        # A relay that dies before the mark publishes again.
        before_the_mark = "relay.after_publish:kill:@1" if mishap == "repeat" else ""
        for faults in (before_the_mark, ""):
            jobs = ("write", "relay")
            ended(processes.start(send, "labkit", built.setting, "relay", jobs, faults=faults))
        built.forget_the_receiver()
        dying = _CRASH if mishap == "crash" else ""
        died = ended(processes.start(receive, receiver, built.setting, faults=dying))
        ended(processes.start(receive, receiver, built.setting))
        _, events = built.look(VARIANTS[receiver])
    if died != (mishap == "crash") or _copies(events) != 1 + (mishap == "repeat"):
        raise LabkitError(f"{receiver}: the {mishap} did not happen")
    return sum(seen.stage == "applied" for seen in events)


def _copies(events: Sequence[Seen]) -> int:
    return sum(seen.stage == "published" for seen in events)
