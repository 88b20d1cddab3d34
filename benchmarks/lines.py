"""A line of the result: what was measured, how it compares, and whether the target is met."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

LATEST = Path(__file__).parent / "results" / "latest.json"


class Target(msgspec.Struct, frozen=True):
    """What a line has to reach; `of` names the column that is compared with `limit`."""

    of: str
    at_least: bool
    limit: float

    def __str__(self) -> str:
        """Say it as in the result file."""
        return f"{self.of} {'>=' if self.at_least else '<='} {self.limit:g}"

    def is_met(self, value: float, ratio: float) -> bool:
        """Compare, rounded as the line is."""
        reached = ratio if self.of == "ratio" else value
        return reached >= self.limit if self.at_least else reached <= self.limit


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it is stored; `ratio` compares it with the ceiling, `on` says where."""

    line: str
    value: float
    unit: str
    ceiling: float | None
    ratio: float | None
    target: str | None
    met: bool | None
    runs: int
    peers: dict[str, float] = {}
    on: str = ""


def line_of(
    name: str,
    unit: str,
    ours: Sequence[float],
    ceiling: Sequence[float],
    target: Target | None = None,
) -> Line:
    """Make a line of two series that were measured in turns.

    Args:
        name: of the line.
        unit: of both series.
        ours: what labkit reached, run by run.
        ceiling: what the hand-written code reached, run by run.
        target: what to reach; none for lines that only inform.

    Returns:
        The line, with medians; the ratio is the median of the runs' ratios, since two runs that
        followed each other had the same weather.
    """
    value, top = statistics.median(ours), statistics.median(ceiling)
    ratio = statistics.median(a / b for a, b in zip(ours, ceiling, strict=True))
    return Line(
        line=name,
        value=round(value, 3),
        unit=unit,
        ceiling=round(top, 3),
        ratio=round(ratio, 3),
        target=str(target) if target else None,
        met=target.is_met(round(value, 3), round(ratio, 3)) if target else None,
        runs=len(ours),
    )


def lone_line(name: str, unit: str, values: Sequence[float]) -> Line:
    """Make a line that is compared with its neighbours only: how a cost grows."""
    return Line(
        line=name,
        value=round(statistics.median(values), 3),
        unit=unit,
        ceiling=None,
        ratio=None,
        target=None,
        met=None,
        runs=len(values),
    )


def take_turns(name: str, runs: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Run the sides in turns, after one round that warms everything up.

    Args:
        name: of the line, for the progress on stderr.
        runs: rounds that count.
        sides: each does the work once, and returns what it reached.

    Returns:
        One series per side.
    """
    series: list[list[float]] = [[] for _ in sides]
    for round_ in range(runs + 1):
        say(f"{name}: {'warming up' if round_ == 0 else f'round {round_} of {runs}'}")
        for each, side in zip(series, sides, strict=True):
            reached = side()
            if round_:
                each.append(reached)
    return series


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds; garbage of others is collected before."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def say(progress: str) -> None:
    """Tell whoever waits what is going on."""
    print(progress, file=sys.stderr, flush=True)


def store(lines: Sequence[Line], path: Path = LATEST) -> list[Line]:
    """Write lines into the result file, in place of what it says about the same lines.

    Args:
        lines: what was measured now.
        path: the file.

    Returns:
        All lines of the file.
    """
    known = msgspec.json.decode(path.read_bytes(), type=list[Line]) if path.exists() else []
    kept = {each.line: each for each in known} | {each.line: each for each in lines}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(kept.values()))) + b"\n")
    return list(kept.values())
