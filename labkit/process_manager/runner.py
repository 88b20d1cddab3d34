"""Starts processes, and moves them on when events come.

How: a message belongs to the process that its header `requestId` names, else to the one whose id is
its correlation id; what answers somebody else's request, and what is about no process of ours, is
skipped. A batch of messages locks its processes, asks the rules, and writes states, history and
messages in the transaction that also notes the messages in the inbox.

Guarantee: see `labkit.process_manager`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, Unpack

import msgspec
from msgspec import Struct
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import limits
from labkit.errors import ConfigurationError, UnknownSagaError
from labkit.messages import Event, Message
from labkit.outbox import Outbox
from labkit.ports import Stream, Transport
from labkit.process_manager.rules import (
    Decision,
    Next,
    Process,
    Received,
    Rule,
    Rules,
)
from labkit.roles import WorkerOptions
from labkit.saga.deadlines import Deadlines
from labkit.saga.rows import Rows, declare
from labkit.saga.state import Started
from labkit.saga.store import Row, Store, refuse_unreadable
from labkit.service import Service
from labkit.wire import REQUEST_ID

DataT = TypeVar("DataT", bound=Struct)
EventT = TypeVar("EventT", bound=Event)
OnStart = Callable[[Process[DataT]], Next | None]
OnEvent = Callable[[Process[DataT], EventT], Next | None]


class _Address(NamedTuple):
    """Which process a message is about, and whether its sender says that it is one of ours."""

    process_id: str
    is_named: bool


class ProcessManager(Generic[DataT]):
    """All processes of one kind, in one service.

    Args:
        name: of all its versions, and different from that of every saga of the service.
        service: handles their events, publishes theirs; its database keeps them.
        data: what a process remembers: a struct that JSON can hold. A later version may add
            fields with defaults.
        version: what processes begin with. Older ones are moved on by the same functions, which
            see it; those of a later one wait as dead letters for whoever knows it.

    Raises:
        ConfigurationError: when sagas or processes of this name are declared in the context.
    """

    def __init__(self, name: str, service: Service, *, data: type[DataT], version: int = 1) -> None:
        limits.name("the process manager's name", name)
        limits.number("version", version, 1, 1_000_000)
        self.name, self.service, self.version = name, service, version
        self.rules = Rules(data)
        self.store = Store(service.metadata, name)
        declare(service.metadata, self)
        service.add_role("saga", self.deadlines)
        self._by_source: dict[Stream, Callable[..., None]] = {}

    def on_start(self, decide: OnStart[DataT]) -> OnStart[DataT]:
        """Register how a process begins: it names the first state.

        Raises:
            ConfigurationError: when there is one already.
        """
        if self.rules.start is not None:
            raise ConfigurationError(f"{self.name} begins in one way: decide inside on_start")
        self.rules.start = Rule(decide)
        return decide

    def on(
        self, event: type[EventT], *, source: Stream, when: Collection[str] | None = None
    ) -> Callable[[OnEvent[DataT, EventT]], OnEvent[DataT, EventT]]:
        """Register what an event means: a pure function, which returns None to ignore it.

        Args:
            event: its class.
            source: the stream that it comes from.
            when: the states, results too, in which it makes sense; in others it is ignored. All
                until the end by default.

        Raises:
            ConfigurationError: when the service cannot read it, or handles it already.
        """
        handle = self._by_source.setdefault(source, partial(self._handle_all, source))
        self.service.on_batch(event, source=source, lock_first=self._lock)(handle)

        def register(decide: OnEvent[DataT, EventT]) -> OnEvent[DataT, EventT]:
            self.rules.events[event, source] = Rule(decide, _states(when))
            return decide

        return register

    def on_deadline(
        self, name: str, *, when: Collection[str] | None = None
    ) -> Callable[[OnStart[DataT]], OnStart[DataT]]:
        """Register what it means that a time is over.

        Args:
            name: of the deadline, as `Next` sets it.
            when: see `on`.

        Raises:
            ConfigurationError: when this deadline has a function already.
        """
        limits.name("a deadline's name", name)
        if name in self.rules.deadlines:
            raise ConfigurationError(f"{self.name} has deadline {name} twice: decide inside one")

        def register(decide: OnStart[DataT]) -> OnStart[DataT]:
            self.rules.deadlines[name] = Rule(decide, _states(when))
            return decide

        return register

    def start(self, session: Session, process_id: str, data: DataT) -> bool:
        """Begin a process in your transaction; its first events leave if you commit.

        Args:
            session: your transaction.
            process_id: unique; key and correlation id of its messages, up to 255 characters.
            data: what it remembers at first.

        Returns:
            False when a process of this id began before; then nothing is done.

        Raises:
            ConfigurationError: when JSON cannot hold the data, so that nobody could go on.
        """
        refuse_unreadable(data, self.rules.data)
        turn = self.turn(session)
        process = Process(id=process_id, version=self.version, data=data)
        is_new = bool(turn.begin({process_id: process}))
        if is_new:
            turn.take(process, Started())
        turn.finish()
        return is_new

    def find(self, session: Session, process_id: str) -> Process[DataT] | None:
        """Return a process, locked until your transaction ends; None when it never began."""
        turn = self.turn(session)
        turn.lock([process_id])
        return turn.state(process_id)

    def turn(self, session: Session) -> Turn:
        """Return a turn in your transaction."""
        return Turn(session, self.store, self._versions, self.service.outbox, self.rules)

    def deadlines(
        self,
        engine: Engine,
        transport: Transport,  # noqa: ARG002 - makers of workers get one; time needs none
        **options: Unpack[WorkerOptions],
    ) -> Deadlines:
        """Return the worker that wakes these processes; see `labkit.saga.Sagas.deadlines`."""
        wanted = {name: value for name, value in options.items() if name in {"batch", "poll_s"}}
        return Deadlines(engine, self, **wanted)  # type: ignore[arg-type]

    def due(self, session: Session, now: datetime, limit: int) -> list[str]:
        """Return the ids of processes that have a deadline behind them, the oldest first."""
        return self.store.due(session.connection(), now, self._versions, limit)

    @property
    def _versions(self) -> range:
        return range(1, self.version + 1)

    def _lock(self, session: Session, messages: Sequence[Message[Any]]) -> None:
        """Lock the processes of a whole batch in one order; see `labkit.handlers.Handler`."""
        # Kept for the batch: its messages may come to `_handle_all` in several parts.
        turn = session.info[self] = self.turn(session)
        turn.lock(_ids(map(self._address, messages)))

    def _handle_all(
        self, source: Stream, session: Session, messages: Sequence[Message[Any]]
    ) -> None:
        turn: Turn = session.info[self]
        addresses = [self._address(message) for message in messages]
        turn.lock(_ids(addresses))
        for message, address in zip(messages, addresses, strict=True):
            process = turn.state(address.process_id) if address else None
            if process is not None:
                turn.take(process, Received(message.event, source), message)
            elif address is not None and address.is_named:
                raise UnknownSagaError(f"there is no {self.name} {address.process_id} to answer")
        turn.finish()

    def _address(self, message: Message[Any]) -> _Address | None:
        """Return whom a message is about; None when it answers somebody else."""
        asked, _, rest = message.headers.get(REQUEST_ID, "").partition("/")
        if not asked:
            return _Address(message.correlation_id, is_named=False)
        # `<manager>/<id>/<request>/do`, and an id may hold slashes.
        return _Address(rest.rsplit("/", 2)[0], is_named=True) if asked == self.name else None


class Turn(Rows[Process[Any]]):
    """Some processes of one manager, in your transaction; `finish` writes what became of them."""

    def __init__(
        self,
        session: Session,
        store: Store,
        versions: Collection[int],
        outbox: Outbox,
        rules: Rules,
    ) -> None:
        super().__init__(session, store, versions, outbox)
        self._rules = rules

    def read(self, row: Row) -> Process[Any]:
        """Return the process that a row holds."""
        process = msgspec.json.decode(row.state, type=Process[Any])
        data: Any = msgspec.convert(process.data, self._rules.data)
        return msgspec.structs.replace(process, data=data)

    def take(
        self,
        state: Process[Any],
        stimulus: object,
        cause: Message[Event] | None = None,
        who: str | None = None,
    ) -> Decision:
        """Ask the rules what follows, and do it in this transaction; raises what they raise."""
        decision = self._rules.decide(state, stimulus, self.now)
        self._keep(decision.process, decision.notes, cause, who)
        for request, event in decision.sent:
            self._send(state.id, request, event, cause)
        return decision


def _states(when: Collection[str] | None) -> frozenset[str] | None:
    if isinstance(when, str):
        raise ConfigurationError(f"when= is a list of states, not the text {when!r:.40}")
    return None if when is None else frozenset(when)


def _ids(addresses: Any) -> set[str]:
    return {address.process_id for address in addresses if address}
