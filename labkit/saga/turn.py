"""One transaction's work on sagas: read and lock them, decide, act, and write all of it down.

Guarantee: the new states, their history, their commands (rows of the outbox) and the local work
are one transaction, in as many statements for a hundred sagas as for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.messages import Event, Message
from labkit.outbox import Outbox
from labkit.saga.actions import BatchLocal, Command, Local
from labkit.saga.decide import decide
from labkit.saga.definition import Saga
from labkit.saga.rows import Rows
from labkit.saga.state import ENDED, Decision, Started, State, Stimulus
from labkit.saga.store import Noted, Row, Store, read_state


class _Work(NamedTuple):
    """Local work on what, and the message that led to it, if one did."""

    data: Any
    cause: Message[Event] | None


class Turn(Rows[State]):
    """Some sagas of one definition, in your transaction; `finish` writes what became of them.

    Args:
        session: your transaction.
        store: where they are kept.
        definitions: by version.
        outbox: takes their commands.
    """

    def __init__(
        self, session: Session, store: Store, definitions: Mapping[int, Saga], outbox: Outbox
    ) -> None:
        super().__init__(session, store, definitions, outbox)
        self._definitions = definitions
        self._local: dict[str, deque[tuple[Local | BatchLocal, _Work]]] = {}

    def read(self, row: Row) -> State:
        """Return the state that a row holds."""
        return read_state(row, self._definitions)

    def start(self, states: Mapping[str, State]) -> set[str]:
        """Write new sagas after their first step; return the ids that did not exist before."""
        begun = {
            saga_id: decide(self._definitions[state.version], state, Started(), self.now)
            for saga_id, state in states.items()
        }
        # Decided before they are written, so that a start is one statement; done only afterwards.
        after = {saga_id: decision.state for saga_id, decision in begun.items()}
        notes = [Noted(saga_id, note) for saga_id, each in begun.items() for note in each.notes]
        new = self.begin(after, notes)
        for saga_id in sorted(new):
            self._follow(states[saga_id], begun[saga_id])
        return new

    def take(
        self,
        state: State,
        stimulus: Stimulus,
        cause: Message[Event] | None = None,
        who: str | None = None,
    ) -> Decision:
        """Decide what follows, and do it in this transaction; raises what `decide` raises.

        Args:
            state: a locked saga.
            stimulus: what happened to it.
            cause: the message that says so.
            who: the person who wants it so.
        """
        decision = decide(self._definitions[state.version], state, stimulus, self.now)
        self._keep(decision.state, decision.notes, cause, who)
        self._follow(state, decision, cause)
        return decision

    def finish(self) -> None:
        """Do the local work, then write states, history and messages."""
        while self._local:
            # What comes next for each saga: its own work in order, and that of all in few calls.
            wave: dict[Local | BatchLocal, list[_Work]] = {}
            for saga_id in list(self._local):
                action, work = self._local[saga_id].popleft()
                wave.setdefault(action, []).append(work)
                if not self._local[saga_id]:
                    del self._local[saga_id]
            for action, together in wave.items():
                self._run(action, together)
        super().finish()

    def _run(self, action: Local | BatchLocal, together: Sequence[_Work]) -> None:
        if isinstance(action, BatchLocal):
            # What it says is about many sagas: no one message is its cause.
            action.run_all(self._session, [work.data for work in together])
            return
        for work in together:
            with unit_of_work.caused_by(self._session, work.cause):
                action.run(self._session, work.data)

    def _follow(
        self, before: State, decision: Decision, cause: Message[Event] | None = None
    ) -> None:
        saga, state = self._definitions[before.version], decision.state
        for do in decision.actions:
            action = saga.action(do.request)
            if isinstance(action, Command):
                self._send(state.id, str(do.request), action.make(state.data), cause)
            else:
                self._later(state.id, action, _Work(state.data, cause))
        if state.status in ENDED and before.status not in ENDED and saga.at_end:
            self._later(state.id, Local(saga.at_end), _Work(state, cause))

    def _later(self, saga_id: str, action: Local | BatchLocal, work: _Work) -> None:
        self._local.setdefault(saga_id, deque()).append((action, work))
