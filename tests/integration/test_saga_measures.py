"""Numbers about sagas: from the tables, so the same from whichever process asks."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import db
from labkit.cli import metrics
from labkit.clock import FakeClock
from labkit.errors import ConfigurationError
from labkit.lab.saga_numbers import saga_frame
from labkit.observe import Measure
from labkit.saga import COMPENSATED, Sagas
from labkit.saga.measures import measure
from labkit.saga.operations import Operations
from labkit.transports.redis_inspection import RedisInspection
from labkit.transports.redis_streams import RedisStreams
from tests import saga_flow, toy
from tests.saga_flow import Play, ordering, sagas
from tests.toy_saga import Declined, OutOfStock, Paid, Released, Reserved, Shipped


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    """Return the flow, with one clock for workers and observers."""
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    saga_flow.broken.clear()
    peers.dispose()


def value(found: list[Measure], name: str, **labels: str) -> float:
    """Return the one measure with this name and these labels."""
    wanted = {"service": "ordering", "saga": "toy"} | labels
    (value,) = [each.value for each in found if each.name == name and each.labels == wanted]
    return value


def complete(play: Play, saga_id: str, after_s: float) -> None:
    play.start(saga_id)
    play.clock.advance(after_s)
    for answer in (Reserved(), Paid(), Shipped()):
        play.answer(saga_id, answer)


def totals(play: Play) -> dict[str, float]:
    found = measure(ordering, play.engine)
    names = ("started", "completed", "compensated", "failed")
    return {name: value(found, f"saga_{name}") for name in names}


def test_totals_count_how_sagas_began_and_ended(play: Play) -> None:
    complete(play, "S-1", 0)
    play.start("S-2", "S-3")
    play.answer("S-2", OutOfStock())
    play.stick_behind_the_pivot("S-4")
    assert totals(play) == {"started": 4, "completed": 1, "compensated": 1, "failed": 1}


def test_a_total_never_falls(play: Play) -> None:
    """A person lets the stuck one go on; a late success opens the other again."""
    play.start("S-1")
    play.answer("S-1", OutOfStock())
    play.stick_behind_the_pivot("S-2")
    before = totals(play)
    play.answer("S-1", Reserved())
    with Session(play.engine) as session, session.begin():
        Operations(sagas).retry(session, "S-2", who="op-1", why="strike is over")
    assert play.state("S-1").status is not COMPENSATED
    assert totals(play) == before


def test_who_is_under_way_is_counted_by_status_with_the_age_of_the_oldest(play: Play) -> None:
    play.start("S-1", "S-2")
    play.clock.advance(20)
    play.stick_behind_the_pivot("S-3")
    found = measure(ordering, play.engine)
    assert value(found, "saga_under_way", status="RUNNING") == 2
    assert value(found, "saga_under_way", status="STUCK") == 1
    assert value(found, "saga_under_way", status="COMPENSATING") == 0
    assert value(found, "saga_oldest_under_way_age") == 20


def test_durations_are_a_histogram_from_beginning_to_end(play: Play) -> None:
    complete(play, "S-1", 1)
    complete(play, "S-2", 20)
    play.answer("S-1", Shipped())  # comes again, and makes S-1 no longer
    found, name = measure(ordering, play.engine), "saga_duration_seconds"
    upto = [
        value(found, f"{name}_bucket", status="COMPLETED", le=le)
        for le in ("0.5", "1.0", "5.0", "30.0", "+Inf")
    ]
    assert upto == [0, 1, 1, 2, 2]
    assert value(found, f"{name}_sum", status="COMPLETED") == 21
    assert value(found, f"{name}_count", status="COMPLETED") == 2
    assert value(found, f"{name}_count", status="COMPENSATED") == 0


def test_zeros_are_shown_before_the_first_saga(play: Play) -> None:
    assert set(totals(play).values()) == {0}
    assert value(measure(ordering, play.engine), "saga_oldest_under_way_age") == 0


def test_a_service_without_sagas_has_no_such_numbers(engine: Engine) -> None:
    assert measure(toy.source, engine) == []


def test_the_page_speaks_of_sagas_as_prometheus_wants_it(play: Play) -> None:
    complete(play, "S-1", 20)
    engine = db.connect(play.engine.url, pool_size=1)
    port = metrics.serve(0, ordering, engine, RedisInspection(play.transport), [])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    engine.dispose()
    for line in (
        'labkit_saga_started_total{saga="toy",service="ordering"} 1.0',
        'labkit_saga_completed_total{saga="toy",service="ordering"} 1.0',
        'labkit_saga_compensated_total{saga="toy",service="ordering"} 0.0',
        'labkit_saga_failed_total{saga="toy",service="ordering"} 0.0',
        'labkit_saga_under_way{saga="toy",service="ordering",status="RUNNING"} 0.0',
        "# TYPE labkit_saga_duration_seconds histogram",
        'labkit_scrape_failed{side="sagas"} 0.0',
    ):
        assert line in page
    labels = 'le="30.0",saga="toy",service="ordering",status="COMPLETED"'
    assert f"labkit_saga_duration_seconds_bucket{{{labels}}} 1.0" in page


def rows(frame: Any) -> dict[str, Any]:
    return {row["status"]: row for row in frame.to_dict("records")}


def test_the_frame_has_a_row_for_each_saga_and_status(play: Play) -> None:
    for n, after_s in enumerate((1, 3, 5)):
        complete(play, f"S-{n}", after_s)
    play.start("S-8", "S-9")
    play.advance(30)
    play.advance(2)
    found = rows(saga_frame(play.engine))
    done, running = found["COMPLETED"], found["RUNNING"]
    assert (done["sagas"], done["median_s"], done["asked"], done["asked_again"]) == (3, 3, 9, 0)
    assert done["p99_s"] == pytest.approx(4.96)
    assert (running["sagas"], running["asked"], running["asked_again"]) == (2, 4, 2)
    assert running["oldest_s"] == 32
    assert math.isnan(running["median_s"])
    assert math.isnan(done["oldest_s"])


def test_the_frame_counts_a_saga_once_that_ended_twice(play: Play) -> None:
    play.start("S-1", "S-2")
    for late_success in (OutOfStock(), Reserved(), Released()):
        play.answer("S-1", late_success)
    for in_time in (Reserved(), Declined(), Released()):
        play.answer("S-2", in_time)
    assert rows(saga_frame(play.engine))["COMPENSATED"]["sagas"] == 2


def test_an_empty_frame_has_its_columns(play: Play) -> None:
    assert [*saga_frame(play.engine).columns][:3] == ["saga", "status", "sagas"]


def test_one_name_is_declared_once_in_a_context(play: Play) -> None:
    with pytest.raises(ConfigurationError, match="declared twice"):
        Sagas(ordering, saga_flow.definition())
