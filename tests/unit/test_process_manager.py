"""The rules of a process manager, played by hand on a fake clock: no server, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from msgspec import Struct

from labkit.errors import ConfigurationError
from labkit.messages import Event, Registry
from labkit.ports import Stream
from labkit.process_manager import Next, Process, ProcessManager
from labkit.service import Service
from labkit.testing.process_managers import Rehearsal, given

HOTEL, AIRLINE = Stream("hotel.events"), Stream("airline.events")


class Ask(Event, frozen=True):
    topic: ClassVar[str] = "trip.ask"


class Given(Event, frozen=True):
    topic: ClassVar[str] = "trip.given"


class Trip(Struct, frozen=True):
    given: int = 0


Decide = Callable[..., Any]


def trip(
    given_: Decide = lambda _process, _event: None, late: Decide = lambda _process: None
) -> ProcessManager[Trip]:
    """Return a manager that asks a hotel, with two deadlines, and does then what a test says."""
    manager = ProcessManager("trip", Service("trips", Registry(Given)), data=Trip)

    @manager.on_start
    def begin(_: Process[Trip]) -> Next:
        return Next(state="asking", send=[Ask()], deadlines={"short": 60.0, "long": 3600.0})

    manager.on(Given, source=HOTEL)(given_)
    manager.on(Given, source=AIRLINE, when=["flying", "BOOKED"])(given_)
    manager.on_deadline("short")(late)
    manager.on_deadline("long")(lambda _: Next(end="TOO_LATE"))
    return manager


def begun(given_: Decide = lambda _process, _event: None, **options: Decide) -> Rehearsal[Trip]:
    return given(trip(given_, **options), Trip(), "TRIP-1").expect(Ask)


def test_a_process_begins_where_its_start_says() -> None:
    begun().expect_state("asking")


def test_what_an_event_means_is_decided_in_code_from_what_is_remembered() -> None:
    def more(process: Process[Trip], _event: Given) -> Next:
        enough = process.data.given == 1
        return Next(end="BOOKED") if enough else Next(data=Trip(process.data.given + 1))

    trip_ = begun(more).receive(Given(), source=HOTEL).expect_state("asking")
    trip_.receive(Given(), source=HOTEL).expect_ended("BOOKED")


def test_what_is_left_out_stays_as_it_is() -> None:
    process = begun(lambda *_: Next(data=Trip(1))).receive(Given(), source=HOTEL).process
    assert (process.state, process.data, set(process.deadlines)) == (
        "asking",
        Trip(1),
        {"short", "long"},
    )


def test_a_deadline_fires_at_its_time_and_once() -> None:
    trip_ = begun(late=lambda _: Next(send=[Ask()])).advance(59).expect()
    trip_.advance(1).expect(Ask).advance(1000).expect()


def test_deadlines_fire_in_the_order_of_their_times_when_all_stood_still() -> None:
    trip_ = begun(late=lambda _: Next(state="hurried")).advance(hours=24)
    trip_.expect_ended("TOO_LATE")
    assert [note.what for note in trip_.notes if note.what == "timed out"] == ["timed out"] * 2


def test_a_deadline_that_another_one_forgets_does_not_fire() -> None:
    trip_ = begun(late=lambda _: Next(forget=["long"])).advance(hours=24)
    trip_.expect_state("asking")
    assert trip_.until_due_s is None


def test_a_deadline_set_again_begins_anew() -> None:
    trip_ = begun(lambda *_: Next(deadlines={"short": 60.0}), late=lambda _: Next(end="LATE"))
    trip_.advance(50).receive(Given(), source=HOTEL).advance(59).expect_state("asking")
    trip_.advance(1).expect_ended("LATE")


def test_an_end_takes_all_deadlines_with_it() -> None:
    trip_ = begun(lambda *_: Next(end="BOOKED")).receive(Given(), source=HOTEL)
    trip_.advance(hours=24).expect_ended("BOOKED")
    assert trip_.process.deadlines == {}


def test_an_event_in_a_state_where_it_makes_no_sense_is_ignored_and_noted() -> None:
    trip_ = begun(lambda *_: Next(end="BOOKED")).receive(Given(), source=AIRLINE)
    trip_.expect_ignored().expect_state("asking")
    assert tuple(trip_.notes[-1]) == ("ignored", "asking", "Given")


def test_an_event_after_the_end_is_ignored() -> None:
    trip_ = begun(lambda *_: Next(end="BOOKED")).receive(Given(), source=HOTEL)
    trip_.receive(Given(), source=HOTEL).expect_ignored().expect_ended("BOOKED")


def test_an_ended_process_can_still_send_when_its_result_is_named() -> None:
    def late_yes(process: Process[Trip], _event: Given) -> Next:
        return Next(send=[Ask()]) if process.result else Next(end="BOOKED")

    trip_ = begun(late_yes).receive(Given(), source=HOTEL)
    trip_.receive(Given(), source=AIRLINE).expect(Ask).expect_ended("BOOKED")


def test_the_history_tells_each_move() -> None:
    trip_ = begun(lambda *_: Next(state="flying", send=[Ask(), Ask()]))
    trip_.receive(Given(), source=HOTEL)
    assert [" | ".join(note) for note in trip_.notes] == [
        "started |  | → asking",
        "sent | asking:Ask/do | ",
        "received | asking | Given → flying",
        "sent | flying:Ask/do | ",
        "sent | flying:Ask.2/do | ",
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Next(state="a", end="B"), "state= or end=, not both"),
        (Next(state="not a name"), "a state must be"),
        (Next(end=""), "a state must be"),
        (Next(deadlines={"never": 1.0}), "nothing says what deadline never does"),
        (Next(deadlines={"short": 0.0}), "deadline short must be"),
        (Next(data={"given": 1}), "data must be a Trip"),
        (Next(data=Trip("1")), "state asking: data does not survive JSON"),  # type: ignore[arg-type]
        ("asking", "return Next or None"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(answer: Any, said: str) -> None:
    trip_ = begun(lambda *_: answer)
    with pytest.raises(ConfigurationError, match=said):
        trip_.receive(Given(), source=HOTEL)
    trip_.expect_state("asking")


@pytest.mark.parametrize("answer", [Next(state="on"), Next(end="C"), Next(deadlines={"short": 1})])
def test_an_ended_process_does_not_go_on(answer: Next) -> None:
    trip_ = begun(lambda process, _: answer if process.result else Next(end="BOOKED"))
    trip_.receive(Given(), source=HOTEL)
    with pytest.raises(ConfigurationError, match="it has ended"):
        trip_.receive(Given(), source=AIRLINE)


def test_a_start_that_names_no_state_is_refused() -> None:
    manager = ProcessManager("trip", Service("trips", Registry()), data=Trip)
    with pytest.raises(ConfigurationError, match="use on_start"):
        given(manager, Trip())
    manager.on_start(lambda _: Next(send=[Ask()]))
    with pytest.raises(ConfigurationError, match="names the first state"):
        given(manager, Trip())


def test_what_is_registered_twice_is_refused() -> None:
    manager = trip()
    with pytest.raises(ConfigurationError, match="begins in one way"):
        manager.on_start(lambda _: Next(state="a"))
    with pytest.raises(ConfigurationError, match="deadline short twice"):
        manager.on_deadline("short")
    with pytest.raises(ConfigurationError, match="handles Given twice"):
        manager.on(Given, source=HOTEL)


def test_a_text_is_no_list_of_states() -> None:
    with pytest.raises(ConfigurationError, match="list of states"):
        trip().on_deadline("other", when="asking")(lambda _: None)


def test_the_kit_says_what_it_found() -> None:
    trip_ = begun()
    with pytest.raises(AssertionError, match="expected to end BOOKED, found asking"):
        trip_.expect_ended("BOOKED")
    with pytest.raises(AssertionError, match="expected flying, found asking"):
        trip_.expect_state("flying")
    with pytest.raises(AssertionError, match=r"expected \['Ask'\], saw \[\]"):
        trip_.expect(Ask)
    with pytest.raises(AssertionError, match="say which with source="):
        trip_.receive(Given())
    with pytest.raises(AssertionError, match="found Note"):
        trip_.expect_ignored()
