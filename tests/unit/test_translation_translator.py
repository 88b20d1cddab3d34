"""The translator: what a rule returns goes out, everything else stays inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, strategies as st

from labkit.errors import ConfigurationError, InvalidEventError, PermanentError
from labkit.messages import Event
from labkit.translation import Translator


@dataclass(frozen=True)
class Placed:
    number: str
    margin: float = 0.3


@dataclass(frozen=True)
class PlacedByPhone(Placed):
    """Nobody has decided yet whether others may know."""


@dataclass(frozen=True)
class NoteWritten:
    text: str = "private"


class StockWanted(Event, frozen=True):
    topic: ClassVar[str] = "test.stock-wanted.v1"

    order: str


@pytest.fixture
def translator() -> Translator:
    made = Translator("sales")

    @made.on(Placed)
    def placed(event: Placed) -> Event | None:
        return None if event.number == "TEST" else StockWanted(order=event.number)

    return made


def broken(translator: Translator, rule: Any) -> Translator:
    translator.on(NoteWritten)(rule)
    return translator


def test_an_event_with_a_rule_becomes_the_public_event(translator: Translator) -> None:
    assert translator.translate(Placed("ORD-1")) == StockWanted(order="ORD-1")


@pytest.mark.parametrize("event", [NoteWritten(), Placed("TEST"), PlacedByPhone("ORD-1"), None])
def test_what_no_rule_lets_out_stays_inside(translator: Translator, event: object) -> None:
    assert translator.translate(event) is None


@given(st.lists(st.sampled_from(["ORD-1", "ORD-2", "TEST", "note"])))
def test_many_events_become_those_that_are_public_in_their_order(names: list[str]) -> None:
    translator = Translator("sales")
    translator.on(Placed)(lambda e: None if e.number == "TEST" else StockWanted(order=e.number))
    events = [NoteWritten() if name == "note" else Placed(name) for name in names]

    public = translator.translate_all(iter(events))

    assert public == [StockWanted(order=name) for name in names if name.startswith("ORD")]


def test_a_rule_that_fails_is_a_permanent_error_that_names_everything(
    translator: Translator,
) -> None:
    said = r"sales cannot translate NoteWritten: its rule failed: AttributeError"
    with pytest.raises(PermanentError, match=said):
        broken(translator, lambda event: event.nothing).translate(NoteWritten())


def test_a_refusal_of_the_rule_is_passed_on_as_it_is(translator: Translator) -> None:
    def refuse(_event: NoteWritten) -> Event:
        raise InvalidEventError("not this one")

    with pytest.raises(InvalidEventError, match="not this one"):
        broken(translator, refuse).translate(NoteWritten())


def test_a_rule_that_returns_no_event_is_named(translator: Translator) -> None:
    with pytest.raises(PermanentError, match="its rule returned 'a text', which is no Event"):
        broken(translator, lambda _event: "a text").translate(NoteWritten())


def test_a_class_has_one_rule(translator: Translator) -> None:
    with pytest.raises(ConfigurationError, match="sales translates Placed already"):
        translator.on(Placed)


@pytest.mark.parametrize("wrong", ["Placed", None, Placed("ORD-1")])
def test_only_classes_have_rules(translator: Translator, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="what is translated must be a type"):
        translator.on(wrong)


def test_a_translator_has_a_name() -> None:
    with pytest.raises(ConfigurationError, match="the translator's name"):
        Translator("")
