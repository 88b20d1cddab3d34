"""Translator: private events in, the few public events that others may rely on out.

The problem: a domain event that others read cannot change any more. Renaming one of its fields
breaks them, and what was nobody's business becomes everybody's.

Guarantee: only what a rule returns goes out. An event without a rule stays inside, so that a new
private event is private until somebody decides otherwise. Rules are pure, so the same event
always becomes the same public event; one that fails always fails, and is a `PermanentError`.
Not guaranteed: that it is sent. Hand what comes out to the outbox, in the transaction of the
change.

Crash windows: none; nothing is stored.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Message Translator", "Message
Filter"; Khononov, *Learning Domain-Driven Design*, ch. 9 ("Stateless model translation"); Evans,
"Anticorruption Layer", "Published Language".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from labkit import limits
from labkit.errors import ConfigurationError, LabkitError, PermanentError
from labkit.messages import Event

PrivateT = TypeVar("PrivateT")
Rule = Callable[[PrivateT], Event | None]


class Translator:
    """Turns one model's events into another's, rule by rule.

        to_public = Translator("fulfillment")

        @to_public.on(OrderPlaced)
        def ask_for_stock(order: OrderPlaced) -> ReserveStockRequested: ...

    Args:
        name: whose model it protects; errors name it.

    Raises:
        ConfigurationError: when the name is none.
    """

    def __init__(self, name: str) -> None:
        limits.name("the translator's name", name)
        self.name = name
        self._rules: dict[type[Any], Rule[Any]] = {}

    def on(self, private: type[PrivateT]) -> Callable[[Rule[PrivateT]], Rule[PrivateT]]:
        """Register how events of a class are told to others.

        The rule is a pure function from the event to a public event, or to None when this one
        is nobody else's business.

        Args:
            private: the class, of any kind; events of its subclasses need rules of their own.

        Raises:
            ConfigurationError: when this is no class, or has a rule already.
        """
        limits.kind("what is translated", private, type)
        if private in self._rules:
            raise ConfigurationError(f"{self.name} translates {private.__name__} already")

        def register(rule: Rule[PrivateT]) -> Rule[PrivateT]:
            self._rules[private] = rule
            return rule

        return register

    def translate(self, event: object) -> Event | None:
        """Return what others are told about an event.

        Args:
            event: a private event.

        Returns:
            The public event, or None when there is no rule for it or its rule says so.

        Raises:
            PermanentError: when the rule fails, or returns something else.
        """
        # Why not isinstance: a subclass would go out under its parent's rule without a decision.
        rule = self._rules.get(type(event))
        if rule is None:
            return None
        try:
            public = rule(event)
        except LabkitError:
            raise
        except Exception as error:  # the rule is the caller's and may raise anything
            raise self._failed(event, f"its rule failed: {error!r:.200}") from error
        if public is not None and not isinstance(public, Event):
            raise self._failed(event, f"its rule returned {public!r:.80}, which is no Event")
        return public

    def translate_all(self, events: Iterable[object]) -> list[Event]:
        """Return what others are told about many events, in their order.

        Args:
            events: private events.

        Raises:
            PermanentError: as in `translate`; then nothing is returned.
        """
        return [public for event in events if (public := self.translate(event)) is not None]

    def _failed(self, event: object, said: str) -> PermanentError:
        return PermanentError(f"{self.name} cannot translate {type(event).__name__}: {said}")
