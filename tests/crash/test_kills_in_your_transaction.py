"""Parts that join your transaction, and a process that is killed right before or after its COMMIT.

They have no crash window of their own: what is not committed did not happen, what is committed
did, and whoever comes next goes on from there without waiting.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, Engine, Identity, MetaData, Table, event, insert, select
from sqlalchemy.orm import Session

from labkit import db
from labkit.clock import FakeClock
from labkit.errors import LockedError, SagaError
from labkit.lab.servers import Stack
from labkit.messages import Message
from labkit.ports import Stream
from labkit.saga import COMPENSATING, COMPLETED, STUCK, Status
from labkit.saga.locks import SemanticLocks
from labkit.saga.operations import Operations
from labkit.service import Service
from labkit.shop.catalogue import REGISTRY, ArticleDescribed
from labkit.testing import processes
from labkit.translation import Enricher
from labkit.transports.redis_streams import RedisStreams
from tests import saga_flow
from tests.conftest import NewDatabase
from tests.crash.conftest import PATIENCE_S
from tests.saga_flow import Play
from tests.toy_saga import Reserved

BEFORE, AFTER = "before", "after"
MOMENTS = (BEFORE, AFTER)


def commit_and_die(engine: Engine, work: Callable[[Session], object], moment: str) -> None:
    """Work in a transaction, and die when all is written and not committed, or right after."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == BEFORE:
        # Listeners of this engine come last: the outbox has stored its rows by then.
        event.listen(engine, "commit", die)
    with Session(engine) as session, session.begin():
        work(session)
    die()


def killed(servers: Stack, engine: Engine, function: Callable[..., object], *arguments: Any) -> int:
    """Let a process of its own call a function, and return how it ended."""
    url = engine.url.render_as_string(hide_password=False)
    where = processes.Where(url, servers.redis_url, "-")
    return processes.wait(processes.start(processes.call, function, where, arguments), PATIENCE_S)


locks_metadata = MetaData()
locks = SemanticLocks(locks_metadata)


def touch_lock(engine: Engine, _: RedisStreams, verb: str, moment: str) -> None:
    commit_and_die(engine, lambda session: getattr(locks, verb)(session, "ORD-1", "S-1"), moment)


