"""The processes of the workshop: workers of the handed-over file, which are killed.

Light on purpose: a process imports this and the file, and nothing that draws.
"""

from __future__ import annotations

import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from labkit.service import Role
from labkit.testing import processes

MODULE = "entrega.mi_checkout"
# Short enough to hand on quickly, long enough for batches: all of them share one machine.
_POLL_S = (0.02, 0.08)


def start(
    home: Path, attribute: str, role: Role, where: processes.Where, owner: str, *, faults: str = ""
) -> BaseProcess:
    """Start a worker.

    Args:
        home: the directory that holds `entrega/`.
        attribute: `service` or `inventario`.
        role: as in `labkit run --role`.
        where: its database and the streams.
        owner: its name; who is started under the name of a dead one goes on at once.
        faults: as in `LABKIT_FAULTS`.
    """
    options = {"owner": owner, "lease_s": 1.0, "poll_s": _POLL_S}
    return processes.start(work, str(home), attribute, role, where, options, faults=faults)


def work(
    home: str, attribute: str, role: Role, where: processes.Where, options: dict[str, Any]
) -> None:
    """Be a worker of the file until SIGTERM."""
    sys.path.insert(0, home)
    processes.work(f"{MODULE}:{attribute}", role, where, options)
