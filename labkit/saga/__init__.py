"""Saga: one business process over several services, each with a transaction of its own.

There is no rollback over two databases. A saga does its steps one after the other and, when one
is refused or fails for good, makes good what it did before by further, visible steps.

Read in this order: `actions` and `definition` (steps as data), `state`, `replies` and `decide` (the
rules, pure), `store`, `rows` and `turn` (one transaction), `orchestrator` (answers), `deadlines`
(answers that do not come), `operations` (people).

Guarantee: a saga ends COMPLETED, COMPENSATED or visibly STUCK with its reason; it never vanishes,
and it never "rolls back" in silence.
Not guaranteed: isolation between its steps.
"""

from labkit.saga.actions import BatchLocal, Command, Local, Outcome
from labkit.saga.definition import (
    COMPENSATABLE,
    DO,
    PIVOT,
    RETRIABLE,
    UNDO,
    Direction,
    Kind,
    Request,
    Saga,
    Step,
)
from labkit.saga.orchestrator import Sagas
from labkit.saga.state import (
    COMPENSATED,
    COMPENSATING,
    COMPLETED,
    RUNNING,
    STUCK,
    State,
    Status,
)

__all__ = [
    "COMPENSATABLE",
    "COMPENSATED",
    "COMPENSATING",
    "COMPLETED",
    "DO",
    "PIVOT",
    "RETRIABLE",
    "RUNNING",
    "STUCK",
    "UNDO",
    "BatchLocal",
    "Command",
    "Direction",
    "Kind",
    "Local",
    "Outcome",
    "Request",
    "Saga",
    "Sagas",
    "State",
    "Status",
    "Step",
]
