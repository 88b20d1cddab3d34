"""One transaction's work on sagas: read and lock them, decide, act, and write all of it down.

Guarantee: the new states, their history, their commands (rows of the outbox) and the local work
are one transaction, in as many statements for a hundred sagas as for one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from labkit import unit_of_work
from labkit.messages import Event, Message
from labkit.outbox import Outbox
from labkit.saga.decide import decide
from labkit.saga.definition import Command, Saga
from labkit.saga.rows import Rows
from labkit.saga.state import ENDED, Decision, Do, Started, State, Stimulus
from labkit.saga.store import Row, Store, read_state


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

    def read(self, row: Row) -> State:
        """Return the state that a row holds."""
        return read_state(row, self._definitions)

    def begin(self, states: Mapping[str, State]) -> set[str]:
        """Write new sagas after their first step; return the ids that did not exist before."""
        begun = {
            saga_id: decide(self._definitions[state.version], state, Started(), self.now)
            for saga_id, state in states.items()
        }
        # Decided before they are written, so that a start is one statement; done only afterwards.
        after = [decision.state for decision in begun.values()]
        new = self._store.insert(self._session.connection(), after, self.now)
        for saga_id in sorted(new):
            self._note(saga_id, begun[saga_id].notes)
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

    def _follow(
        self, before: State, decision: Decision, cause: Message[Event] | None = None
    ) -> None:
        saga, state = self._definitions[before.version], decision.state
        with unit_of_work.caused_by(self._session, cause):
            for action in decision.actions:
                self._do(saga, state, action, cause)
            if state.status in ENDED and before.status not in ENDED and saga.at_end:
                saga.at_end(self._session, state)

    def _do(self, saga: Saga, state: State, do: Do, cause: Message[Event] | None) -> None:
        action = saga.action(do.request)
        if isinstance(action, Command):
            self._send(state.id, str(do.request), action.make(state.data), cause)
        else:
            action.run(self._session, state.data)
