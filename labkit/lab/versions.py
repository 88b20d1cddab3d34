"""Versions: a checkout is deployed anew while its sagas are under way.

A deployment is a service of the name `checkout` with the definitions that it knows. Whoever is
deployed later reads the same tables, under the same name, as a new process would.

    one = deployed(checkout.CHECKOUT)
    two = deployed(checkout.CHECKOUT, WITH_INVOICE)

Guarantee: all deployments are real services, and every saga is carried by whichever is deployed.
Not guaranteed: two deployments at a time, as in a rolling update: a service has one name.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from sqlalchemy import Column, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit import db
from labkit.dead_letters import Wanted
from labkit.lab.bench import Bench
from labkit.lab.saga_messages import checkout_of
from labkit.lab.story_cast import CAST
from labkit.saga import RETRIABLE, Local, Saga, Sagas, Step
from labkit.saga.operations import Operations
from labkit.service import Service
from labkit.shop import checkout, fulfillment, payments
from labkit.shop.checkout import CHECKOUT, Checkout
from labkit.shop.contracts import FULFILLMENT
from labkit.shop.order_book import reservation_id_of

BESIDE = (payments.service,)
metadata = MetaData()
invoices = Table("invoices", metadata, Column("order_id", Text, primary_key=True))


def write_invoice(session: Session, order: Checkout) -> None:
    """Write an order's invoice, once."""
    session.execute(insert(invoices).values(order_id=order.order_id).on_conflict_do_nothing())


WITH_INVOICE = Saga(
    CHECKOUT.name,
    *CHECKOUT.steps.values(),
    Step("write_invoice", RETRIABLE, Local(write_invoice)),
    data=Checkout,
    version=2,
    at_end=CHECKOUT.at_end,
)


class Deployed(NamedTuple):
    """The checkout as it is deployed."""

    service: Service
    sagas: Sagas


def deployed(*versions: Saga) -> Deployed:
    """Return the checkout that knows these versions; the newest one begins.

    Args:
        versions: of its definition.
    """
    # Why not beside fulfillment: there the shop's own checkout has the name already.
    service = Service(checkout.service.name, checkout.service.registry, stream=FULFILLMENT)
    return Deployed(service, Sagas(service, *versions))


def begin(bench: Bench, now: Deployed, order_id: str) -> None:
    """Begin the saga of an order of the story.

    Args:
        bench: where; one with `BESIDE`, that is thrown away.
        now: what is deployed.
        order_id: which.
    """
    db.create_all(bench.orders, metadata)
    with Session(bench.orders) as session, session.begin():
        reservation_id = fulfillment.write_order(session, order_id, CAST[order_id].lines)
        now.sagas.start(session, reservation_id, checkout_of(order_id))


def redrive(bench: Bench, now: Deployed) -> int:
    """Ask for what was put aside again; return how many.

    Args:
        bench: where.
        now: what is deployed.
    """
    with bench.orders.begin() as connection:
        return len(now.service.dead_letters.redrive_all(connection, _mine(now)).flagged)


def course(bench: Bench, now: Deployed, *order_ids: str) -> pd.DataFrame:
    """Return for each saga its version, the steps that were done, where it stands, what is parked.

    Args:
        bench: where.
        now: what is deployed.
        order_ids: which orders.
    """
    steps = list(WITH_INVOICE.steps)
    return pd.DataFrame([_row(bench, now, order_id, steps) for order_id in order_ids])


def _row(bench: Bench, now: Deployed, order_id: str, steps: list[str]) -> dict[str, object]:
    with Session(bench.orders) as session:
        shown = Operations(now.sagas).one(session, reservation_id_of(order_id))
    done = {line.step for line in shown.history if line.what in {"ran", "answered"}}
    with bench.orders.connect() as connection:
        parked = now.service.dead_letters.find(connection, _mine(now))
    letters = [letter.envelope for letter in parked if letter.envelope]
    return {
        "orderId": order_id,
        "versión": shown.listed.version,
        **{step: f"{step}/do" in done for step in steps},
        "estado": str(shown.listed.status),
        "apartados": sum(letter.correlation_id == shown.listed.id for letter in letters),
    }


def _mine(now: Deployed) -> Wanted:
    return Wanted(consumer=now.service.name)
