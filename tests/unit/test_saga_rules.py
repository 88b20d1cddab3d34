"""The saga's rules, played by hand on a fake clock: no server, no waiting."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import SagaError, UnknownReplyError
from labkit.saga import Outcome
from labkit.testing.sagas import Rehearsal, given
from tests.toy_saga import (
    BankAway,
    CannotShip,
    Declined,
    OutOfStock,
    Paid,
    Pay,
    Release,
    Released,
    Reserve,
    Reserved,
    Ship,
    Shipped,
    Toy,
    Voided,
    VoidPayment,
    toy_saga,
)

ORDER = Toy("ORD-1")
TWO_LINES = Toy("ORD-1", ("A", "B"))


def begun(data: Any = ORDER, **options: Any) -> Rehearsal:
    return given(toy_saga(**options), data).expect(Reserve)


def paying(**options: Any) -> Rehearsal:
    return begun(**options).reply(Reserved()).expect("order/do", Pay)


def compensating() -> Rehearsal:
    return paying().reply(Declined()).expect("order/undo", Release)


def test_a_saga_goes_through_its_steps_in_order() -> None:
    paying().reply(Paid()).expect(Ship).reply(Shipped()).expect().expect_completed()


def test_a_rejection_of_the_first_step_has_nothing_to_make_good() -> None:
    saga = begun().reply(OutOfStock()).expect().expect_compensated()
    assert saga.state.reason == "stock: OUT_OF_STOCK"


def test_a_rejection_makes_good_what_was_done_in_reverse_order() -> None:
    compensating().reply(Released()).expect().expect_compensated()


def test_a_step_waits_for_all_its_lines() -> None:
    saga = begun(TWO_LINES).reply(Reserved(line="B")).expect()
    saga.reply(Reserved(line="A")).expect("order/do", Pay)


def test_a_rejected_line_waits_for_the_others_before_the_step_is_given_up() -> None:
    begun(TWO_LINES).reply(OutOfStock(line="A")).expect().reply(Reserved(line="B")).expect(Release)


def test_a_step_of_which_every_line_was_rejected_is_not_made_good() -> None:
    saga = begun(TWO_LINES).reply(OutOfStock(line="A"), OutOfStock(line="B"))
    saga.expect().expect_compensated()


def test_a_step_of_which_one_line_was_granted_is_made_good() -> None:
    saga = begun(TWO_LINES).reply(Reserved(line="A"), OutOfStock(line="B")).expect(Release)
    saga.reply(Released()).expect_compensated()


def test_an_answer_that_does_not_come_is_asked_for_again_after_a_pause() -> None:
    saga = begun().advance(30).expect()
    saga.advance(2).expect(Reserve).reply(Reserved()).expect("order/do", Pay)


def pauses_s() -> list[float]:
    """Return the pauses after the first three attempts of a compensation."""
    saga, found = compensating(), []
    for _ in range(3):
        saga.advance(30)
        found.append(saga.until_due_s or 0.0)
        saga.advance(found[-1])
    return found


def test_pauses_double_within_their_spread_and_are_the_same_each_time() -> None:
    first, second, third = found = pauses_s()
    assert 1 <= first <= 2 <= second <= 4 <= third <= 8
    assert pauses_s() == found


def test_attempts_without_an_answer_leave_the_outcome_unknown_so_the_step_is_made_good() -> None:
    saga = begun().advance(300).expect(Reserve, Reserve, Release, Release, Release, Release)
    saga.expect_stuck("stock: no answer in time, 4 times")


def test_a_technical_failure_is_tried_again_and_is_no_rejection() -> None:
    saga = paying().reply(BankAway()).expect().advance(2).expect(Pay)
    saga.reply(Paid()).expect(Ship)


def test_a_failure_that_comes_twice_pauses_once() -> None:
    saga = paying().reply(BankAway(), BankAway()).expect().advance(2).expect(Pay)
    assert saga.state.attempt == 2


def test_an_answer_that_comes_during_the_pause_counts() -> None:
    paying().reply(BankAway()).reply(Paid()).expect(Ship)


def test_a_pivot_whose_outcome_stays_unknown_is_voided_when_it_can_be() -> None:
    saga = paying().advance(120).expect(Pay, Pay, VoidPayment)
    saga.reply(Voided()).expect("order/undo", Release).reply(Released()).expect_compensated()


def test_a_pivot_whose_outcome_stays_unknown_waits_for_a_person_when_nothing_voids_it() -> None:
    saga = paying(void_payment=False).advance(120).expect(Pay, Pay)
    saga.expect_stuck("nobody knows")


def test_behind_the_pivot_a_missing_answer_never_compensates() -> None:
    saga = paying().reply(Paid()).expect(Ship).advance(300).expect(Ship, Ship)
    saga.expect_stuck("shipping: no answer in time, 3 times")


def test_a_no_behind_the_pivot_waits_for_a_person() -> None:
    saga = paying().reply(Paid()).expect(Ship).reply(CannotShip()).expect()
    saga.expect_stuck("STRIKE")


def test_a_compensation_is_tried_again_until_it_works() -> None:
    saga = compensating().advance(70).expect(Release, Release)
    saga.reply(Released()).expect_compensated()


def test_a_compensation_that_never_works_waits_for_a_person() -> None:
    compensating().advance(300).expect(Release, Release, Release).expect_stuck("stock")


def test_a_stuck_saga_waits_for_ever_by_itself() -> None:
    saga = compensating().advance(300).expect(Release, Release, Release)
    saga.advance(hours=1000).expect().expect_stuck()


def stuck() -> Rehearsal:
    return compensating().advance(300).expect(Release, Release, Release).expect_stuck()


def test_an_operator_retries_a_stuck_step_from_its_first_attempt() -> None:
    saga = stuck().retry().expect(Release)
    assert saga.state.attempt == 1
    saga.reply(Released()).expect_compensated()


def test_an_operator_skips_a_step_that_was_done_by_hand() -> None:
    saga = stuck().skip("counted the shelf").expect().expect_compensated()
    assert ("skipped", "stock/undo", "counted the shelf") in saga.notes


def test_an_answer_to_a_stuck_step_is_kept_for_the_operator() -> None:
    stuck().reply(Released()).expect_stuck().retry().expect().expect_compensated()


def test_an_operator_skips_forward_too() -> None:
    saga = paying().reply(Paid()).expect(Ship).reply(CannotShip())
    saga.skip("sent it by hand").expect_completed()


def test_an_operator_compensates_what_is_stuck_at_the_pivot() -> None:
    saga = paying(void_payment=False).advance(120).expect(Pay, Pay)
    saga.compensate("the bank says it has no such payment").expect("order/undo", Release)


def test_nobody_compensates_behind_the_point_of_no_return() -> None:
    saga = paying().reply(Paid()).reply(CannotShip())
    with pytest.raises(SagaError, match="past the point of no return: retry or skip shipping"):
        saga.compensate()


def test_nobody_compensates_a_compensation() -> None:
    saga = stuck()
    with pytest.raises(SagaError, match="retry or skip stock"):
        saga.compensate()


@pytest.mark.parametrize("what", ["retry", "skip", "compensate"])
def test_only_what_is_stuck_waits_for_an_operator(what: str) -> None:
    saga = paying()
    with pytest.raises(SagaError, match="RUNNING"):
        getattr(saga, what)()


def test_a_cancelled_saga_makes_good_the_step_whose_answer_is_still_out() -> None:
    begun().cancel().expect(Release).reply(Released()).expect().expect_compensated()


def test_a_saga_that_pays_can_no_longer_be_cancelled() -> None:
    saga = paying()
    with pytest.raises(SagaError, match="payment: it can no longer be cancelled"):
        saga.cancel()


def test_what_has_ended_cannot_be_cancelled() -> None:
    saga = begun().reply(OutOfStock())
    with pytest.raises(SagaError, match="COMPENSATED"):
        saga.cancel()


def test_a_late_success_after_the_end_is_made_good() -> None:
    saga = begun().reply(OutOfStock()).expect_compensated().reply(Reserved()).expect(Release)
    saga.reply(Released()).expect().expect_compensated()


def test_a_late_success_while_its_compensation_is_under_way_is_made_good_once_more() -> None:
    saga = begun().advance(120).expect(Reserve, Reserve, Release)
    saga.reply(Reserved(), Reserved()).expect().reply(Released()).expect(Release)
    saga.reply(Released()).expect().expect_compensated()


def test_a_late_success_of_a_step_that_was_made_good_is_made_good_again() -> None:
    saga = begun().advance(120).reply(Released()).expect_compensated()
    saga.expect(Reserve, Reserve, Release).reply(Reserved()).expect(Release)
    saga.reply(Released()).expect_compensated()


def test_a_late_success_of_a_step_that_is_still_to_be_made_good_is_left_to_that() -> None:
    saga = paying().advance(120).expect(Pay, Pay, VoidPayment).reply(Reserved()).expect()
    saga.reply(Voided()).expect("order/undo", Release)


def test_a_late_rejection_has_nothing_to_make_good() -> None:
    saga = begun().advance(120).expect(Reserve, Reserve, Release).reply(Released())
    saga.reply(OutOfStock()).expect().expect_compensated()


def test_an_answer_that_comes_again_changes_nothing() -> None:
    saga = paying()
    before = saga.state
    assert saga.reply(Reserved()).expect().state == before


def test_an_answer_never_counts_for_the_step_in_hand() -> None:
    saga = begun(TWO_LINES).reply(Reserved(line="A"), Reserved(line="A")).expect()
    assert saga.state.answers == {"A": Outcome.SUCCESS}


def test_a_grant_outweighs_a_no_of_the_same_line_so_that_it_is_made_good() -> None:
    saga = begun(TWO_LINES).reply(OutOfStock(line="A"), Reserved(line="A"), OutOfStock(line="B"))
    saga.expect(Release)


def test_a_no_after_the_grant_of_the_same_line_does_not_hide_it() -> None:
    saga = begun(TWO_LINES).reply(Reserved(line="A"), OutOfStock(line="A"), OutOfStock(line="B"))
    saga.expect(Release)


def test_an_answer_that_nobody_asked_for_is_a_dead_letter() -> None:
    with pytest.raises(UnknownReplyError, match="payment/do, never asked for"):
        begun().reply(Paid())


def test_an_answer_about_a_line_that_nobody_ordered_is_a_dead_letter() -> None:
    with pytest.raises(UnknownReplyError, match="'C'"):
        begun().reply(Reserved(line="C"))


def test_an_answer_to_a_named_request_must_fit_it() -> None:
    with pytest.raises(UnknownReplyError, match="Paid does not answer stock/do"):
        begun().reply(Paid(), to="stock/do")


def test_a_late_success_that_nothing_makes_good_is_a_dead_letter() -> None:
    saga = paying(void_payment=False).reply(Declined()).reply(Released()).expect_compensated()
    with pytest.raises(UnknownReplyError, match="nothing makes it good"):
        saga.reply(Paid())


def test_the_history_tells_the_whole_way() -> None:
    saga = compensating().reply(Released())
    assert [" ".join(filter(None, note)) for note in saga.notes] == [
        "started",
        "asked stock/do",
        "answered stock/do Reserved A",
        "ran order/do",
        "asked payment/do",
        "answered payment/do Declined: NO_FUNDS",
        "compensating payment: NO_FUNDS",
        "ran order/undo",
        "asked stock/undo",
        "answered stock/undo Released",
        "compensated",
    ]


def test_a_request_of_no_parts_awaits_nothing() -> None:
    given(toy_saga(), Toy("ORD-1", ())).expect(Reserve, "order/do", Pay)


def test_the_reason_of_a_refused_step_is_the_no_also_when_a_yes_comes_last() -> None:
    saga = begun(TWO_LINES).reply(OutOfStock(line="A"), Reserved(line="B"))
    assert saga.state.reason == "stock: OUT_OF_STOCK"
