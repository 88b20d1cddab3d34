"""Three translations that remember, each over a handful of messages: what comes in, what goes out.

Aggregator, resequencer and enricher are `labkit.translation`'s own, on a database that is thrown
away, with a clock that moves when told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import pandas as pd
from sqlalchemy import Engine, MetaData

from labkit.clock import FakeClock
from labkit.lab.bench import Bench
from labkit.shop import catalogue
from labkit.translation import Aggregate, Aggregator, Enricher, Resequencer
from labkit.wire import decode_envelope

WAREHOUSES = ("A", "B", "C")
DEADLINE_S, GAP_S = 60.0, 30.0
_OUTCOMES = {
    "waiting": "espera",
    "completed": "completa",
    "duplicate": "repetida",
    "late": "tarde",
}
_PLACES = {"next": "le toca", "ahead": "se guarda", "duplicate": "repetido", "late": "tarde"}

metadata = MetaData()
availability = Aggregator(
    metadata,
    "availability",
    complete=lambda parts: parts.keys() >= set(WAREHOUSES),
    combine=lambda parts: sum(parts.values()),
    deadline_s=DEADLINE_S,
)
steps = Resequencer(metadata, "steps", gap_s=GAP_S)
titles = Enricher(metadata, "titles")


class Answer(NamedTuple):
    """A warehouse answers how many it has, so many seconds after the answer before."""

    warehouse: str
    units: int
    after_s: float = 0.0


def prepared(bench: Bench) -> FakeClock:
    """Make the tables in a bench, and give its orders a clock that moves when told to.

    Args:
        bench: one that is thrown away.
    """
    clock = FakeClock()
    bench.orders.update_execution_options(labkit_clock=clock)
    metadata.create_all(bench.orders)
    return clock


def collect(
    engine: Engine, clock: FakeClock, group: str, answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Let warehouses answer one question; look at the deadline before each answer, and at the end.

    Args:
        engine: of the prepared bench.
        clock: of the prepared bench.
        group: the question.
        answers: as they come.

    Returns:
        A row for each answer and for the deadline, with the result where there is one.
    """
    began_s = clock.monotonic_s()
    with engine.begin() as connection:
        availability.begin(connection, group)
    rows = []
    for answer in answers:
        clock.advance(answer.after_s)
        second = round(clock.monotonic_s() - began_s)
        rows += _expired(engine, clock, second)
        with engine.begin() as connection:
            added = availability.add(connection, group, answer.warehouse, answer.units)
        said = f"{answer.warehouse}: {answer.units}"
        rows.append(_row(second, group, said, _OUTCOMES[added.outcome], added.aggregate))
    return rows


def _expired(engine: Engine, clock: FakeClock, second: int) -> list[dict[str, Any]]:
    with engine.begin() as connection:
        found = availability.expire(connection, clock.now())
    return [_row(second, each.group, None, "vence el plazo", each) for each in found]


def _row(
    second: int, group: str, said: str | None, outcome: str, found: Aggregate | None
) -> dict[str, Any]:
    return {
        "pregunta": group,
        "segundo": second,
        "contesta": said,
        "qué pasa": outcome,
        "almacenes": "".join(found.parts) if found else None,
        "resultado": f"{found.result} unidades" if found else None,
    }


def put_in_order(engine: Engine, clock: FakeClock, numbers: Sequence[int]) -> pd.DataFrame:
    """Let numbered messages of one key arrive; give up the gap that stays open.

    Args:
        engine: of the prepared bench.
        clock: of the prepared bench.
        numbers: as they arrive; then the gap's time goes by.
    """
    rows = []
    for number in numbers:
        with engine.begin() as connection:
            found = steps.accept(connection, "RES-2", number, f"m{number}")
        rows.append((f"llega m{number}", _PLACES[found.place], ", ".join(found.released) or None))
    clock.advance(GAP_S)
    with engine.begin() as connection:
        given_up = steps.give_up(connection, clock.now())
    rows += [
        (
            f"pasan {GAP_S:.0f} s",
            f"se da por perdido {_named(gap.missing)}",
            ", ".join(gap.released),
        )
        for gap in given_up
    ]
    return pd.DataFrame(rows, columns=["ocurre", "qué pasa", "sale"])


def _named(numbers: Iterable[int]) -> str:
    return ", ".join(f"m{number}" for number in numbers)


def learned(engine: Engine, versions: Sequence[int]) -> list[bool]:
    """Let the copy hear of an article, once for each message; say which were news.

    Args:
        engine: of the prepared bench.
        versions: which of the frozen messages of the catalogue, as they come.
    """
    news = []
    for version in versions:
        event = described(version)
        content = {"title": event.title, "priceCents": event.price_cents}
        with engine.begin() as connection:
            news.append(titles.learn(connection, event.sku, event.revision, content))
    return news


def enriched(engine: Engine, lines: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[str]]:
    """Add title and price to lines from the copy; return them, and the articles it does not know.

    Args:
        engine: of the prepared bench.
        lines: each with its `sku`.
    """
    with engine.begin() as connection:
        found = titles.enrich(connection, lines, by="sku")
    return pd.DataFrame(found.records), found.missing


def versions() -> pd.DataFrame:
    """Read each frozen version of one event; show what was written, and what is read."""
    rows = [
        (f"v{version}", _written_with(version), event.title, event.price_cents, event.currency)
        for version, event in ((each, described(each)) for each in catalogue.FROZEN)
    ]
    columns = ["versión", "se escribió con", "title", "price_cents", "currency"]
    return pd.DataFrame(rows, columns=columns)


def described(version: int) -> catalogue.ArticleDescribed:
    """Read a frozen message of the catalogue, whatever its version, as handlers do.

    Args:
        version: in which it was written.
    """
    event = catalogue.REGISTRY.decode(decode_envelope(catalogue.FROZEN[version]))
    return cast("catalogue.ArticleDescribed", event)


def _written_with(version: int) -> str:
    payload = msgspec.json.decode(decode_envelope(catalogue.FROZEN[version]).event.payload)
    return ", ".join(name for name in payload if name not in {"sku", "revision"})
