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
from collections.abc import Callable, Sequence
from itertools import count

from labkit.errors import ConfigurationError
from labkit.lab.bench import Bench
from labkit.lab.charts_axes import Points
from labkit.lab.simulations import timeouts
from labkit.lab.spanish import number
from labkit.retry import Retry
from labkit.shop.provider import CHARGED, Fault, ProviderAwayError, SimulatedProvider

ORDERS = tuple(f"ORD-{n}" for n in range(1001, 1101))
PRICE_CENTS = 3000
FALSE, WAITING = "respuestas que llegan tarde (%)", "espera por lo perdido (ms por llamada)"
_LIMITS_MS = tuple(20.0 * 1.2**n for n in range(26))

Counts = dict[str, int]


def charge_in_vain(provider: SimulatedProvider, keys: Sequence[str], *, seed: int = 4) -> int:
    """Charge every order once, with the request or the answer lost; count the errors.

    Args:
        provider: whose books are empty.
        keys: an idempotency key for each of `ORDERS`.
        seed: decides what is lost.
    """
    rng = random.Random(seed)
    unanswered = 0
    for order_id, key in zip(ORDERS, keys, strict=True):
        provider.switch_on(rng.choice([Fault.DOWN, Fault.LOSE_ANSWER]), order_id, times=1)
        try:
            provider.authorize(key, order_id, PRICE_CENTS)
        except ProviderAwayError:
            unanswered += 1
    return unanswered


def ask_again(provider: SimulatedProvider, keys: Sequence[str]) -> None:
    """Charge every order again, as a retry does."""
    retry = Retry("pagos", 2, sleep=lambda _: None)
    for order_id, key in zip(ORDERS, keys, strict=True):
        # Said of it, true or not: labkit refuses to repeat what nobody says this of.
        retry.call(provider.authorize, key, order_id, PRICE_CENTS, idempotent=True)


def refusal(provider: SimulatedProvider) -> str:
    """Return what labkit says to whoever retries a charge without declaring anything."""
    try:
        Retry("pagos", 2).call(provider.authorize, "clave", ORDERS[0], PRICE_CENTS)
    except ConfigurationError as error:
        return str(error)
    raise AssertionError("nobody declared it idempotent")


def charged(provider: SimulatedProvider) -> Counts:
    """Count the orders by how often they are charged in the provider's books."""
    times = Counter(each.order_id for each in provider.charges() if each.state == CHARGED)
    counts = Counter(times[order_id] for order_id in ORDERS)
    return {"sin cobrar": counts[0], "cobrados": counts[1], "cobrados dos veces": counts[2]}


def three_books(bench: Callable[[], Bench]) -> dict[str, Counts]:
    """Return the books after the lost calls, and after asking again in both ways.

    Args:
        bench: opens an empty one; each way has its own.
    """
    fresh = (f"otra-{n}" for n in count())
    same = [f"clave-{order_id}" for order_id in ORDERS]
    found: dict[str, Counts] = {}
    for way, again in {"misma clave": same, "clave nueva": None}.items():
        provider = SimulatedProvider(bench().orders)
        charge_in_vain(provider, same)
        found.setdefault("100 sin respuesta", charged(provider))
        ask_again(provider, again or [next(fresh) for _ in ORDERS])
        found[f"otra vez, con {way}"] = charged(provider)
    return found


def reading(books: dict[str, Counts]) -> str:
    """Read how many were charged, and how many twice."""
    first, *after = books.items()
    said = [
        f"«{way}»: {number(row['cobrados dos veces'])} cobrados dos veces" for way, row in after
    ]
    return (
        f"De {number(sum(first[1].values()))} cobros sin respuesta, "
        f"{number(first[1]['cobrados'])} se cobraron. Tras pedirlos otra vez, {'; '.join(said)}."
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
