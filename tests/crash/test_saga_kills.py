"""Every worker of the checkout is really killed; each saga ends once, and all books agree."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from labkit.clock import FakeClock
from labkit.messages import Event
from labkit.shop import payments
from labkit.shop.contracts import ReservationReleased
from labkit.shop.payments import (
    AuthorizePaymentRequested,
    PaymentAuthorized,
    PaymentDeclined,
    PaymentVoided,
    VoidPaymentRequested,
)
from labkit.shop.provider import CHARGED, VOIDED
from labkit.wire import REQUEST_ID
from tests.checkout_flow import CENTS, PROCESSES, Floor
from tests.crash.conftest import Crew, until

MANY, FEW = 200, 12
# Of ten checkouts eight are paid, one is declined, one lacks stock for one of its lines.
FATES = ("paid", "paid", "short", "paid", "paid", "paid", "paid", "declined", "paid", "paid")


@pytest.fixture
def floor(crew: Crew) -> Iterator[Floor]:
    made = Floor(crew, opening=2 * MANY)
    yield made
    made.close()


def end_well(floor: Floor, fates: dict[str, str]) -> None:
    until(lambda: floor.ended() == len(fates), "all sagas have ended")
    floor.crew.end()
    floor.check(fates)


def test_when_every_worker_is_killed_under_way_all_end_and_nothing_is_done_twice(
    floor: Floor,
) -> None:
    fates = floor.check_out(itertools.islice(itertools.cycle(FATES), MANY))
    floor.start(*PROCESSES)
    until(lambda: floor.ended() >= 0.4 * MANY, "two of five have ended")
    floor.kill(*PROCESSES)
    assert floor.ended() < MANY
    floor.start(*PROCESSES)
    end_well(floor, fates)


@pytest.mark.parametrize("point", ["consumer.before_commit", "consumer.after_commit"])
@pytest.mark.parametrize(
    ("away", "waits_in", "answer"),
    [
        ("payments", "RUNNING authorize_payment", PaymentDeclined),
        ("inventory", "COMPENSATING reserve_stock", ReservationReleased),
    ],
)
def test_a_checkout_killed_half_way_back_applies_each_compensation_once_in_reverse_order(
    floor: Floor, away: str, waits_in: str, answer: type[Event], point: str
) -> None:
    fates = floor.check_out(["declined"] * FEW)
    floor.start("fulfillment", "inventory", "checkout")
    until(lambda: floor.steps() == {"RUNNING authorize_payment": FEW}, "the money is asked for")
    if away == "inventory":
        floor.drain("inventory")
        floor.start("payments")
        until(lambda: floor.steps() == {waits_in: FEW}, "the release is asked for")
    floor.drain("checkout")
    floor.start(away)
    until(lambda: floor.published(away, answer.topic) == FEW, "the answers are out")
    before = floor.history()

    die(floor, point)
    if point == "consumer.before_commit":
        assert floor.history() == before
    while floor.history() == before and point == "consumer.after_commit":
        die(floor, point)  # the first passage may have been a batch of types that it skips
    floor.start(*(name for name in PROCESSES if name not in floor.running))
    end_well(floor, fates)


def die(floor: Floor, point: str) -> None:
    floor.start("checkout", faults=f"{point}:kill:@1")
    floor.wait_for_death("checkout")


def test_a_worker_killed_while_it_wakes_sagas_leaves_all_of_them_to_the_next(floor: Floor) -> None:
    # Begun long ago, and nobody answers: all are due.
    long_ago = FakeClock(datetime(2020, 2, 17, 16, 0, tzinfo=UTC))
    floor.orders.update_execution_options(labkit_clock=long_ago)
    fates = floor.check_out(["paid"] * MANY)
    with floor.orders.begin() as connection:
        # It has changed the sagas of its first batch, and comes to their history.
        connection.execute(text("lock table saga_history in exclusive mode"))
        floor.start("checkout", role="saga")
        until(lambda: is_waiting(floor), "the worker is in the midst of its transaction")
        floor.kill("checkout")
    assert timed_out(floor) == {}

    floor.start("checkout", role="saga")
    until(lambda: len(timed_out(floor)) == MANY, "the next one has woken all")
    floor.crew.end()
    assert timed_out(floor) == dict.fromkeys(fates, 1)


def is_waiting(floor: Floor) -> bool:
    waiting = text("""
        select count(*) from pg_locks join pg_stat_activity using (pid)
        where not granted and relation = 'saga_history'::regclass and query ilike '%insert%'
    """)
    with floor.orders.connect() as connection:
        return bool(connection.execute(waiting).scalar_one() == 1)


def timed_out(floor: Floor) -> Counter[str]:
    """Count by saga how often its first attempt was found to be over."""
    lines = payments.service.metadata.tables["saga_history"].c
    first = (lines.what == "timed out") & (lines.detail == "attempt 1")
    with floor.orders.connect() as connection:
        return Counter(connection.execute(select(lines.id).where(first)).scalars())


PAYMENT = "checkout/RES-1/authorize_payment"
PAID = {"reservation_id": "RES-1", "order_id": "ORD-1", "amount_cents": CENTS}


@pytest.mark.parametrize(
    ("request_id", "asked", "answer", "state"),
    [
        (f"{PAYMENT}/do", AuthorizePaymentRequested, PaymentAuthorized, CHARGED),
        (f"{PAYMENT}/undo", VoidPaymentRequested, PaymentVoided, VOIDED),
    ],
)
def test_payments_killed_between_the_commit_of_the_provider_and_ours_act_once(
    floor: Floor, request_id: str, asked: type[Event], answer: type[Event], state: str
) -> None:
    with Session(floor.orders) as session, session.begin():
        request = asked(**PAID)
        payments.service.outbox.add(session, request, key="RES-1", headers={REQUEST_ID: request_id})
    floor.start("fulfillment")
    floor.start("payments", faults="consumer.before_commit:kill:@1")
    floor.wait_for_death("payments")
    assert [(each.state, each.requests) for each in floor.provider.charges()] == [(state, 1)]
    assert floor.published("payments", answer.topic) == 0

    floor.start("payments")
    until(lambda: floor.published("payments", answer.topic) == 1, "it is answered")
    floor.crew.end()
    assert floor.provider.charges() == [(PAYMENT, "ORD-1", CENTS, state, 2)]
    assert floor.published("payments", answer.topic) == 1
