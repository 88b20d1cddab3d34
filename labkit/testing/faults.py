"""Faults for a block of code: what `LABKIT_FAULTS` does for a process, within a `with`.

    with faults("relay.after_publish:raise:@1"):
        relay.run_once()

Guarantee: however the block ends, the faults that were there before are there again, with the
passages that they had counted. Blocks may be nested; the inner one replaces the outer one.
Not guaranteed: anything between threads, since faults belong to the process. `kill` and `pause`
mean this very process: in a notebook, its kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labkit import crash
from labkit.errors import ConfigurationError


@contextmanager
def faults(rules: str, *, seed: int | None = None) -> Iterator[None]:
    """Switch faults on for a block.

    Args:
        rules: as in `LABKIT_FAULTS`: `point:action[:chance]`, separated by commas.
        seed: makes probabilities repeatable.

    Raises:
        ConfigurationError: when a rule cannot be read, or names no point.
    """
    if unknown := crash.parse(rules).keys() - crash.POINTS:
        points = ", ".join(sorted(crash.POINTS))
        raise ConfigurationError(f"no such point: {', '.join(sorted(unknown))}; there are {points}")
    # Why not configure() afterwards: it would forget an outer block, and what demo switched off.
    was_configured, before = crash._configured, dict(crash._faults)  # noqa: SLF001
    seeded = {} if seed is None else {"LABKIT_FAULTS_SEED": str(seed)}
    crash.configure({"LABKIT_FAULTS": rules} | seeded)
    try:
        yield
    finally:
        crash._configured = was_configured  # noqa: SLF001
        crash._faults.clear()  # noqa: SLF001
        crash._faults.update(before)  # noqa: SLF001
