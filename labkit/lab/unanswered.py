"""Payments that nobody answered: what became of them, and what asking again does to them.

A hundred orders are charged at the simulated provider (`labkit.shop.provider`), on its real books.
Each meets one of two mishaps, by a seed: the request is lost, or the answer is. To whoever waits
both are the same error. Then each is asked for again, with the same idempotency key or with a new
one.

Guarantee: the counts are read from the provider's books, not from what was switched on.
Not guaranteed: that half of all lost calls are charged; here it is the seed's choice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from labkit.lab.bench import Bench
from labkit.lab.charts_axes import Points
from labkit.lab.simulations import timeouts
from labkit.lab.spanish import number
from labkit.shop.provider import BOOKS, CHARGED, Fault, ProviderAwayError, SimulatedProvider

ORDERS = 100
PRICE_CENTS = 3000
_CUSTOMERS = 6  # who wait at the same time: alone, each waits for the disk
# How the key of the second request begins: as that of the first, or otherwise.
KEYS = {"clave nueva": "otra", "la misma clave": "clave"}
FALSE, WAITING = "respuestas que llegan tarde (%)", "espera por lo perdido (ms por llamada)"
_LIMITS_MS = tuple(20.0 * 1.2**n for n in range(26))

Counts = dict[str, int]


def company(bench: Bench) -> SimulatedProvider:
    """Return the provider, with its books beside the orders."""
    BOOKS.create_all(bench.orders)
    return SimulatedProvider(bench.orders)


def charge_in_vain(provider: SimulatedProvider, orders: Sequence[str], *, seed: int = 4) -> int:
    """Charge every order once, with the request or the answer lost; count the errors.

    Args:
        provider: the company.
        orders: which; each has an idempotency key of its own.
        seed: decides what is lost.
    """
    rng = random.Random(seed)
    lost = [rng.choice([Fault.DOWN, Fault.LOSE_ANSWER]) for _ in orders]

    def charge(order_id: str, fault: Fault) -> bool:
        provider.switch_on(fault, order_id, times=1)
        try:
            return not provider.authorize(f"clave-{order_id}", order_id, PRICE_CENTS)
        except ProviderAwayError:
            return True

    with ThreadPoolExecutor(_CUSTOMERS) as pool:
        return sum(pool.map(charge, orders, lost))


def ask_again(provider: SimulatedProvider, orders: Sequence[str], key: str) -> None:
    """Charge every order again, as a retry does, with a key that begins as told."""

    def charge(order_id: str) -> bool:
        return provider.authorize(f"{key}-{order_id}", order_id, PRICE_CENTS)

    with ThreadPoolExecutor(_CUSTOMERS) as pool:
        list(pool.map(charge, orders))


def charged(provider: SimulatedProvider, orders: Sequence[str]) -> Counts:
    """Count the orders by how often they are charged in the provider's books."""
    times = Counter(each.order_id for each in provider.charges() if each.state == CHARGED)
    counts = Counter(times[order_id] for order_id in orders)
    return {"sin cobrar": counts[0], "cobrados": counts[1], "cobrados dos veces": counts[2]}


def three_books(bench: Bench) -> dict[str, Counts]:
    """Return the books after the lost calls, and after asking again in both ways.

    Args:
        bench: where the provider keeps its books.
    """
    provider = company(bench)
    found: dict[str, Counts] = {}
    # The same hundred mishaps twice, one set of orders for each way of asking again.
    for first, (way, key) in zip((1001, 2001), KEYS.items(), strict=True):
        orders = [f"ORD-{first + n}" for n in range(ORDERS)]
        charge_in_vain(provider, orders)
        found[f"{ORDERS} sin respuesta"] = charged(provider, orders)
        ask_again(provider, orders, key)
        found[f"otra vez, con {way}"] = charged(provider, orders)
    return found


def reading(books: dict[str, Counts]) -> str:
    """Read how many were charged, and how many twice."""
    (_, first), *after = books.items()
    said = [f"«{way}», {number(row['cobrados dos veces'])} dos veces" for way, row in after]
    return (
        f"De {number(sum(first.values()))} cobros sin respuesta se cobraron "
        f"{number(first['cobrados'])}. Cobrados {'; '.join(said)}."
    )


def limits() -> dict[str, Points]:
    """Return what a time limit breaks and what it costs, by the limit in milliseconds."""
    curve = timeouts.curve(timeouts.observe(), _LIMITS_MS)
    return {
        FALSE: list(zip(curve["limit_ms"], 100 * curve["false_timeouts"], strict=True)),
        WAITING: list(zip(curve["limit_ms"], curve["waiting_lost_ms"], strict=True)),
    }


def percentiles_ms() -> dict[str, float]:
    """Return the limits that keep a half, 99 % and 99.9 % of the answers."""
    seen = timeouts.observe()
    shares = {"p50": 0.5, "p99": 0.99, "p99,9": 0.999}
    return {name: seen.percentile_ms(share) for name, share in shares.items()}


def reading_of_limits(marks: dict[str, float]) -> str:
    """Read what the three percentiles break and cost."""
    seen = timeouts.observe()
    said = [
        f"{name} ({number(round(limit))} ms) corta {number(100 * seen.false_timeouts(limit))} de "
        f"cada cien respuestas"
        for name, limit in marks.items()
    ]
    return f"Un límite en {'; en '.join(said)}."
