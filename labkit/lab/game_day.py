"""A game day: faults on the shop's real connections and processes, and a hypothesis that must hold.

The hypothesis is code (`HYPOTHESIS`): each clause looks at the books and says what is wrong, or
nothing. Each drill places orders, does harm while they are worked on, ends the harm, lets the shop
work on, and asks every clause. Yesterday's pull request goes through one drill too, so that it can
be seen that a clause says no.

Guarantee: harm is real: a proxy that resets and delays connections, processes killed by SIGKILL.
Not guaranteed: that a system which holds here holds elsewhere; a game day finds faults, it does not
show that there are none.

Source: Basiri et al., "Chaos Engineering", IEEE Software, 2016.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError

from labkit import db
from labkit.errors import LabkitError
from labkit.lab import story_books
from labkit.lab.bench import STOCK, Bench
from labkit.lab.charts_matrix import Cell, bad, good
from labkit.lab.pr_de_ayer import code as pr_de_ayer
from labkit.lab.relaying import attend_all, relay_all
from labkit.lab.spanish import counted, number
from labkit.shop import fulfillment
from labkit.testing.audit import audit
from labkit.testing.proxy import Proxy

ORDERS_EACH = 3
SKU = "BOOK-DDD"


class Site(NamedTuple):
    """The shop on a game day: the bench, the order numbers, and what lies in between."""

    bench: Bench
    numbers: count[int]
    network: Proxy
    stock: Engine  # inventory's database, through the proxy


def every_order_is_answered(bench: Bench) -> str | None:
    """No order waits for inventory."""
    columns = fulfillment.orders.c
    with bench.orders.connect() as connection:
        waiting = connection.execute(
            select(func.count()).where(columns.status == "RESERVATION_PENDING")
        ).scalar_one()
    return f"{counted(waiting, 'pedidos')} sin respuesta" if waiting else None


def nothing_is_left_over(bench: Bench) -> str | None:
    """No message waits, and none is dead."""
    books = story_books.read(bench)
    left = {*books.unpublished, *books.unhandled, *books.held, *books.dead}
    return f"{counted(len(left), 'mensajes')} en espera" if left else None


def nothing_is_sold_twice(bench: Bench) -> str | None:
    """Opening stock = available + held, article by article."""
    stock = story_books.read(bench).stock
    wrong = [sku for sku, both in stock.items() if sum(both) != STOCK[sku]]
    return f"no cuadra {', '.join(wrong)}" if wrong else None


def the_audit_finds_nothing(bench: Bench) -> str | None:
    """Every invariant of the shop holds."""
    found = audit(bench.orders, bench.stock, bench.transport, STOCK)
    wrong = sum(why is not None for why in found.values())
    return counted(wrong, "hallazgos") if wrong else None


HYPOTHESIS: Mapping[str, Callable[[Bench], str | None]] = {
    "todo pedido tiene respuesta": every_order_is_answered,
    "no queda nada en espera": nothing_is_left_over,
    "el stock cuadra": nothing_is_sold_twice,
    "la auditoría no halla nada": the_audit_finds_nothing,
}


def calm(site: Site) -> None:
    """No harm: the hypothesis must hold before anything is tried."""
    _place(site)


def connection_cut(site: Site) -> None:
    """The connection to inventory's database breaks when it commits: it may have happened."""
    _place(site)
    site.network.lose_answer_to(b"COMMIT")
    _attend_through_the_network(site)
    if not site.network.counts.cuts:
        raise LabkitError("no connection was cut")


def slow_network(site: Site) -> None:
    """Everything to inventory's database takes longer."""
    _place(site)
    site.network.latency_s = 0.002
    _attend_through_the_network(site)
    site.network.latency_s = 0.0


def database_away(site: Site) -> None:
    """Nobody listens where inventory's database was."""
    _place(site)
    site.network.refuse()
    site.network.reset()
    _attend_through_the_network(site)
    site.network.accept()


def relay_killed(site: Site) -> None:
    """The relay's process dies between publishing and noting it."""
    _place(site, relayed=False)
    _killed(site.bench, site.bench.orders, relay_all, "relay.after_publish")


def consumer_killed(site: Site) -> None:
    """Inventory's process dies between its commit and its acknowledgement."""
    _place(site)
    _killed(site.bench, site.bench.stock, attend_all, "consumer.after_commit")


def yesterday_killed(site: Site) -> None:
    """Yesterday's pull request dies between noting a message and reserving."""
    _place(site)
    _killed(site.bench, site.bench.stock, pr_de_ayer.attend, "pr.before_reserving")


DRILLS: Mapping[str, Callable[[Site], None]] = {
    "sin fallo": calm,
    "conexión cortada al confirmar": connection_cut,
    "red lenta": slow_network,
    "base de datos caída": database_away,
    "repetidor muerto": relay_killed,
    "consumidor muerto": consumer_killed,
    "la PR de ayer, muerta": yesterday_killed,
}


def run(bench: Bench) -> dict[str, dict[str, str | None]]:
    """Run every drill; return what each clause of the hypothesis says afterwards.

    Args:
        bench: one that is thrown away.
    """
    url = bench.stock.url
    with Proxy(str(url.host), url.port or 5432) as network:
        engine = db.connect(url.set(host="127.0.0.1", port=network.port))
        site = Site(bench, count(1), network, engine)
        try:
            return {name: _after(drill, site) for name, drill in DRILLS.items()}
        finally:
            engine.dispose()


def _after(drill: Callable[[Site], None], site: Site) -> dict[str, str | None]:
    drill(site)
    # The harm has ended: who gave up is started again, under its name.
    attend_all(site.bench.stock, site.bench.transport)
    site.bench.settle()
    return {clause: look(site.bench) for clause, look in HYPOTHESIS.items()}


def _place(site: Site, *, relayed: bool = True) -> None:
    for _ in range(ORDERS_EACH):
        site.bench.place(f"ORD-{next(site.numbers)}", (SKU, 1))
    if relayed:
        relay_all(site.bench.orders, site.bench.transport)


def _attend_through_the_network(site: Site) -> None:
    with suppress(DBAPIError, LabkitError):
        attend_all(site.stock, site.bench.transport)


def _killed(bench: Bench, engine: Engine, part: Callable[..., object], where: str) -> None:
    code = bench.apart(engine, part, faults=f"{where}:kill:@1")
    if code != -signal.SIGKILL:
        raise LabkitError(f"nobody died at {where}: {code}")
    part(engine, bench.transport)  # started again, under its name: no lease must run out first


def cells(found: Mapping[str, Mapping[str, str | None]]) -> dict[str, dict[str, Cell]]:
    """Return what was found as a matrix."""
    return {
        drill: {name: bad(why) if why else good("se cumple") for name, why in clauses.items()}
        for drill, clauses in found.items()
    }


def broken(found: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """Return the drills after which a clause did not hold."""
    return [drill for drill, clauses in found.items() if any(clauses.values())]


def reading(found: Mapping[str, Mapping[str, str | None]]) -> str:
    """Read after which drills the hypothesis did not hold."""
    wrong = broken(found)
    return (
        f"{number(len(found))} ensayos, {number(len(HYPOTHESIS))} condiciones. No se cumple todo "
        f"tras {number(len(wrong))}: {', '.join(wrong) or 'ninguno'}."
    )
