"""The backorder's decisions, played by hand: warehouse A, warehouse B, the customer's day."""

from __future__ import annotations

from labkit.shop.backorder import (
    WAREHOUSE_A,
    WAREHOUSE_B,
    Backorder,
    BackorderEnded,
    OfferAnswered,
    PartialOffered,
    WarehouseReleaseRequested,
    WarehouseStockRequested,
    manager,
)
from labkit.shop.contracts import Line, StockReservationRejected, StockReserved
from labkit.testing.process_managers import Rehearsal, given

BOOK, PEN = Line("BOOK", 1), Line("PEN", 2)


def yes(line: Line) -> StockReserved:
    return StockReserved(reservation_id="RES-1", sku=line.sku, qty=line.qty)


def no(line: Line) -> StockReservationRejected:
    return StockReservationRejected(reservation_id="RES-1", sku=line.sku, reason="OUT_OF_STOCK")


def answer(*, accepts: bool) -> OfferAnswered:
    return OfferAnswered(reservation_id="RES-1", accepts=accepts)


def begun() -> Rehearsal[Backorder]:
    return given(manager, Backorder(lines=(BOOK, PEN))).expect(WarehouseStockRequested)


def asking_b() -> Rehearsal[Backorder]:
    """Return a process for which A holds the book and B is asked for the pens."""
    found = begun().receive(yes(BOOK), no(PEN), source=WAREHOUSE_A)
    return found.expect(WarehouseStockRequested).expect_state("at_b")


def offered() -> Rehearsal[Backorder]:
    found = asking_b().receive(no(PEN), source=WAREHOUSE_B)
    return found.expect(PartialOffered).expect_state("offered")


def asked_of(rehearsal: Rehearsal[Backorder]) -> list[tuple[str, str, tuple[Line, ...]]]:
    """Return every request: reserve or release, of which warehouse, which lines."""
    wanted = (WarehouseStockRequested, WarehouseReleaseRequested)
    return [
        ("reserve" if isinstance(each, WarehouseStockRequested) else "release",
         each.warehouse, each.lines)
        for each in rehearsal.sent
        if isinstance(each, wanted)
    ]  # fmt: skip


def test_what_warehouse_a_has_is_not_looked_for_elsewhere() -> None:
    found = begun().receive(yes(BOOK), yes(PEN), source=WAREHOUSE_A)
    found.expect(BackorderEnded).expect_ended("WHOLE")


def test_warehouse_b_is_asked_for_what_a_has_not() -> None:
    found = asking_b().receive(yes(PEN), source=WAREHOUSE_B).expect(BackorderEnded)
    found.expect_ended("WHOLE")
    assert asked_of(found) == [("reserve", "A", (BOOK, PEN)), ("reserve", "B", (PEN,))]
    assert found.process.data.held == {"BOOK": "A", "PEN": "B"}


def test_the_customer_is_offered_what_there_is_of_it() -> None:
    assert offered().sent[-1] == PartialOffered(reservation_id="RES-1", lines=(BOOK,))


def test_an_accepted_offer_keeps_what_is_held() -> None:
    found = offered().receive(answer(accepts=True)).expect(BackorderEnded)
    found.expect_ended("ACCEPTED")
    assert found.sent[-1] == BackorderEnded(
        reservation_id="RES-1", result="ACCEPTED", lines=(BOOK,)
    )


def test_a_declined_offer_gives_back_what_is_held() -> None:
    found = offered().receive(answer(accepts=False))
    found.expect(WarehouseReleaseRequested, BackorderEnded).expect_ended("DECLINED")
    assert asked_of(found)[-1] == ("release", "A", (BOOK,))


def test_an_offer_that_nobody_answers_for_a_day_is_given_back() -> None:
    found = offered().advance(hours=23.9).expect_state("offered")
    found.advance(hours=0.1).expect(WarehouseReleaseRequested, BackorderEnded)
    found.expect_ended("EXPIRED")


def test_an_answer_after_the_day_changes_nothing() -> None:
    found = offered().advance(hours=24).expect(WarehouseReleaseRequested, BackorderEnded)
    found.receive(answer(accepts=True)).expect().expect_ignored().expect_ended("EXPIRED")


def test_an_answer_before_the_offer_changes_nothing() -> None:
    begun().receive(answer(accepts=True)).expect().expect_ignored().expect_state("at_a")


def test_of_two_answers_the_first_counts() -> None:
    found = offered().receive(answer(accepts=True), answer(accepts=False))
    found.expect(BackorderEnded).expect_ended("ACCEPTED")


def test_without_any_stock_there_is_nothing_to_offer() -> None:
    found = begun().receive(no(BOOK), no(PEN), source=WAREHOUSE_A)
    found = found.expect(WarehouseStockRequested).receive(no(PEN), no(BOOK), source=WAREHOUSE_B)
    found.expect(BackorderEnded).expect_ended("OUT_OF_STOCK")


def test_a_silent_warehouse_a_is_released_and_b_is_asked_for_everything() -> None:
    found = begun().receive(yes(BOOK), source=WAREHOUSE_A).advance(600)
    found.expect(WarehouseReleaseRequested, WarehouseStockRequested).expect_state("at_b")
    assert asked_of(found)[1:] == [("release", "A", (BOOK, PEN)), ("reserve", "B", (BOOK, PEN))]


def test_a_silent_warehouse_b_is_released_and_the_part_from_a_is_offered() -> None:
    found = asking_b().advance(600).expect(WarehouseReleaseRequested, PartialOffered)
    found.expect_state("offered")
    assert asked_of(found)[-1] == ("release", "B", (PEN,))


def test_two_silent_warehouses_leave_nothing_to_offer() -> None:
    begun().advance(1200).expect_ended("OUT_OF_STOCK")


def test_a_late_yes_of_a_warehouse_that_was_given_up_changes_nothing() -> None:
    found = begun().advance(600).expect(WarehouseReleaseRequested, WarehouseStockRequested)
    found.receive(yes(BOOK), source=WAREHOUSE_A).expect().expect_ignored().expect_state("at_b")


def test_the_same_line_again_changes_nothing() -> None:
    found = begun().receive(yes(BOOK), yes(BOOK), source=WAREHOUSE_A).expect().expect_ignored()
    found.receive(no(BOOK), source=WAREHOUSE_A).expect_ignored()
    assert found.process.data.held == {"BOOK": "A"}


def test_warehouses_time_does_not_run_while_the_customer_thinks() -> None:
    assert set(offered().process.deadlines) == {"customer"}
