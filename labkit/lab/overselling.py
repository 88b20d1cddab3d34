"""Overselling: twenty threads want the last units, by two ways of taking one.

The threads meet before they write (`read_and_write`: after all have read), so that the schedule
which is rare in a test and certain in a sale happens every time.

Guarantee: real connections to one real table; every promise counted was committed.
Not guaranteed: who gets a unit, only how many are promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import Engine, select, update

from labkit import db
from labkit.lab.bench import STOCK, Bench
from labkit.lab.spanish import number
from labkit.shop.inventory import stock

THREADS = 20
SKU = "BOOK-EDA"
_PATIENCE_S = 30.0

Take = Callable[[Engine, Barrier], bool]


def read_and_write(engine: Engine, meeting: Barrier) -> bool:
    """Read what is left, and write one less: the lost update."""
    with engine.begin() as connection:
        left = connection.execute(select(stock.c.available).where(stock.c.sku == SKU)).scalar_one()
        meeting.wait(_PATIENCE_S)
        if left < 1:
            return False
        connection.execute(update(stock).where(stock.c.sku == SKU).values(available=left - 1))
        return True


def take_if_there(engine: Engine, meeting: Barrier) -> bool:
    """Take one where there is one: the database decides, row by row."""
    with engine.begin() as connection:
        meeting.wait(_PATIENCE_S)
        there = (stock.c.sku == SKU) & (stock.c.available >= 1)
        one_less = update(stock).where(there).values(available=stock.c.available - 1)
        return connection.execute(one_less).rowcount == 1


def promised(bench: Bench, take: Take) -> dict[str, int]:
    """Let all threads take one unit each; count the promises that stock covers and the others.

    Args:
        bench: where; one that is thrown away.
        take: the way of taking.
    """
    meeting = Barrier(THREADS)
    engine = db.connect(bench.stock.url, pool_size=THREADS)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            kept = sum(pool.map(lambda _: take(engine, meeting), range(THREADS)))
    finally:
        engine.dispose()
    covered = min(kept, STOCK[SKU])
    return {"con stock": covered, "sin stock": kept - covered, "rechazados": THREADS - kept}


def reading(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Read how many promises nobody can keep.

    Args:
        counts: way of taking; con stock, sin stock, rechazados.
    """
    said = [f"«{way}» promete {number(row['sin stock'])} de más" for way, row in counts.items()]
    return f"{number(THREADS)} hilos, {number(STOCK[SKU])} unidades: {'; '.join(said)}."
