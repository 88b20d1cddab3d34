"""The exercises of notebook 04 teach what the library does: same faults, same answers.

A pause is compared with those that `labkit.retry` really slept; a decision with what the consumer,
the retry, the breaker and the shop really did about a fault of the exercise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from labkit import db
from labkit.breaker import LocalBreaker
from labkit.clock import FakeClock
from labkit.deadline import deadline
from labkit.errors import BreakerOpenError, ConfigurationError, TransientError
from labkit.lab.exercises import failing
from labkit.lab.exercises.resilience_pieces import BASE_S, TOPE_S, Fallo
from labkit.messages import Event
from labkit.policy import Policy
from labkit.retry import Retry, delay_s
from labkit.shop import inventory
from labkit.shop.contracts import (
    OUT_OF_STOCK,
    Line,
    ReserveStockRequested,
    StockReservationRejected,
)
from labkit.shop.provider import BOOKS, CHARGED, Fault, ProviderAwayError, SimulatedProvider
from labkit.testing.proxy import Proxy
from tests import toy
from tests.flow import Flow
from tests.integration.conftest import Deliver, Shop
from tests.resilience_answers import decidir, espera
from tests.toy import happen

ATTEMPTS = 61


class BusyError(TransientError):
    """Come back in `retry_after_s`."""

    def __init__(self, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("busy")


def slept_by_labkit(seed: int, left_s: float, asked_s: float | None) -> list[float]:
    """Return the pauses of a call that always fails, while its deadline does not come nearer."""
    pauses: list[float] = []
    clock = FakeClock()
    retry = Retry(
        "stock",
        ATTEMPTS,
        BASE_S,
        TOPE_S,
        clock=clock,
        sleep=pauses.append,
        random=random.Random(seed).random,
    )

    def fail() -> None:
        raise BusyError(asked_s)

    with deadline(left_s, clock=clock), pytest.raises(BusyError):
        retry.call(fail, idempotent=True)
    return pauses


def slept_by_the_student(seed: int, left_s: float, asked_s: float | None) -> list[float]:
    chance = random.Random(seed).random
    pauses: list[float] = []
    for attempt in range(1, ATTEMPTS):
        pause_s = espera(attempt, left_s, asked_s, chance)
        if pause_s is None:
            break
        pauses.append(pause_s)
    return pauses


@given(
    seed=st.integers(0, 1_000_000),
    left_s=st.floats(0, 100),
    asked_s=st.none() | st.floats(0, TOPE_S),
)
def test_the_solution_waits_as_long_as_labkit_and_stops_when_labkit_stops(
    seed: int, left_s: float, asked_s: float | None
) -> None:
    assert slept_by_the_student(seed, left_s, asked_s) == slept_by_labkit(seed, left_s, asked_s)


def test_with_time_enough_both_wait_sixty_times() -> None:
    assert len(slept_by_labkit(1, 1e6, None)) == len(slept_by_the_student(1, 1e6, None)) == 60


@pytest.mark.parametrize("attempt", [1, 2, 5, 6, 60])
def test_the_pauses_of_both_have_the_same_bounds(attempt: int) -> None:
    for number in (0.0, 0.25, 0.999):
        chance = partial(float, number)
        ours = delay_s(attempt, base_s=BASE_S, cap_s=TOPE_S, random=chance)

        assert espera(attempt, 1e6, None, chance) == ours
        assert 0 <= ours < TOPE_S


def test_labkit_alone_gives_up_when_it_is_asked_to_wait_longer_than_the_cap() -> None:
    assert slept_by_labkit(1, 1e6, TOPE_S + 1) == []
    assert len(slept_by_the_student(1, 1e6, TOPE_S + 1)) == 60


def test_the_breaker_and_its_caller_refuse_at_once() -> None:
    breaker, calls = LocalBreaker("inventory"), list[int]()
    breaker.open()
    policy = Policy("inventory", retry=Retry("inventory"), breaker=breaker)

    with pytest.raises(BreakerOpenError) as raised:
        policy.call(calls.append, 1, idempotent=True)

    fault = failing.open_breaker("ORD-17", idempotente=True)
    assert (calls, type(fault.causa), decidir(fault)) == ([], raised.type, "rechazar_ya")


def technical() -> list[Fallo]:
    return [*failing.broken_connections(4), failing.slow(), failing.database_full()]


def raising(fault: Fallo) -> Callable[[Any], None]:
    def behave(_session: Any) -> None:
        assert isinstance(fault.causa, Exception)
        raise fault.causa

    return behave


@pytest.mark.parametrize("fault", [*technical(), failing.unreadable()], ids=lambda f: str(f.causa))
def test_the_consumer_holds_for_another_attempt_what_is_to_be_retried_and_parks_the_rest(
    flow: Flow, fault: Fallo
) -> None:
    happen(flow.source, "a", 1, behaviour="fault")
    toy.hooks["fault"] = raising(fault)

    flow.deliver(flow.consumer())

    [(state, _, _)] = flow.held()
    assert decidir(fault) == {"retry": "reintentar", "parked": "apartar"}[state]


@pytest.mark.parametrize("fault", technical(), ids=lambda f: str(f.causa))
def test_what_is_to_be_retried_is_done_by_the_next_attempt(flow: Flow, fault: Fallo) -> None:
    happen(flow.source, "a", 1, behaviour="fault")
    toy.hooks["fault"] = raising(fault)
    consumer = flow.consumer()
    flow.deliver(consumer)

    toy.hooks["fault"] = lambda _session: None
    flow.clock.advance(60)
    flow.deliver(consumer)

    assert (flow.effects(), flow.held()) == ([1], [])


@pytest.mark.parametrize(
    "fault", [*failing.broken_connections(4), failing.slow()], ids=lambda f: str(f.causa)
)
def test_a_caller_s_retry_tries_again_what_is_to_be_retried(fault: Fallo) -> None:
    assert isinstance(fault.causa, Exception)

    assert Retry("stock").is_worth(fault.causa)
    assert decidir(fault) == "reintentar"


def test_a_worker_without_its_database_keeps_the_message_and_does_it_later(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    flow.relay.run_once()
    url = flow.target.url
    with Proxy(str(url.host), url.port or 5432) as proxy:
        engine = db.connect(url.set(host="127.0.0.1", port=proxy.port))
        [consumer] = toy.target.consumers(engine, flow.transport, clock=flow.clock)
        proxy.refuse()
        with pytest.raises(OperationalError) as raised:
            consumer.run_once()
        engine.dispose()

    assert type(raised.value) is type(failing.database_away().causa)
    assert (flow.held(), flow.effects()) == ([], [])
    flow.deliver(flow.consumer())
    assert (decidir(failing.database_away()), flow.effects()) == ("reintentar", [1])


def test_the_inventory_answers_a_no_with_an_event_and_no_error(
    shop: Shop, deliver: Deliver
) -> None:
    asked = ReserveStockRequested(reservation_id="RES-3", lines=(Line("BOOK-EDA", 9),))

    answers: list[Event] = deliver(shop.stock, inventory.service, inventory.reserve, asked)

    fault = failing.no_stock(OUT_OF_STOCK)
    assert answers == [fault.causa] == [StockReservationRejected("RES-3", "BOOK-EDA", OUT_OF_STOCK)]
    assert decidir(fault) == "responder_no"


def test_the_poisoned_message_is_parked_before_any_handler_sees_it(shop: Shop) -> None:
    shop.place("ORD-18", ("BOOK-DDD", 2))
    with shop.orders.begin() as connection:
        connection.exec_driver_sql(
            """update outbox_messages set body = replace(body, '"qty":2', '"qty":"dos"')"""
        )
    shop.settle()

    with shop.stock.connect() as connection:
        [letter] = inventory.service.dead_letters.find(connection)
    fault = failing.unreadable()
    assert letter.reason.startswith(f"{type(fault.causa).__name__}: {fault.causa}"[:40])
    assert decidir(fault) == "apartar"


@pytest.fixture
def provider(engine: Engine) -> SimulatedProvider:
    """Return a provider that charges ORD-19 once and loses the answer."""
    db.create_all(engine, BOOKS)
    made = SimulatedProvider(engine)
    made.switch_on(Fault.LOSE_ANSWER, "ORD-19", times=1)
    return made


def test_a_charge_without_a_key_is_never_repeated_and_stays_for_a_person(
    provider: SimulatedProvider,
) -> None:
    with pytest.raises(ConfigurationError):
        Retry("pagos").call(provider.authorize, "una-vez", "ORD-19", 3000)
    with pytest.raises(ProviderAwayError) as raised:
        provider.authorize("una-vez", "ORD-19", 3000)

    fault = failing.lost_charge("ORD-19", idempotente=False)
    assert [charge.state for charge in provider.charges()] == [CHARGED]
    assert type(raised.value) is type(fault.causa)
    assert decidir(fault) == "apartar"


def test_a_charge_with_a_key_is_repeated_and_paid_once(provider: SimulatedProvider) -> None:
    retry = Retry("pagos", sleep=lambda _: None)

    assert retry.call(provider.authorize, "RES-19", "ORD-19", 3000, idempotent=True)

    [charge] = provider.charges()
    fault = failing.lost_charge("ORD-20", idempotente=True)
    assert (charge.state, charge.requests) == (CHARGED, 2)
    assert decidir(fault) == "reintentar"
