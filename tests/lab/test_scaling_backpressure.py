"""Three producers on a real stream: one grows without end, one loses, one waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.lab import charts
from labkit.lab.scaling import backpressure
from labkit.lab.scaling.backpressure import CAPPED, LIMIT, LOOKING, UNBOUNDED, Run
from labkit.lab.servers import Stack
from labkit.transports.redis_streams import connect

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def runs(servers: Stack) -> Iterator[dict[str, Run]]:
    yield backpressure.compare(servers)
    client = connect(servers.redis_url)
    assert list(client.scan_iter(match="*contrapresion*")) == []
    client.close()


def test_a_producer_that_does_not_look_lets_the_backlog_grow_by_the_difference(
    runs: dict[str, Run],
) -> None:
    waiting = runs[UNBOUNDED].waiting

    assert waiting[: backpressure.TURNS] == [5 * turn for turn in range(1, 41)]
    assert max(runs[UNBOUNDED].waits) == 20


def test_a_producer_that_looks_keeps_to_the_limit_and_loses_no_time(runs: dict[str, Run]) -> None:
    looking = runs[LOOKING]

    assert max(looking.waiting) + backpressure.HANDLED == LIMIT
    assert max(looking.waits) == LIMIT // backpressure.HANDLED - 1
    assert len(looking.waiting) == len(runs[UNBOUNDED].waiting) == 60


def test_a_capped_stream_loses_what_was_never_read(runs: dict[str, Run]) -> None:
    assert {name: found.lost > 0 for name, found in runs.items()} == {
        UNBOUNDED: False,
        CAPPED: True,
        LOOKING: False,
    }
    assert {found.sent for found in runs.values()} == {600}
    # What it loses is what the other keeps to itself.
    assert runs[CAPPED].lost == max(runs[LOOKING].kept) == 160


def test_littles_law_holds_on_the_real_stream(runs: dict[str, Run]) -> None:
    for name in (UNBOUNDED, LOOKING):
        found = runs[name]
        # Who waits when a turn ends has waited a turn more: both sides count the same.
        assert sum(found.waiting) == sum(found.waits)


def test_what_is_drawn_is_read_and_tabled(runs: dict[str, Run]) -> None:
    figure = charts.lines(backpressure.points(runs), title="t", x="turno", y="mensajes")

    assert "«sin mirar» llegan a esperar 200 mensajes" in backpressure.reading(runs)
    assert charts.bundle(figure, backpressure.reading(runs))["image/png"]
    assert backpressure.table(runs)["perdidos"].tolist()[::2] == [0, 0]


def test_again_it_is_the_same(servers: Stack, runs: dict[str, Run]) -> None:
    assert backpressure.run(servers, LOOKING) == runs[LOOKING]
