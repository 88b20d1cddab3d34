"""A projection made anew while it serves: readers see the old view or the new one, never less."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Session

from labkit import rebuild as rebuilding
from labkit.crash import CrashError, configure
from labkit.errors import ConfigurationError, TransientError
from labkit.messages import Event, Message, Registry
from labkit.projection import Projection
from labkit.rebuild import rebuild
from labkit.service import Service
from labkit.shop import fulfillment
from tests.integration.conftest import Shop


class Moved(Event, frozen=True):
    topic: ClassVar[str] = "test.moved.v1"

    order_id: str
    status: str
    order_version: int


class Noise(Event, frozen=True):
    topic: ClassVar[str] = "test.noise.v1"

    n: int


REGISTRY = Registry(Moved, Noise)
SERVICE = Service("orders", REGISTRY)
VIEW = Table(
    "view",
    SERVICE.metadata,
    Column("order_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("order_id", "status", name="view_unique"),
    Index("view_status", "status"),
    Index("view__new_version", "version"),
)


def projection(prefix: str = "") -> Projection:
    made = Projection("view", VIEW)

    @made.on(Moved)
    def row_of(message: Message[Moved]) -> Mapping[str, Any]:
        moved = message.event
        return {
            "order_id": moved.order_id,
            "status": prefix + moved.status,
            "version": moved.order_version,
        }

    return made


OLD, NEW = projection(), projection("new ")


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    SERVICE.create_tables(engine)


def happen(engine: Engine, order_id: str, version: int, *, live: bool = True) -> None:
    """Store an event; a live projection that has seen it shows it the old way."""
    event = Moved(order_id=order_id, status=f"S{version}", order_version=version)
    with Session(engine) as session, session.begin():
        SERVICE.outbox.add(session, event, key=order_id)
        SERVICE.outbox.add(session, Noise(n=version), key=order_id)
    if live:
        with engine.begin() as connection:
            row = {"order_id": order_id, "status": f"S{version}", "version": version}
            OLD.apply(connection, row)


def make_anew(engine: Engine, new: Projection = NEW, **options: Any) -> rebuilding.RebuildReport:
    return rebuild(engine, new, SERVICE.outbox, REGISTRY, **options)


def shown(engine: Engine) -> dict[str, tuple[str, int]]:
    with engine.connect() as connection:
        return {r.order_id: (r.status, r.version) for r in connection.execute(select(VIEW))}


def forget(engine: Engine, below: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("delete from outbox_messages where seq in "
                 "(select seq from outbox_messages order by seq limit :n)"),
            {"n": below},
        )  # fmt: skip


def test_new_code_shows_all_retained_events_its_way(engine: Engine) -> None:
    for version in (1, 2, 3):
        happen(engine, "O-1", version)
    happen(engine, "O-2", 1)

    report = make_anew(engine)

    assert shown(engine) == {"O-1": ("new S3", 3), "O-2": ("new S1", 1)}
    assert (report.events, report.rows) == (4, 2)


def test_events_that_the_live_projection_has_not_seen_are_in_the_new_view(engine: Engine) -> None:
    happen(engine, "O-1", 1)
    happen(engine, "O-1", 2, live=False)

    make_anew(engine)

    assert shown(engine) == {"O-1": ("new S2", 2)}


def test_a_replay_of_many_batches_is_equal_to_the_live_view(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_BATCH", 3)
    for number in range(5):
        for version in range(1, 4):
            happen(engine, f"O-{number}", version)
    before = shown(engine)

    make_anew(engine, OLD)

    assert shown(engine) == before


def test_a_table_and_its_indexes_keep_their_names_however_often_it_is_rebuilt(
    engine: Engine,
) -> None:
    happen(engine, "O-1", 1)

    for _ in range(3):
        make_anew(engine)

    found = inspect(engine)
    assert [name for name in found.get_table_names() if "view" in name] == ["view"]
    names = {"view_status", "view_unique", "view__new_version"}
    assert {index["name"] for index in found.get_indexes("view")} == names
    assert found.get_pk_constraint("view")["name"] == "view_pkey"


def test_a_broken_row_function_leaves_the_live_view_as_it_was(engine: Engine) -> None:
    happen(engine, "O-1", 1)
    broken = Projection("view", VIEW)

    @broken.on(Moved)
    def row_of(_message: Message[Moved]) -> Mapping[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_anew(engine, broken)

    assert shown(engine) == {"O-1": ("S1", 1)}


def test_a_row_function_that_forgets_a_row_is_refused(engine: Engine) -> None:
    happen(engine, "O-1", 1)
    wrong = Projection("view", VIEW)

    @wrong.on(Moved)
    def row_of(message: Message[Moved]) -> Mapping[str, Any]:
        return {"order_id": "other", "status": "", "version": message.event.order_version}

    with pytest.raises(ConfigurationError, match=r"row \('O-1',\) follows from no retained event"):
        make_anew(engine, wrong)

    assert shown(engine) == {"O-1": ("S1", 1)}


def test_history_that_is_gone_is_refused_by_name(engine: Engine) -> None:
    for version in (1, 2):
        happen(engine, "O-1", version)
    forget(engine, 2)

    with pytest.raises(ConfigurationError, match=r"'O-1'.*version 2, not 1.*snapshot="):
        make_anew(engine)

    assert shown(engine) == {"O-1": ("S2", 2)}


def test_a_row_whose_events_are_all_gone_is_refused(engine: Engine) -> None:
    happen(engine, "O-1", 1)
    forget(engine, 2)

    with pytest.raises(ConfigurationError, match=r"'O-1'.*no retained event"):
        make_anew(engine)


def test_a_snapshot_stands_in_for_history_that_is_gone(engine: Engine) -> None:
    for version in (1, 2):
        happen(engine, "O-1", version)
    happen(engine, "O-2", 1)
    forget(engine, 6)
    happen(engine, "O-1", 3)
    truth = (
        text(
            "select 'O-1' as order_id, 'told' as status, 2 as version union all "
            "select 'O-2', 'told', 1"
        )
        .columns(Column("order_id", Text), Column("status", Text), Column("version", Integer))
        .subquery()
    )

    make_anew(engine, snapshot=select(truth))

    assert shown(engine) == {"O-1": ("new S3", 3), "O-2": ("told", 1)}


def test_a_transaction_that_commits_late_is_in_the_new_view(engine: Engine) -> None:
    late = engine.connect()
    begun = late.begin()
    SERVICE.outbox.add(late, Moved(order_id="late", status="S1", order_version=1), key="late")
    happen(engine, "O-1", 1)
    rebuilder = threading.Thread(target=make_anew, args=(engine,))

    rebuilder.start()
    _until_waiting_for_a_lock(engine)
    begun.commit()
    late.close()
    rebuilder.join()

    assert shown(engine) == {"late": ("new S1", 1), "O-1": ("new S1", 1)}


def _until_waiting_for_a_lock(engine: Engine) -> None:
    query = text("select count(*) from pg_stat_activity where datname = current_database() "
                 "and wait_event_type = 'Lock'")  # fmt: skip
    deadline_s = time.monotonic() + 20
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(query).scalar():
            assert time.monotonic() < deadline_s


def test_a_lock_that_others_keep_is_reported_and_nothing_has_changed(engine: Engine) -> None:
    happen(engine, "O-1", 1)
    with engine.connect() as reader, reader.begin():
        reader.execute(select(VIEW))

        with pytest.raises(TransientError, match="a long transaction"):
            make_anew(engine, within_s=0.0)

    assert shown(engine) == {"O-1": ("S1", 1)}


def test_two_rebuilds_at_once_are_refused(engine: Engine) -> None:
    with (
        rebuilding._alone(engine, OLD),
        pytest.raises(ConfigurationError, match="being rebuilt already"),
    ):
        make_anew(engine)


@pytest.fixture
def faults() -> Iterator[None]:
    yield
    configure({})


def test_a_failure_right_before_the_swap_leaves_the_live_view_and_the_next_one_succeeds(
    engine: Engine, faults: None
) -> None:
    happen(engine, "O-1", 1)
    configure({"LABKIT_FAULTS": "rebuild.before_swap:raise:@1"})

    with pytest.raises(CrashError):
        make_anew(engine)
    assert shown(engine) == {"O-1": ("S1", 1)}

    make_anew(engine)
    assert shown(engine) == {"O-1": ("new S1", 1)}


def test_a_killed_rebuild_leaves_the_live_view_and_the_next_one_succeeds(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    shop.settle()
    url = shop.orders.url.render_as_string(hide_password=False)
    program = (
        "import sys; from labkit import db; from labkit.shop import fulfillment\n"
        "fulfillment.rebuild_view(db.connect(sys.argv[1]))"
    )

    died = subprocess.run(
        [sys.executable, "-c", program, url],
        env={"LABKIT_FAULTS": "rebuild.before_swap:kill:@1", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )

    assert died.returncode == -signal.SIGKILL
    assert shop.seen("ORD-1") == ("RESERVED", 2)
    assert _rebuilt(shop).rows == 1
    assert shop.seen("ORD-1") == ("RESERVED", 2)


def _rebuilt(shop: Shop) -> rebuilding.RebuildReport:
    """Rebuild; the dead one's connection takes a moment to end."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            return fulfillment.rebuild_view(shop.orders)
        except ConfigurationError:
            if time.monotonic() > deadline_s:
                raise


