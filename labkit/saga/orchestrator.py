"""Orchestrator: moves sagas on when their answers come.

How: an answer names its saga and request in the header `requestId`, which participants carry back
without knowing it; from a participant that does not, correlation id and type tell. What answers
somebody else's request is skipped, whatever its correlation id. A batch of
answers locks its sagas, decides, and writes states, history and the next commands in the
transaction that also notes the messages in the inbox.

Guarantee: a saga's state, its history, its commands and its local work commit together with the
answer that caused them, or not at all; whoever is killed leaves it before or after, never between.
Not guaranteed: that a participant acts once; it deduplicates on `requestId` or on ids of its own.

Crash windows: those of `labkit.consumer`; a saga adds none, because it does nothing outside the
consumer's transaction.

Pattern: Richardson, *Microservices Patterns*, ch. 4 ("Orchestration-based saga"); Hohpe and Woolf,
"Correlation Identifier".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Unpack

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit.errors import ConfigurationError, UnknownSagaError
from labkit.messages import Event, Message
from labkit.ports import Transport
from labkit.roles import WorkerOptions
from labkit.saga.deadlines import BATCH, POLL_S, Deadlines
from labkit.saga.definition import Saga
from labkit.saga.replies import read_reply
from labkit.saga.rows import declare
from labkit.saga.state import State
from labkit.saga.store import Store, refuse_unreadable
from labkit.saga.turn import Turn
from labkit.service import Service
from labkit.wire import REQUEST_ID


class _Address(NamedTuple):
    """Where an answer belongs; `request` is None when only its type can tell."""

    saga_id: str
    request: str | None


class Sagas:
    """All sagas of one definition, in one service.

    Args:
        service: handles their answers, publishes their commands; its database keeps them.
        versions: every version of the definition that a saga may still have; the highest begins.

    Raises:
        ConfigurationError: when the versions are not of one saga, or two have one number; when
            sagas of this name are declared in the service's context already.
    """

    def __init__(self, service: Service, *versions: Saga) -> None:
        self.definitions = _by_version(versions)
        self.newest = self.definitions[max(self.definitions)]
        self.name = self.newest.name
        self.service = service
        self.store = Store(service.metadata, self.name)
        declare(service.metadata, self)
        for event, source in _replies(versions):
            service.on_batch(event, source=source, lock_first=self._lock)(self._handle_all)
        service.add_role("saga", self.deadlines)

    def deadlines(
        self, engine: Engine, transport: Transport, **options: Unpack[WorkerOptions]
    ) -> Deadlines:
        """Return the worker of role saga, which wakes sagas whose time is over.

        Args:
            engine: the service's database.
            transport: not needed; every worker is made like this.
            options: `batch` and `poll_s` are passed on; the time is the engine's clock.
        """
        del transport
        return Deadlines(
            engine,
            self,
            batch=options.get("batch", BATCH),
            poll_s=options.get("poll_s", POLL_S),
        )

    def turn(self, session: Session) -> Turn:
        """Return a turn in your transaction."""
        return Turn(session, self.store, self.definitions, self.service.outbox)

    def start(self, session: Session, saga_id: str, data: Any) -> bool:
        """Begin a saga in your transaction; its first command leaves if you commit.

        Args:
            session: your transaction.
            saga_id: unique; the key and correlation id of its messages, up to 255 characters.
            data: what its steps are made from.

        Raises:
            ConfigurationError: when JSON cannot hold the data, so that nobody could go on.

        Returns:
            False when a saga of this id began before; then nothing is done.
        """
        return bool(self.start_all(session, {saga_id: data}))

    def start_all(self, session: Session, data: Mapping[str, Any]) -> set[str]:
        """Begin several sagas with the statements of one; return the ids that are new."""
        for each in data.values():
            refuse_unreadable(each, self.newest.data)
        turn = self.turn(session)
        states = {
            saga_id: State(id=saga_id, version=self.newest.version, data=each)
            for saga_id, each in data.items()
        }
        new = turn.start(states)
        turn.finish()
        return new

    def due(self, session: Session, now: datetime, limit: int) -> list[str]:
        """Return the ids of sagas whose time is over, the longest ago first."""
        return self.store.due(session.connection(), now, list(self.definitions), limit)

    def _lock(self, session: Session, messages: Sequence[Message[Any]]) -> None:
        """Lock the sagas of a whole batch in one order; see `labkit.handlers.Handler`."""
        # Kept for the batch: its messages may come to `_handle_all` in several parts.
        turn = session.info[self] = self.turn(session)
        turn.lock(_ids(map(self._address, messages)))

    def _handle_all(self, session: Session, messages: Sequence[Message[Any]]) -> None:
        turn: Turn = session.info[self]
        addresses = [self._address(message) for message in messages]
        turn.lock(_ids(addresses))
        for message, address in zip(messages, addresses, strict=True):
            state = turn.state(address.saga_id) if address else None
            if address is not None and state is not None:
                saga = self.definitions[state.version]
                turn.take(state, read_reply(saga, state, message.event, address.request), message)
            elif address is not None and address.request is not None:
                raise UnknownSagaError(f"there is no {self.name} {address.saga_id} to answer")
        turn.finish()

    def _address(self, message: Message[Any]) -> _Address | None:
        """Return where a message belongs; None when it answers somebody else."""
        saga, _, rest = message.headers.get(REQUEST_ID, "").partition("/")
        if not saga:
            return _Address(message.correlation_id, None)
        if saga != self.name:
            return None
        saga_id, _, request = rest.rpartition("/")[0].rpartition("/")
        return _Address(saga_id, f"{request}/{rest.rpartition('/')[2]}")


def _ids(addresses: Iterable[_Address | None]) -> set[str]:
    return {address.saga_id for address in addresses if address}


def _by_version(versions: Sequence[Saga]) -> dict[int, Saga]:
    names = {saga.name for saga in versions}
    if len(names) != 1 or len({saga.version for saga in versions}) < len(versions):
        raise ConfigurationError(
            f"versions of one saga share its name and differ in number: {list(versions)}"
        )
    return {saga.version: saga for saga in versions}


def _replies(versions: Sequence[Saga]) -> list[tuple[type[Event], Any]]:
    found = {
        (event, command.source)
        for saga in versions
        for _, command in saga.commands()
        for event in command.outcomes
    }
    return sorted(found, key=lambda each: (each[0].event_type, each[0].version))
