"""What notebook 03 shows to whoever goes deeper: deaths, the lock, versions, the view's lag."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from labkit.errors import LabkitError, LockedError
from labkit.lab import crash_books, crash_matrix, flows, last_unit, versions, view_lag
from labkit.lab.bench import Bench
from labkit.lab.crash_books import JOURNEY
from labkit.lab.crash_matrix import POINTS, Death
from labkit.lab.servers import Stack
from labkit.saga.state import Status
from labkit.shop import checkout, fulfillment, payments
from tests.figures import problems, words

pytestmark = pytest.mark.thorough


@pytest.fixture
def bench(running: Stack) -> Iterator[Bench]:
    opened = Bench("hondo_03", servers=running, beside=(checkout.service, payments.service))
    yield opened
    opened.close()


@pytest.mark.parametrize("hop", JOURNEY[::2], ids=lambda hop: hop.event.event_type)
def test_a_death_in_any_window_neither_loses_nor_doubles_an_effect(
    bench: Bench, hop: crash_books.Hop
) -> None:
    found = crash_matrix.deaths(bench, [hop])

    assert [(each.point, each.wrong) for each in found] == [(point, ()) for point in POINTS]
    assert [each.delivered for each in found] == [1, 2, 1, 2, 2]


def test_a_death_that_happens_elsewhere_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = crash_matrix._LEFT["relay.after_claim"]
    monkeypatch.setitem(crash_matrix._LEFT, "relay.after_publish", claimed)

    with pytest.raises(LabkitError, match=r"Requested, relay\.after_publish: -9"):
        crash_matrix.deaths(bench, JOURNEY[:1], ["relay.after_publish"])


def test_an_effect_that_is_done_twice_is_named(bench: Bench) -> None:
    with bench.scratch(beside=bench.beside) as other:
        with Session(other.orders) as session, session.begin():
            checkout.check_out(session, "ORD-1", [("BOOK-DDD", 1)], amount_cents=3000)
        other.settle(without=payments.service)

        assert set(crash_books.wrong_with(other, "ORD-1")) == {
            "la saga no acaba",
            "las compensaciones no son una de cada",
            "falta o sobra stock",
            "un mensaje no se escribe una vez",
            "pedido y cobro no dicen lo mismo",
        }


def test_the_heat_map_says_what_was_wrong_and_what_came_twice() -> None:
    found = [
        Death(f"ORD-{n}", "StockReserved", point, ("falta o sobra stock",) if n == 1 else (), 1 + n)
        for n, point in enumerate(POINTS)
    ]
    figure = crash_matrix.heat_map(found, title="Muertes")

    assert problems(figure) == []
    assert {"✓ ×1", "✗ ×2", "✓ ×3"} <= set(words(figure))
    assert crash_matrix.reading(found) == (
        "5 procesos muertos, 4 sagas bien acabadas; 4 mensajes llegaron más de una vez; "
        "mal: falta o sobra stock."
    )


def test_a_cancellation_that_asks_nobody_costs_a_customer_their_money(bench: Bench) -> None:
    end = last_unit.meanwhile(bench, last_unit.without_asking)
    said, left = end

    assert said == last_unit.DONE
    assert left[0] == ("ORD-9", "CANCELLED", True, 0, Status.RUNNING)
    assert left[1] == ("ORD-10", "CONFIRMED", True, 1, Status.COMPLETED)
    assert not last_unit.is_sound(end)
    assert last_unit.cells({"sin": end})["sin"]["ORD-9"].verdict == "bad"


def test_with_the_lock_it_is_refused_and_every_payment_has_its_unit(bench: Bench) -> None:
    end = last_unit.meanwhile(bench, fulfillment.cancel_order)
    said, left = end

    assert said == "no: ORD-9 está en manos de RES-9"
    assert left[0] == ("ORD-9", "CONFIRMED", True, 1, Status.COMPLETED)
    assert left[1] == ("ORD-10", "REJECTED", False, 0, Status.COMPENSATED)
    assert last_unit.is_sound(end)
    assert last_unit.reading({"con": end}) == (
        "«con», cobros: 1, unidades para ellos: 1, sagas sin acabar: 0."
    )


def test_the_lock_goes_with_the_saga(bench: Bench) -> None:
    with bench.scratch(beside=bench.beside) as shop:
        for order_id, quantity in (("ORD-1", 1), ("ORD-2", 99)):
            with Session(shop.orders) as session, session.begin():
                checkout.check_out(session, order_id, [("BOOK-DDD", quantity)], amount_cents=3000)
        with Session(shop.orders) as session, pytest.raises(LockedError, match="by RES-1 since"):
            fulfillment.cancel_order(session, "ORD-1")
        shop.settle()

        with Session(shop.orders) as session, session.begin():
            holders = [fulfillment.order_locks.holder_of(session, f"ORD-{n}") for n in (1, 2)]
            assert holders == [None, None]
            assert fulfillment.cancel_order(session, "ORD-2")


def test_each_saga_ends_with_its_own_version_and_an_unknown_one_waits(bench: Bench) -> None:
    one = versions.deployed(checkout.CHECKOUT)
    two = versions.deployed(checkout.CHECKOUT, versions.WITH_INVOICE)
    with bench.scratch(beside=versions.BESIDE) as shop:
        versions.begin(shop, one, "ORD-8")
        shop.settle(also=one.service, without=payments.service)
        versions.begin(shop, two, "ORD-9")
        shop.settle(also=two.service)
        versions.begin(shop, two, "ORD-11")
        shop.settle(also=one.service)
        stands = versions.course(shop, two, "ORD-11")
        versions.redrive(shop, two)
        shop.settle(also=two.service)
        ended = versions.course(shop, two, "ORD-8", "ORD-9", "ORD-11")

    assert stands[["estado", "apartados"]].values.tolist() == [["RUNNING", 1]]
    assert ended["apartados"].tolist() == [0, 0, 0]
    assert ended["versión"].tolist() == [1, 2, 2]
    assert ended["write_invoice"].tolist() == [False, True, True]
    assert ended["confirm_order"].all()
    assert set(ended["estado"]) == {"COMPLETED"}


def test_the_view_falls_behind_while_nobody_works_on_it_and_catches_up(bench: Bench) -> None:
    with bench.scratch(beside=bench.beside) as shop:
        found = view_lag.turns(shop, orders=4, away=range(2, 5))

    lags = [each.lag for each in found]
    assert lags[1] < lags[2] < lags[3]
    assert lags[4] < lags[3]
    assert lags[-1] == 0
    assert found[-1].written == 4 * 2  # reserved, confirmed
    assert "(turno 4)" in view_lag.reading(found, range(2, 5))


def test_a_step_of_a_choreography_is_in_more_files_than_one_of_a_saga() -> None:
    found = flows.files_of_a_step()

    total = found.iloc[-1]
    assert (total["coreografía"], total["orquestación"]) == (4, 3)
    touched = found[found["orquestación"].eq(True)]["fichero"]
    assert set(touched) == {"shop/checkout.py", "shop/inventory.py", "shop/contracts.py"}
