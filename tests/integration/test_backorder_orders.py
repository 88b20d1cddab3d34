"""Whatever the order of answers, deadlines and repetitions, no unit is lost or held for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import select

from labkit.clock import FakeClock
from labkit.shop.backorder import REGISTRY
from labkit.shop.contracts import Line
from labkit.transports.redis_streams import RedisStreams
from labkit.wire import decode_envelope
from tests.backorder_flow import SERVICES, Floor

pytestmark = pytest.mark.slow
QUANTITY = 2
QUANTITIES = st.tuples(st.integers(0, 3), st.integers(0, 3))
# Who works next, what the customer says, how much time passes, what is said again.
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.sampled_from(["backorders", "A", "B"])),
        st.tuples(st.just("answer"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.2, 24.0])),
        st.tuples(st.just("again"), st.sampled_from(["backorders", "A", "B"])),
    ),
    max_size=25,
)
numbers = count(1)


@pytest.fixture
def floor(
    new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Floor]:
    made = Floor(new_database, transport, clock)
    yield made
    made.close()


def say_again(floor: Floor, who: str, process_id: str) -> None:
    """Repeat everything that a service ever said about a process, under new message ids."""
    table = SERVICES[who].outbox.table
    query = select(table.c.body).where(table.c.key == process_id).order_by(table.c.seq)
    with floor.engines[who].connect() as connection:
        found = [decode_envelope(body) for body in connection.execute(query).scalars()]
    for envelope in found:
        floor.say(who, REGISTRY.decode(envelope), process_id, **dict(envelope.headers or {}))


def play(floor: Floor, process_id: str, actions: list[tuple[str, object]]) -> None:
    for what, how in actions:
        if what == "work":
            for worker in floor.workers[str(how)]:
                worker.run_once()
        elif what == "answer":
            floor.answer(accepts=bool(how), process_id=process_id)
        elif what == "wait":
            floor.clock.advance(hours=float(str(how)))
        else:
            say_again(floor, str(how), process_id)
    floor.work()
    while floor.process(process_id).result is None:
        floor.advance(hours=24)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(in_a=QUANTITIES, in_b=QUANTITIES, actions=ACTIONS)
def test_stock_is_conserved_and_the_result_says_what_is_held(
    floor: Floor, in_a: tuple[int, int], in_b: tuple[int, int], actions: list[tuple[str, object]]
) -> None:
    # Each example has a process and articles of its own in the same databases.
    process_id = f"RES-{next(numbers)}"
    articles = [f"{process_id}-BOOK", f"{process_id}-PEN"]
    lines = tuple(Line(sku, QUANTITY) for sku in articles)
    at_first = {
        "A": dict(zip(articles, in_a, strict=True)),
        "B": dict(zip(articles, in_b, strict=True)),
    }
    floor.stock_up(**at_first)
    floor.start(process_id, lines)

    play(floor, process_id, actions)

    process, held, stock = floor.process(process_id), floor.held(process_id), floor.stock()
    for warehouse, quantities in at_first.items():
        for sku, quantity in quantities.items():
            available, set_aside = stock[warehouse][sku]
            assert available + set_aside == quantity
            assert set_aside == held[warehouse].get(sku, 0)
    together = {sku: qty for each in held.values() for sku, qty in each.items()}
    wanted = dict.fromkeys(articles, QUANTITY)
    assert together == {line.sku: line.qty for line in process.data.kept}
    assert sum(map(len, held.values())) == len(together)
    match process.result:
        case "WHOLE":
            assert together == wanted
        case "ACCEPTED":
            assert together
            assert together != wanted
        case "DECLINED" | "EXPIRED" | "OUT_OF_STOCK":
            assert together == {}
        case other:
            pytest.fail(f"no legal result: {other}")
    assert floor.dead_letters() == []
    assert [row.what for row in floor.history(process_id)].count("completed") == 1