def test_the_shops_view_is_the_same_after_its_rebuild(shop: Shop) -> None:
    for number in range(4):
        shop.place(f"ORD-{number}", ("BOOK-DDD", 1))
    shop.settle()
    shop.cancel("ORD-2")
    shop.settle()
    shop.place("ORD-9", ("BOOK-DDD", 1))  # nothing is known of it but its first row
    rows = select(fulfillment.view.table).order_by("order_id")
    with shop.orders.connect() as connection:
        before = connection.execute(rows).all()

    fulfillment.rebuild_view(shop.orders)

    with shop.orders.connect() as connection:
        assert connection.execute(rows).all() == before


@dataclass
class Life:
    """The shop at work: somebody orders, the workers work, a reader looks all the time."""

    shop: Shop
    stop: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    orders: int = 0

    def order(self) -> None:
        self.orders += 1
        with Session(self.shop.orders) as session, session.begin():
            fulfillment.place_order(session, f"ORD-{self.orders}", [("BOOK-DDD", 1)])

    def work(self) -> None:
        for worker in self.shop.workers:
            worker.run_once()

    def look(self, seen: dict[str, int]) -> None:
        now = {order_id: version for order_id, (_, version) in rows_of(self.shop, VIEWED).items()}
        gone = [o for o, version in seen.items() if now.get(o, 0) < version]
        self.wrong += [f"{o} was {seen[o]} and is {now.get(o)}" for o in gone]
        seen.update(now)

    def always(self, body: Callable[[], None]) -> None:
        try:
            while not self.stop.is_set():
                body()
        except BaseException as error:  # noqa: BLE001 - the test must hear of it
            self.wrong.append(repr(error))


VIEWED = fulfillment.view.table


def rows_of(shop: Shop, table: Table) -> dict[str, tuple[str, int]]:
    with shop.orders.connect() as connection:
        rows = connection.execute(select(table.c.order_id, table.c.status, table.c.version))
        return {row.order_id: (row.status, row.version) for row in rows}


@pytest.mark.slow
def test_under_load_no_reader_sees_a_row_disappear_or_go_back(shop: Shop) -> None:
    life, seen = Life(shop), dict[str, int]()
    bodies = (life.order, life.work, lambda: life.look(seen))
    threads = [threading.Thread(target=life.always, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()

    for _ in range(8):
        fulfillment.rebuild_view(shop.orders)
    life.stop.set()
    for thread in threads:
        thread.join()
    shop.settle()

    assert life.wrong == []
    assert len(seen) > 8
    assert rows_of(shop, VIEWED) == rows_of(shop, fulfillment.orders)
