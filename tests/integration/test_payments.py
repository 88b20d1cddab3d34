"""Payments: one key is charged once, a no is an answer, and so is that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from labkit import db
from labkit.errors import PermanentError
from labkit.messages import Event
from labkit.shop import fulfillment, payments
from labkit.shop.payments import (
    AuthorizePaymentRequested,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentUnavailable,
    PaymentVoided,
    VoidPaymentRequested,
)
from labkit.shop.provider import (
    CHARGED,
    DECLINED,
    VOIDED,
    Fault,
    KeyReusedError,
    ProviderAwayError,
    SimulatedProvider,
)
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import REQUEST_ID, decode_envelope
from tests.databases import Databases, emptied, lent_database

METADATA = payments.service.metadata
CENTS = 2990
PAYMENT: dict[str, Any] = {"reservation_id": "RES-1", "order_id": "ORD-1", "amount_cents": CENTS}
ASKED, UNDONE = AuthorizePaymentRequested(**PAYMENT), VoidPaymentRequested(**PAYMENT)
DO, UNDO = "checkout/RES-1/authorize_payment/do", "checkout/RES-1/authorize_payment/undo"
PAID = PaymentAuthorized(reservation_id="RES-1")
GIVEN_BACK = PaymentVoided(reservation_id="RES-1")
NO = PaymentDeclined(reservation_id="RES-1", reason="PAYMENT_DECLINED")


class Desk:
    """Payments and their provider on a database of their own."""

    def __init__(self, engine: Engine, transport: RedisStreams) -> None:
        self.engine, self.provider = engine, SimulatedProvider(engine)
        self.relay = fulfillment.service.relay(engine, transport, owner="relay")
        (self.payer,) = payments.service.consumers(engine, transport, owner="payer")

    def ask(self, event: Event, request: str | None) -> None:
        headers = {REQUEST_ID: request} if request else {}
        with Session(self.engine) as session, session.begin():
            payments.service.outbox.add(session, event, key="RES-1", headers=headers)
        self.relay.run_once()
        self.payer.run_once()

    def answers(self) -> list[Event]:
        table = payments.service.outbox.table
        asking = (AuthorizePaymentRequested.topic, VoidPaymentRequested.topic)
        query = select(table.c.body).where(table.c.topic.not_in(asking)).order_by(table.c.seq)
        with self.engine.connect() as connection:
            bodies = connection.execute(query).scalars()
            return [payments.service.registry.decode(decode_envelope(body)) for body in bodies]

    def books(self) -> list[tuple[str, str, int]]:
        """Return key, state and number of requests of all charges."""
        return [(each.key, each.state, each.requests) for each in self.provider.charges()]


@pytest.fixture(scope="module")
def shared(databases_of_tests: Databases) -> Iterator[Engine]:
    with lent_database(databases_of_tests, METADATA) as engine:
        yield engine


@pytest.fixture
def desk(shared: Engine, transport: RedisStreams) -> Iterator[Desk]:
    yield Desk(emptied(shared, METADATA), transport)
    shared.update_execution_options(labkit_payment_provider=SimulatedProvider(shared))


@pytest.fixture
def provider(shared: Engine) -> SimulatedProvider:
    return SimulatedProvider(emptied(shared, METADATA))


def states(provider: SimulatedProvider) -> list[str]:
    return [each.state for each in provider.charges()]


def test_twenty_threads_with_one_key_are_one_charge(provider: SimulatedProvider) -> None:
    with ThreadPoolExecutor(20) as threads:
        said = list(threads.map(lambda _: provider.authorize("key", "ORD-1", CENTS), range(20)))
    assert said == [True] * 20
    assert provider.charges() == [("key", "ORD-1", CENTS, CHARGED, 20)]


def test_what_was_charged_is_given_back_once(provider: SimulatedProvider) -> None:
    provider.authorize("key", "ORD-1", CENTS)
    provider.void("key", "ORD-1", CENTS)
    provider.void("key", "ORD-1", CENTS)
    assert states(provider) == [VOIDED]


def test_a_void_that_overtakes_its_charge_leaves_a_tombstone(provider: SimulatedProvider) -> None:
    provider.void("key", "ORD-1", CENTS)
    assert not provider.authorize("key", "ORD-1", CENTS)
    assert states(provider) == [VOIDED]


def test_a_no_stays_a_no_under_its_key(provider: SimulatedProvider) -> None:
    provider.switch_on(Fault.DECLINE, "ORD-1", times=1)
    assert not provider.authorize("key", "ORD-1", CENTS)
    assert not provider.authorize("key", "ORD-1", CENTS)
    assert provider.authorize("another key", "ORD-1", CENTS)


def test_a_lost_answer_was_a_charge_and_asking_again_is_none(provider: SimulatedProvider) -> None:
    provider.switch_on(Fault.LOSE_ANSWER, "ORD-1", times=1)
    with pytest.raises(ProviderAwayError, match="before the answer came"):
        provider.authorize("key", "ORD-1", CENTS)
    assert states(provider) == [CHARGED]
    assert provider.authorize("key", "ORD-1", CENTS)
    assert states(provider) == [CHARGED]


@pytest.mark.parametrize("verb", ["authorize", "void"])
@pytest.mark.parametrize("other", [("ORD-2", CENTS), ("ORD-1", CENTS + 1)])
def test_a_key_that_was_used_for_another_payment_is_refused(
    provider: SimulatedProvider, verb: str, other: tuple[str, int]
) -> None:
    provider.authorize("key", "ORD-1", CENTS)
    with pytest.raises(KeyReusedError, match="key was used for another payment") as found:
        getattr(provider, verb)("key", *other)
    assert isinstance(found.value, PermanentError)
    assert provider.charges() == [("key", "ORD-1", CENTS, CHARGED, 1)]


@pytest.mark.parametrize("verb", ["authorize", "void"])
def test_a_provider_whose_database_does_not_answer_is_away(
    shared: Engine, provider: SimulatedProvider, verb: str
) -> None:
    hurried = db.connect(shared.url, lease_s=0.5)
    with shared.begin() as connection:
        connection.execute(text("lock table provider_charges"))
        with pytest.raises(ProviderAwayError, match="does not answer"):
            getattr(SimulatedProvider(hurried), verb)("key", "ORD-1", CENTS)
    hurried.dispose()
    assert provider.charges() == []


def test_a_charge_stands_whatever_becomes_of_our_transaction(
    shared: Engine, provider: SimulatedProvider
) -> None:
    with Session(shared) as session:
        payments.provider_of(session).authorize("key", "ORD-1", CENTS)
        session.rollback()
    assert states(provider) == [CHARGED]


CALLS = st.lists(
    st.tuples(st.sampled_from(["authorize", "lost", "void"]), st.integers(1, 2)), max_size=7
)


@given(calls=CALLS)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_in_every_order_of_calls_a_key_is_charged_until_it_is_voided(
    shared: Engine, provider: SimulatedProvider, calls: list[tuple[str, int]]
) -> None:
    emptied(shared, METADATA)
    wanted: dict[str, str] = {}
    for verb, number in calls:
        key = f"ORD-{number}"
        wanted[key] = VOIDED if verb == "void" else wanted.get(key, CHARGED)
        if verb == "void":
            provider.void(key, key, CENTS)
        elif verb == "authorize":
            assert provider.authorize(key, key, CENTS) is (wanted[key] == CHARGED)
        else:
            provider.switch_on(Fault.LOSE_ANSWER, key, times=1)
            with pytest.raises(ProviderAwayError):
                provider.authorize(key, key, CENTS)
    assert {each.key: each.state for each in provider.charges()} == wanted


def test_an_authorize_and_its_void_use_one_idempotency_key_whatever_the_attempt(desk: Desk) -> None:
    for event, request in [(ASKED, DO), (ASKED, DO), (UNDONE, UNDO), (UNDONE, UNDO)]:
        desk.ask(event, request)
    assert desk.answers() == [PAID, PAID, GIVEN_BACK, GIVEN_BACK]
    assert desk.books() == [("checkout/RES-1/authorize_payment", VOIDED, 4)]


def test_without_a_request_id_the_reservation_is_the_key(desk: Desk) -> None:
    desk.ask(ASKED, None)
    assert desk.books() == [("RES-1", CHARGED, 1)]


def test_a_provider_that_says_no_is_answered_with_a_no(desk: Desk) -> None:
    desk.provider.switch_on(Fault.DECLINE, "ORD-1")
    desk.ask(ASKED, DO)
    assert desk.answers() == [NO]
    assert states(desk.provider) == [DECLINED]


@pytest.mark.parametrize(("event", "request_id"), [(ASKED, DO), (UNDONE, UNDO)])
def test_a_provider_that_is_away_is_an_answer_of_its_own(
    desk: Desk, event: Event, request_id: str
) -> None:
    desk.provider.switch_on(Fault.DOWN, "ORD-1", times=1)
    desk.ask(event, request_id)
    away = PaymentUnavailable(reservation_id="RES-1", reason="the provider is not there")
    assert (desk.answers(), desk.books()) == ([away], [])


def test_a_lost_answer_is_answered_as_unknown_and_charged_once_when_asked_again(desk: Desk) -> None:
    desk.provider.switch_on(Fault.LOSE_ANSWER, "ORD-1", times=1)
    desk.ask(ASKED, DO)
    desk.ask(ASKED, DO)
    assert [type(answer) for answer in desk.answers()] == [PaymentUnavailable, PaymentAuthorized]
    assert desk.books() == [("checkout/RES-1/authorize_payment", CHARGED, 2)]


def test_a_provider_that_the_engine_carries_is_asked_instead(desk: Desk) -> None:
    class Stern:
        asked: tuple[Any, ...] = ()

        def authorize(self, *payment: Any) -> bool:
            self.asked = payment
            return False

        def void(self, key: str, order_id: str, amount_cents: int) -> None:
            raise AssertionError

    stern = Stern()
    desk.engine.update_execution_options(labkit_payment_provider=stern)
    desk.ask(ASKED, DO)
    assert (desk.answers(), desk.books()) == ([NO], [])
    assert stern.asked == ("checkout/RES-1/authorize_payment", "ORD-1", CENTS)
