from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from labkit.lab import timeline
from labkit.lab.bench import Bench
from labkit.lab.entries import Entries
from labkit.lab.servers import Stack
from labkit.lab.sites import Site
from labkit.lab.timeline import CONSUMER, DATABASE, RELAY, STREAM, Mark
from labkit.lab.trace import Moment, Traced, What, trace
from labkit.shop import fulfillment, inventory
from labkit.testing.processes import Where, start, work
from tests.figures import problems, words
from tests.waiting import eventually

START = datetime(2026, 2, 17, 16, tzinfo=UTC)
STORY = [
    Mark(DATABASE, "escrito"),
    Mark(DATABASE, "confirmado"),
    Mark(STREAM, "publicado"),
    timeline.died(),
    Mark(STREAM, "publicado otra vez", "again"),
    Mark(DATABASE, "marcado"),
    Mark(CONSUMER, "aplicado"),
    Mark(CONSUMER, "descartado: repetido", "again"),
]


def moment(what: What, ms: int | None, *, happened: bool = True) -> Moment:
    at = None if ms is None else START + timedelta(milliseconds=ms)
    return Moment(what, "somewhere", at, happened=happened)


def labels(*moments: Moment) -> list[str]:
    return [mark.label for mark in timeline.of(Traced("m", moments=list(moments)))]


@pytest.mark.parametrize(
    "marks",
    [
        STORY,
        [mark._replace(message=f"RES-{n % 2 + 1}") for n, mark in enumerate(STORY)],
        [Mark(DATABASE, "confirmado", message=name) for name in ("RES-1", "RES-2")],
    ],
)  # fmt: skip
def test_a_timeline_is_legible_at_the_back(marks: list[Mark]) -> None:
    assert problems(timeline.draw(marks, title="Un mensaje que sale dos veces")) == []


def test_steps_are_numbered_and_lanes_named() -> None:
    drawn = words(timeline.draw(STORY, title="Un mensaje"))

    assert {"paso 1", "paso 8", "base de datos", "proceso muerto"} <= set(drawn)


def test_a_lane_where_nothing_happened_is_left_out() -> None:
    assert CONSUMER not in words(timeline.draw(STORY[:3], title="Un mensaje"))


def test_recorded_times_decide_the_order() -> None:
    late, early = Mark(STREAM, "dos", at=2), Mark(STREAM, "uno", at=1)

    drawn = words(timeline.draw([late, early], title="Orden"))
    assert drawn.index("uno") < drawn.index("dos")


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ([], "tiene marcas"),
        ([Mark(STREAM, "uno", at=1), Mark(STREAM, "dos")], "o todas llevan hora o ninguna"),
        ([Mark("cocina", "uno")], "sin carril: cocina"),
        ([Mark(STREAM, "uno", message=name) for name in "abcde"], "de 1 a 4 series"),
    ],
)
def test_what_is_no_timeline_is_refused_in_words(marks: list[Mark], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        timeline.draw(marks, title="Nada")


def test_a_second_publication_says_so() -> None:
    found = timeline.of(Traced("m", moments=[moment("published", 1), moment("published", 2)]))

    assert [(mark.label, mark.kind) for mark in found] == [
        ("publicado", "step"),
        ("publicado otra vez", "again"),
    ]


def test_what_arrived_between_two_publications_stands_between_them() -> None:
    assert labels(
        moment("published", 5), moment("published", 20), moment("received", 8)
    ) == ["publicado", "recibido", "publicado otra vez"]  # fmt: skip


def test_clocks_that_disagree_do_not_put_the_answer_first() -> None:
    assert labels(moment("published", 5), moment("received", 4)) == ["publicado", "recibido"]


def test_what_has_no_time_stands_behind_what_it_follows() -> None:
    assert labels(
        moment("appended", 1), moment("committed", None), moment("published", 3)
    ) == ["escrito", "confirmado", "publicado"]  # fmt: skip


def test_what_is_still_to_come_is_not_drawn() -> None:
    assert labels(moment("appended", 1), moment("marked", None, happened=False)) == ["escrito"]


@pytest.fixture
def shop(running: Stack) -> Iterator[Bench]:
    made = Bench("timeline", servers=running)
    yield made
    made.close()


def kill_a_relay_after_publishing(shop: Bench) -> None:
    where = Where(
        shop.orders.url.render_as_string(hide_password=False), shop.servers.redis_url, "timeline:"
    )
    faults = "relay.after_publish:kill:@1"
    service = "labkit.shop.fulfillment:service"
    relay = start(work, service, "relay", where, {"lease_s": 1.0}, faults=faults)
    relay.join(20)
    assert relay.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_relay_that_dies_after_publishing_is_drawn_from_the_records(shop: Bench) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 1))
    kill_a_relay_after_publishing(shop)
    # Its successor has to wait for the lease of the dead.
    eventually(lambda: len(shop.settle()) and waiting(shop), 0)

    sites = [Site(fulfillment.service, shop.orders), Site(inventory.service, shop.stock)]
    first = shop.table(shop.orders, "select message_id from outbox_messages order by seq limit 1")
    found = trace(first.message_id[0], sites, Entries(shop.transport))
    marks = timeline.of(found.root, {"published": timeline.died(RELAY)})

    # The consumer may have been quicker than the end of the lease.
    assert [mark.label for mark in marks if mark.lane != CONSUMER] == [
        "escrito",
        "confirmado",
        "publicado",
        "proceso muerto",
        "publicado otra vez",
        "marcado",
    ]
    consumed = [mark.label for mark in marks if mark.lane == CONSUMER]
    assert consumed == ["recibido", "efecto confirmado"]
    assert problems(timeline.draw(marks, title="Un mensaje")) == []


def waiting(shop: Bench) -> int:
    query = "select count(*) as n from outbox_messages where published_at is null"
    return int(shop.table(shop.orders, query).n[0])
