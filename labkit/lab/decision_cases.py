"""Eight faults that really happen, and what labkit did about each, as facts.

Each case is run on a bench, through labkit's consumer, retry, breaker and policy; a proxy breaks
real connections. What the facts mean as an answer is `labkit.lab.decisions`.

Guarantee: nothing is noted that was not looked up in a database or counted while it happened.
Not guaranteed: other faults, and mixtures of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import redis
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from labkit import db
from labkit.breaker import LocalBreaker, connect
from labkit.errors import BreakerOpenError, ConfigurationError
from labkit.lab import poisoned, story_books
from labkit.lab.bench import Bench
from labkit.lab.promises import PENDING, queue, units_left
from labkit.lab.relaying import relay_all
from labkit.lab.unanswered import company
from labkit.policy import Policy
from labkit.retry import Retry
from labkit.shop import inventory
from labkit.shop.provider import CHARGED, Fault, ProviderAwayError, SimulatedProvider
from labkit.testing.proxy import Proxy


class Facts(NamedTuple):
    """What happened in a case.

    Args:
        attempts: how often it was tried.
        ended: whether it was done at last.
        said_no: whether a business no was published.
        aside: messages set aside, or charges left for a person.
        refused: whether the caller was refused without trying.
        stopped: whether the worker stopped with the message untouched.
        instead: whether something else was answered.
    """

    attempts: int = 0
    ended: bool = False
    said_no: bool = False
    aside: int = 0
    refused: bool = False
    stopped: bool = False
    instead: bool = False


Case = Callable[[Bench], Facts]


def _calls_until_it_works(bench: Bench, spoil: Callable[[Proxy], None]) -> Facts:
    """Ask Redis through a proxy that is spoilt for the first attempt."""
    address = make_url(bench.servers.redis_url)
    attempts = 0
    with Proxy(str(address.host), address.port or 6379) as proxy:
        through = address.set(host="127.0.0.1", port=proxy.port)
        client = connect(through.render_as_string(hide_password=False), 0.2)
        client.ping()

        def ask() -> bool:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                spoil(proxy)
            else:
                proxy.drop = False
            try:
                return bool(client.ping())
            except redis.RedisError as error:
                raise ConnectionError from error

        answered = Retry("redis", sleep=lambda _: None).call(ask, idempotent=True)
        client.close()
    return Facts(attempts, answered)


def broken_connection(bench: Bench) -> Facts:
    """The connection breaks under a call that may be repeated."""
    return _calls_until_it_works(bench, lambda proxy: proxy.lose_answer_to(b"PING"))


def no_answer_in_time(bench: Bench) -> Facts:
    """Nothing comes back within the limit, and the call may be repeated."""
    return _calls_until_it_works(bench, _drop)


def _drop(proxy: Proxy) -> None:
    proxy.drop = True


def out_of_stock(bench: Bench) -> Facts:
    """Nine are wanted, and there are five."""
    bench.place("ORD-2001", ("BOOK-EDA", 9))
    bench.settle()
    books = story_books.read(bench)
    return Facts(said_no=books.sent.get("StockReservationRejected", 0) == 1, aside=len(books.dead))


def unreadable_message(bench: Bench) -> Facts:
    """The quantity is a word."""
    bench.place("ORD-2002", ("BOOK-DDD", 1))
    poisoned.poison(bench, "ORD-2002", '"qty":1')
    bench.settle()
    dead = story_books.read(bench).dead
    poisoned.cure(bench, '"qty":1')
    bench.settle()
    return Facts(aside=len(dead))


def charge_without_key(bench: Bench) -> Facts:
    """The answer to a charge is lost, and repeating it would charge again."""
    provider = company(bench)
    provider.switch_on(Fault.LOSE_ANSWER, "ORD-2003", times=1)
    retry = Retry("pagos", sleep=lambda _: None)
    try:
        retry.call(provider.authorize, "una-vez", "ORD-2003", 3000)
    except ConfigurationError:
        # Nobody repeats it: it is made once, and a person looks into the provider's books.
        left = _charge_once(provider)
        return Facts(attempts=1, aside=left)
    return Facts(attempts=2, ended=True)


def _charge_once(provider: SimulatedProvider) -> int:
    try:
        provider.authorize("una-vez", "ORD-2003", 3000)
    except ProviderAwayError:
        return sum(each.state == CHARGED for each in provider.charges())
    return 0


def open_breaker(bench: Bench) -> Facts:  # noqa: ARG001 - one shape for all
    """The breaker is open, and somebody calls."""
    breaker, attempts = LocalBreaker("inventory"), list[int]()
    breaker.open()
    policy = Policy("inventory", retry=Retry("inventory"), breaker=breaker)
    try:
        policy.call(attempts.append, 1, idempotent=True)
    except BreakerOpenError:
        return Facts(len(attempts), refused=True)
    return Facts(len(attempts), ended=True)


def own_database_away(bench: Bench) -> Facts:
    """The consumer's own database is away, with a message to handle."""
    bench.place("ORD-2004", ("BOOK-DDD", 1))
    relay_all(bench.orders, bench.transport)
    url = bench.stock.url
    with Proxy(str(url.host), url.port or 5432) as proxy:
        engine = db.connect(url.set(host="127.0.0.1", port=proxy.port))
        (consumer,) = inventory.service.consumers(engine, bench.transport, batch=1)
        proxy.refuse()
        proxy.reset()
        stopped = _stops(consumer.run_once)
        untouched = story_books.read(bench)
        proxy.accept()
        consumer.run_once()
        consumer.leases.release()
        engine.dispose()
    bench.settle()
    ended = story_books.read(bench).orders["ORD-2004"] == "RESERVED"
    return Facts(stopped=stopped and untouched.unhandled == ("RES-2004",), ended=ended)


def _stops(work: Callable[[], object]) -> bool:
    try:
        work()
    except DBAPIError:
        return True
    return False


def nobody_there_and_a_customer_waits(bench: Bench) -> Facts:
    """Inventory does not answer, and a customer stands there."""
    url = bench.stock.url
    with Proxy(str(url.host), url.port or 5432) as proxy:
        engine = db.connect(url.set(host="127.0.0.1", port=proxy.port))
        proxy.refuse()
        policy = Policy("inventory", fallback=lambda _: queue(bench, "ORD-2005", "BOOK-DDD"))
        said = policy.call(units_left, engine, "BOOK-DDD")
        engine.dispose()
    return Facts(instead=said == PENDING)


CASES: Mapping[str, Case] = {
    "conexión rota": broken_connection,
    "sin respuesta, y repetir no daña": no_answer_in_time,
    "no hay stock": out_of_stock,
    "mensaje ilegible": unreadable_message,
    "cobro sin respuesta y sin clave": charge_without_key,
    "cortacircuitos abierto": open_breaker,
    "tu base de datos, caída": own_database_away,
    "inventario caído, con la clienta delante": nobody_there_and_a_customer_waits,
}
