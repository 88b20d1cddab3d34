"""A process manager is really killed between an answer and what it decides; it decides once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from labkit.clock import FakeClock
from labkit.lab.servers import Stack
from labkit.shop.backorder import WAREHOUSE_A, WHOLE, service
from labkit.testing import processes
from labkit.transports.redis_streams import RedisStreams
from tests.backorder_flow import Floor
from tests.crash.conftest import PATIENCE_S


def hear_warehouse_a(engine: Engine, transport: RedisStreams) -> None:
    """Handle what warehouse A said; always under one name, so the next one resumes at once."""
    engine.update_execution_options(labkit_clock=FakeClock())
    (consumer,) = (
        each
        for each in service.consumers(engine, transport, owner="backorders")
        if each.stream == WAREHOUSE_A
    )
    while consumer.run_once():
        pass
    consumer.leases.release()


@pytest.fixture
def floor(
    new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Floor]:
    made = Floor(new_database, transport, clock)
    yield made
    made.close()


def hear_apart(floor: Floor, servers: Stack, faults: str = "") -> int:
    """Let a process of its own hear warehouse A, and return how it ended."""
    url = floor.engine.url.render_as_string(hide_password=False)
    where = processes.Where(url, servers.redis_url, floor.transport.prefix)
    worker = processes.start(processes.call, hear_warehouse_a, where, (), faults=faults)
    return processes.wait(worker, PATIENCE_S)


@pytest.mark.parametrize("point", ["consumer.before_commit", "consumer.after_commit"])
def test_a_process_manager_killed_at_an_answer_asks_the_next_warehouse_once(
    floor: Floor, servers: Stack, point: str
) -> None:
    floor.stock_up(A={"PEN": 2}, B={"BOOK": 1})
    floor.start()
    floor.workers["backorders"][0].run_once()
    floor.work(without="backorders")

    died = hear_apart(floor, servers, f"{point}:kill:@1")
    has_asked_b = len(floor.sent()) == 2
    assert (died, has_asked_b) == (-signal.SIGKILL, point == "consumer.after_commit")

    assert hear_apart(floor, servers) == 0
    floor.work()
    assert [each for each, _ in floor.sent()] == [
        "WarehouseStockRequested",
        "WarehouseStockRequested",
        "BackorderEnded",
    ]
    assert floor.process().state == WHOLE
    assert floor.held() == {"A": {"PEN": 2}, "B": {"BOOK": 1}}
    assert floor.stock() == {"A": {"PEN": (0, 2)}, "B": {"BOOK": (0, 1)}}
