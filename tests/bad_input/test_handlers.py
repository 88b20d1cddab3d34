"""Handlers that behave badly: no message is lost, and the next one meets a clean connection."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from labkit.errors import HandlerTransactionError, LabkitError
from labkit.messages import Message
from labkit.ports import Stream
from labkit.service import Service
from tests import toy
from tests.flow import Flow
from tests.toy import Happened, happen

STATE = """
    select current_setting('transaction_timeout'),
           current_setting('idle_in_transaction_session_timeout'),
           current_setting('search_path'), current_user, to_regclass('pg_temp.mine')
"""


def running(*statements: str) -> Callable[[Session], None]:
    def behave(session: Session) -> None:
        for statement in statements:
            session.execute(text(statement))

    return behave


@pytest.mark.parametrize(
    "statement",
    [
        "set transaction_timeout = 0",
        "set idle_in_transaction_session_timeout = 0",
        "set search_path = nowhere, public",
        "set role pg_monitor",
        "create temporary table mine (n int)",
    ],
)
def test_what_a_handler_changes_for_its_session_ends_with_its_transaction(
    flow: Flow, engine: Engine, statement: str
) -> None:
    states: list[Any] = []
    toy.hooks["look"] = lambda session: states.append(session.execute(text(STATE)).one())
    toy.hooks["change"] = running(
        statement, *(["set local role none"] if "role" in statement else [])
    )
    consumer = flow.consumer()
    happen(engine, "k", 1, behaviour="look")
    flow.deliver(consumer)

    happen(engine, "k", 2, behaviour="change")
    flow.deliver(consumer)
    for _ in range(flow.target.pool.size() + 1):  # type: ignore[attr-defined]
        happen(engine, "k", 3, behaviour="look")
        flow.deliver(consumer)

    assert len(set(states)) == 1
    assert flow.effects("k")[:3] == [1, 2, 3]


def test_a_handler_that_returns_a_coroutine_loses_no_message(flow: Flow, engine: Engine) -> None:
    service = Service("target", toy.REGISTRY)

    async def waits(_session: Session, _message: Message[Happened]) -> None:
        """Never awaited."""

    @functools.wraps(running)
    def wrapped(*arguments: Any) -> Any:
        return waits(*arguments)

    del wrapped.__wrapped__
    service.on(Happened, source=toy.SOURCE)(wrapped)
    consumer = service.consumers(flow.target, flow.transport, clock=flow.clock)[0]
    ids = happen(engine, "k", 1)

    flow.deliver(consumer)

    ((message_id, reason),) = flow.dead_letters()
    assert (message_id, "coroutine" in reason) == (ids[0], True)
    consumer.leases.release()
    flow.redrive(ids[0])
    flow.deliver(flow.consumer())
    assert flow.effects("k") == [1]


def test_a_thread_that_a_handler_leaves_behind_changes_nothing(flow: Flow, engine: Engine) -> None:
    go, errors = threading.Event(), list[BaseException]()
    threads: list[threading.Thread] = []

    def later(session: Session) -> None:
        go.wait(10)
        try:
            session.execute(text("delete from effects"))
            session.commit()
        except LabkitError as error:
            errors.append(error)

    def leave(session: Session) -> None:
        threads.append(threading.Thread(target=later, args=(session,)))
        threads[0].start()

    toy.hooks["leave"] = leave
    happen(engine, "k", 1, behaviour="leave")
    happen(engine, "k", 2)
    flow.deliver(flow.consumer())
    go.set()
    threads[0].join()

    assert [type(error) for error in errors] == [HandlerTransactionError]
    assert flow.effects("k") == [1, 2]


def test_an_id_that_a_handler_uses_again_makes_a_dead_letter_that_says_so(
    flow: Flow, engine: Engine
) -> None:
    answer = Happened(key="answer", n=1)

    def say(session: Session) -> None:
        toy.target.outbox.add(session, answer, key="a", message_id="answer-1")

    toy.hooks["answer"] = say
    happen(engine, "one", 1, behaviour="answer")
    happen(engine, "two", 2, behaviour="answer")
    happen(engine, "three", 3)

    flow.deliver(flow.consumer(batch=1))

    ((_, reason),) = flow.dead_letters()
    assert "(message_id)=(answer-1) already exists. An id is used once" in reason
    assert len(flow.effects()) == 2


def test_an_event_with_a_bad_key_fails_its_message_and_no_other(flow: Flow, engine: Engine) -> None:
    wrong: Any = 7

    def say(session: Session) -> None:
        toy.target.outbox.add(session, Happened(key="k", n=1), key=wrong)

    toy.hooks["key"] = say
    (bad,) = happen(engine, "bad", 1, behaviour="key")
    happen(engine, "good", 2)

    flow.deliver(flow.consumer())

    assert flow.effects() == [2]
    ((message_id, reason),) = flow.dead_letters()
    assert (message_id, "key must be None or 1 to 255" in reason) == (bad, True)


def test_a_consumer_of_a_stream_that_nobody_writes_waits(flow: Flow) -> None:
    service = Service("quiet", toy.REGISTRY)
    service.create_tables(flow.target)
    service.on(Happened, source=Stream("nobody.events", 1))(lambda _session, _message: None)

    (consumer,) = service.consumers(flow.target, flow.transport)

    assert not consumer.run_once()