def take(engine: Engine, holder: str) -> None:
    with Session(engine) as session, session.begin():
        locks.take(session, "ORD-1", holder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_holder_killed_while_it_takes_a_lock_has_it_only_if_that_was_committed(
    engine: Engine, servers: Stack, moment: str
) -> None:
    db.create_all(engine, locks_metadata)
    assert killed(servers, engine, touch_lock, "take", moment) == -signal.SIGKILL

    if moment == BEFORE:
        take(engine, "S-2")
        return
    with pytest.raises(LockedError, match="by S-1"):
        take(engine, "S-2")
    take(engine, "S-1")  # whoever goes on with the saga holds it already


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_holder_killed_while_it_lets_go_of_a_lock_keeps_it_unless_that_was_committed(
    engine: Engine, servers: Stack, moment: str
) -> None:
    db.create_all(engine, locks_metadata)
    take(engine, "S-1")
    assert killed(servers, engine, touch_lock, "free", moment) == -signal.SIGKILL

    with Session(engine) as session, session.begin():
        assert locks.free(session, "ORD-1", "S-1") == (moment == BEFORE)
    take(engine, "S-2")


@pytest.fixture
def play(
    engine: Engine, new_database: NewDatabase, transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    peers.dispose()


operations = Operations(saga_flow.sagas)
# The status that each verb leaves, and the commands that follow.
EFFECTS: dict[str, tuple[Status, list[str]]] = {
    "retry": (COMPENSATING, ["release"]),
    "skip": (COMPLETED, []),
    "compensate": (COMPENSATING, ["void"]),
}


def intervene(engine: Engine, _: RedisStreams, verb: str, now: datetime, moment: str) -> None:
    engine.update_execution_options(labkit_clock=FakeClock(now))
    commit_and_die(engine, lambda session: act(session, verb, "op-1"), moment)


def act(session: Session, verb: str, who: str) -> None:
    getattr(operations, verb)(session, "S-1", who=who, why="so")


def stick(play: Play, verb: str) -> None:
    if verb == "skip":
        play.stick_behind_the_pivot()
    elif verb == "retry":
        play.stick_while_compensating()
    else:
        play.start("S-1")
        play.answer("S-1", Reserved())
        play.make_stuck("S-1")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verb", EFFECTS)
def test_an_operator_killed_at_the_commit_has_acted_wholly_or_not_at_all(
    play: Play, servers: Stack, verb: str, moment: str
) -> None:
    left, command = EFFECTS[verb]
    stick(play, verb)
    before = play.sent("S-1"), operators(play)
    died = killed(servers, play.engine, intervene, verb, play.clock.now(), moment)
    assert died == -signal.SIGKILL

    with Session(play.engine) as session, session.begin():
        if moment == BEFORE:
            assert (play.sent("S-1"), operators(play)) == before
            act(session, verb, "op-2")
        else:
            with pytest.raises(SagaError, match="op-1 "):
                act(session, verb, "op-2")
    play.work()
    assert play.state("S-1").status is left is not STUCK
    assert play.sent("S-1") == before[0] + command
    assert operators(play) == ({"op-2"} if moment == BEFORE else {"op-1"})


def operators(play: Play) -> set[str | None]:
    with Session(play.engine) as session:
        return {line.who for line in operations.one(session, "S-1").history} - {None}


CATALOGUE = Stream("catalogue.events", partitions=1)
catalogue = Service("catalogue", REGISTRY, stream=CATALOGUE)
orders = Service("orders", REGISTRY)
articles = Enricher(orders.metadata)
news = Table(
    "news",
    orders.metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("revision", BigInteger, nullable=False),
)


@orders.on(ArticleDescribed, source=CATALOGUE)
def learn(session: Session, message: Message[ArticleDescribed]) -> None:
    article = message.event
    if articles.learn(session, article.sku, article.revision, {"title": article.title}):
        session.execute(insert(news).values(revision=article.revision))


def consume(engine: Engine, transport: RedisStreams) -> None:
    """Handle what is there; always under one name, so the next one resumes at once."""
    (consumer,) = orders.consumers(engine, transport, owner="orders", batch=1)
    while consumer.run_once():
        pass
    consumer.leases.release()


@pytest.mark.parametrize("point", ["consumer.before_commit", "consumer.after_commit"])
def test_a_copy_whose_worker_is_killed_shows_the_newest_version_and_learned_each_once(
    engine: Engine,
    new_database: NewDatabase,
    transport: RedisStreams,
    servers: Stack,
    point: str,
) -> None:
    source = db.connect(new_database())
    catalogue.create_tables(source)
    orders.create_tables(engine)
    for revision in (1, 3, 2):
        describe(source, revision)
    while catalogue.relay(source, transport, owner="catalogue").run_once():
        pass
    source.dispose()

    url = engine.url.render_as_string(hide_password=False)
    where = processes.Where(url, servers.redis_url, transport.prefix)
    # The second message: revision 3.
    victim = processes.start(processes.call, consume, where, (), faults=f"{point}:kill:@2")
    assert processes.wait(victim, PATIENCE_S) == -signal.SIGKILL
    assert learned(engine) == ([1] if point == "consumer.before_commit" else [1, 3])

    consume(engine, transport)
    with engine.connect() as connection:
        (found,) = articles.enrich(connection, [{"sku": "BOOK"}], by="sku").records
    assert found == {"sku": "BOOK", "title": "revision 3"}
    assert learned(engine) == [1, 3]


def describe(source: Engine, revision: int) -> None:
    with Session(source) as session, session.begin():
        described = ArticleDescribed(
            sku="BOOK",
            title=f"revision {revision}",
            price_cents=2995,
            currency="EUR",
            revision=revision,
        )
        catalogue.outbox.add(session, described, key="BOOK")


def learned(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(select(news.c.revision).order_by(news.c.seq)).scalars())
