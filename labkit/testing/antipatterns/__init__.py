"""Anti-patterns on real servers, one switch: the same orders and mishaps, another piece of code.

    outcome = run("dual_write", seed=1)
    outcome.counts["lost"], outcome.findings.first
    print(inspect.getsource(VARIANTS["dual_write"].culprit))
    cross(["dual_write", "labkit"], ["no_inbox", "labkit"])   # every sender with every receiver

Every variant lives through one schedule (`schedule.py`): rollbacks, transactions that commit
late, processes killed by SIGKILL while they write, relay and consume, and a relay that is frozen
and woken where the relay is in question. Each replaces one piece of the flow (its `culprit`) and
leaves the rest to labkit; so the auditor finds one kind of contradiction, the one in `finds`.
`labkit` replaces nothing, and nothing is found.

Reading order: `writers`, `relays`, `consumers` (the lines in question), then `variants`,
`schedule`, `lab`.
"""

from __future__ import annotations

from labkit.testing.antipatterns.scene import Seen
from labkit.testing.antipatterns.single import Mishap, effects_of_one
from labkit.testing.antipatterns.switchboard import Outcome, cross, run
from labkit.testing.antipatterns.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "Mishap", "Outcome", "Seen", "Variant", "cross", "effects_of_one", "run"]
