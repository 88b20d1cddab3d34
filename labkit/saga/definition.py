"""Saga definition: named steps as data, whose order is checked when it is built.

A step is *compensatable* (its effect can be made good by another action), the *pivot* (the point
of no return: after it the saga only goes forward) or *retriable* (tried until it works). They come
in this order, because nothing could make good what stands behind the pivot.

    CHECKOUT = Saga(
        "checkout",
        Step("reserve_stock", COMPENSATABLE, Command(reserve, success=StockReserved,
             rejection=StockReservationRejected, source=INVENTORY), undo=Command(release)),
        Step("authorize_payment", PIVOT, Command(authorize, success=Authorized, source=PAYMENTS)),
        Step("confirm_order", RETRIABLE, Local(confirm)),
        data=Checkout,
    )

Guarantee: a definition whose steps cannot be compensated, are out of order or share a name is
refused, with the step and the remedy.
Not guaranteed: that a compensation makes sense to the business, or that it always works; see
`labkit.saga.decide` for what happens when it does not.

Pattern: Garcia-Molina and Salem, "Sagas", SIGMOD 1987; Richardson, *Microservices Patterns*, ch. 4
(compensatable, pivot and retriable transactions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import ConfigurationError
from labkit.messages import Event
from labkit.saga.actions import Action, Command, Outcome


class Kind(StrEnum):
    """What a step may still become."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


COMPENSATABLE, PIVOT, RETRIABLE = Kind.COMPENSATABLE, Kind.PIVOT, Kind.RETRIABLE


class Direction(StrEnum):
    """Whether a step is done or made good."""

    DO = "do"
    UNDO = "undo"


DO, UNDO = Direction.DO, Direction.UNDO


@dataclass(frozen=True)
class Step:
    """One step of a saga.

    Args:
        name: unique in the saga; it is stored, so running sagas depend on it.
        kind: compensatable, pivot or retriable.
        do: what it does.
        undo: what makes it good. A pivot's is for an outcome that stays unknown only.
    """

    name: str
    kind: Kind
    do: Action
    undo: Action | None = None

    def action(self, direction: Direction) -> Action:
        """Return what is done in a direction."""
        action = self.do if direction is DO else self.undo
        if action is None:
            raise ConfigurationError(f"step {self.name} has nothing that makes it good")
        return action


class Request(NamedTuple):
    """A step in one direction: what a command asks for, whatever the attempt."""

    step: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.step}/{self.direction}"


class Saga:
    """The definition of a saga; a new version is a new object, and the old one stays registered.

    Args:
        name: of all its versions.
        steps: in the order in which they are done.
        data: what the steps are made from: a struct that JSON can hold.
        version: from 1; a saga that began with one ends with it.
        at_end: called with the final state in the transaction that ends it; again when a late
            success is made good after that.

    Raises:
        ConfigurationError: naming the step that is out of order or incomplete.
    """

    def __init__(
        self,
        name: str,
        *steps: Step,
        data: type[Struct],
        version: int = 1,
        at_end: Callable[[Session, Any], None] | None = None,
    ) -> None:
        limits.name("the saga's name", name)
        limits.number("version", version, 1, 1_000_000)
        self.name, self.version, self.data, self.at_end = name, version, data, at_end
        self.steps = {step.name: step for step in steps}
        _refuse_unsound(name, steps)
        self._order = list(self.steps)

    def __repr__(self) -> str:
        """Say which saga, and its steps."""
        return f"saga {self.name} v{self.version}: {' → '.join(self._order)}"

    def after(self, step: str) -> str | None:
        """Return the name of the step behind one, None behind the last."""
        place = self._order.index(step) + 1
        return self._order[place] if place < len(self._order) else None

    def action(self, request: Request) -> Action:
        """Return what is done for a request."""
        return self.steps[request.step].action(request.direction)

    def answered_by(self, event: type[Event]) -> list[tuple[Request, Outcome]]:
        """Return which requests an event may answer, and how."""
        return [
            (request, command.outcomes[event])
            for request, command in self.commands()
            if event in command.outcomes
        ]

    def commands(self) -> list[tuple[Request, Command]]:
        """Return all requests that are sent to participants, in order."""
        return [
            (Request(step.name, direction), action)
            for step in self.steps.values()
            for direction, action in ((DO, step.do), (UNDO, step.undo))
            if isinstance(action, Command)
        ]

    def is_past_return(self, step: str) -> bool:
        """Say whether a step stands behind the pivot."""
        return self.steps[step].kind is RETRIABLE


_RANK = {COMPENSATABLE: 0, PIVOT: 1, RETRIABLE: 2}


def _refuse_unsound(saga: str, steps: Sequence[Step]) -> None:
    if not steps:
        raise ConfigurationError(f"saga {saga} has no steps")
    for step in steps:
        limits.name("a step's name", step.name)
        if sum(other.name == step.name for other in steps) > 1:
            raise ConfigurationError(f"saga {saga} has two steps {step.name}: name them apart")
        _refuse_wrong_undo(saga, step)
    for before, step in pairwise(steps):
        if _RANK[before.kind] > _RANK[step.kind] or before.kind is step.kind is PIVOT:
            raise ConfigurationError(
                f"saga {saga}: {step.name} is {step.kind} and comes after {before.name}, which is "
                f"{before.kind}: {_WHY[step.kind]}"
            )


_WHY = {
    COMPENSATABLE: "behind the point of no return nothing is made good; move it before the pivot, "
    "or make it retriable",
    PIVOT: "there is one point of no return, and what is retriable comes behind it",
    RETRIABLE: "",
}


def _refuse_wrong_undo(saga: str, step: Step) -> None:
    if step.kind is COMPENSATABLE and step.undo is None:
        raise ConfigurationError(
            f"saga {saga}: {step.name} is compensatable, so say with undo= what makes it good"
        )
    if step.kind is RETRIABLE and step.undo is not None:
        raise ConfigurationError(
            f"saga {saga}: {step.name} is retriable, so nothing ever makes it good: leave undo= out"
        )
