"""Payments: the participant that speaks to the payment provider.

Its requests and answers are private to fulfillment's context and travel on its stream. The
provider is called inside the handler's transaction, with the request's id as idempotency key.

Guarantee: one request, one charge at most, however often it is asked for or handled. A provider
that says no is a `PaymentDeclined`, a business no; one that does not answer is a
`PaymentUnavailable`, and nobody claims to know whether it charged.
Not guaranteed: that the provider can be reached in the time that a handler has.

Crash windows: none of its own. Killed at `consumer.before_commit` the provider has charged and we
have not noted it: the message comes again, asks with the same key and gets the first answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.messages import Event, Message, Registry
from labkit.service import Service
from labkit.shop import fulfillment
from labkit.shop.contracts import FULFILLMENT, Id
from labkit.shop.provider import PaymentProvider, ProviderAwayError, SimulatedProvider
from labkit.wire import REQUEST_ID


class _Payment(Event, frozen=True):
    reservation_id: Id
    order_id: Id
    amount_cents: int


class AuthorizePaymentRequested(_Payment, frozen=True):
    """The checkout asks for the money of an order."""

    topic: ClassVar[str] = "fulfillment.authorize-payment-requested.v1"


class VoidPaymentRequested(_Payment, frozen=True):
    """The checkout takes it back, whether or not it was charged."""

    topic: ClassVar[str] = "fulfillment.void-payment-requested.v1"


class PaymentAuthorized(Event, frozen=True):
    """The provider has charged."""

    topic: ClassVar[str] = "fulfillment.payment-authorized.v1"

    reservation_id: Id


class PaymentDeclined(Event, frozen=True):
    """The provider says no."""

    topic: ClassVar[str] = "fulfillment.payment-declined.v1"

    reservation_id: Id
    reason: str


class PaymentUnavailable(Event, frozen=True):
    """The provider did not answer; whether it charged is unknown."""

    topic: ClassVar[str] = "fulfillment.payment-unavailable.v1"

    reservation_id: Id
    reason: str


class PaymentVoided(Event, frozen=True):
    """The provider will not charge, or has given it back."""

    topic: ClassVar[str] = "fulfillment.payment-voided.v1"

    reservation_id: Id


EVENTS = (
    AuthorizePaymentRequested,
    VoidPaymentRequested,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentUnavailable,
    PaymentVoided,
)
service = Service("payments", Registry(*EVENTS), beside=fulfillment.service)
PaymentT = TypeVar("PaymentT", bound=_Payment)


@service.on(AuthorizePaymentRequested, source=FULFILLMENT)
def authorize(session: Session, message: Message[AuthorizePaymentRequested]) -> None:
    """Ask the provider for the money, and tell what it said."""

    def ask(provider: PaymentProvider, key: str) -> Event:
        payment = message.event
        if provider.authorize(key, payment.order_id, payment.amount_cents):
            return PaymentAuthorized(reservation_id=payment.reservation_id)
        return PaymentDeclined(reservation_id=payment.reservation_id, reason="PAYMENT_DECLINED")

    _answer(session, message, ask)


@service.on(VoidPaymentRequested, source=FULFILLMENT)
def void(session: Session, message: Message[VoidPaymentRequested]) -> None:
    """Take the money of an order back."""

    def ask(provider: PaymentProvider, key: str) -> Event:
        payment = message.event
        provider.void(key, payment.order_id, payment.amount_cents)
        return PaymentVoided(reservation_id=payment.reservation_id)

    _answer(session, message, ask)


def _answer(
    session: Session, message: Message[PaymentT], ask: Callable[[PaymentProvider, str], Event]
) -> None:
    reservation_id = message.event.reservation_id
    try:
        answer = ask(provider_of(session), _idempotency_key(message))
    except ProviderAwayError as error:
        # Why not let it be tried again here: whoever waits for the answer has a deadline, and
        # decides between another attempt and giving up.
        answer = PaymentUnavailable(reservation_id=reservation_id, reason=str(error))
    service.outbox.add(session, answer, key=message.key, cause=message)


def _idempotency_key(message: Message[PaymentT]) -> str:
    """Return one key for authorizing and voiding the same payment, whatever the attempt."""
    request = message.headers.get(REQUEST_ID)
    return request.rpartition("/")[0] if request else message.key


def provider_of(session: Session) -> PaymentProvider:
    """Return the provider that the engine carries, else the simulated one beside our tables."""
    engine = session.get_bind()
    assert isinstance(engine, Engine)  # noqa: S101 - a handler's session is bound to one
    simulated: PaymentProvider = SimulatedProvider(engine)
    return unit_of_work.carried(session, "labkit_payment_provider", simulated)
