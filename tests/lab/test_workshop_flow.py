"""The workshop as a whole: half-built, assembled, killed, handed over, run by other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from labkit.errors import ConfigurationError
from labkit.lab import exercises, predictions, taller
from labkit.lab.servers import Stack
from labkit.lab.story_books import differences
from labkit.lab.story_cast import LEDGER
from labkit.lab.workshop import chaos, faults, gaps, handing, picture
from labkit.lab.workshop.counting import Count, count
from labkit.lab.workshop.goals import goals, hold
from labkit.lab.workshop.pieces import (
    RESERVATION_PENDING,
    ReserveStockRequested,
    outbox,
    routing,
    save_order,
    view,
)
from labkit.lab.workshop.shop import Workshop
from labkit.messages import Message
from labkit.shop.contracts import REGISTRY, StockReserved
from labkit.wire import decode_envelope
from tests.waiting import eventually

Displayed = Callable[[Callable[[], object]], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def own_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers_of_the_user: None
) -> None:
    """A home and a kernel in which nothing was done."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(exercises, "_last", {})
    monkeypatch.setattr(taller, "_helped", set())
    monkeypatch.setattr(predictions, "_given", {})


Build = Callable[[Mapping[str, Any]], Workshop]


@pytest.fixture
def build(servers: Stack) -> Iterator[Build]:
    """Builds the workshop of some functions; closes it in the end."""
    made: list[Workshop] = []

    def built(functions: Mapping[str, Any]) -> Workshop:
        made.append(Workshop(functions, name="taller_prueba", servers=servers))
        return made[-1]

    yield built
    for shop in made:
        shop.close()


@pytest.fixture
def whole(build: Build) -> Workshop:
    """The workshop with the solution in every gap."""
    return build(gaps.whole({}))


def way_of(pedido: Any) -> dict[str, str]:
    return {linea.sku: pedido.order_id for linea in pedido.lines}


def coloco_yo(session: Session, pedido: Any) -> None:
    """As a student may write it: another name, another order, a function of one's own."""
    reserva = pedido.reservation_id
    peticion = ReserveStockRequested(reservation_id=reserva, lines=pedido.lines)
    outbox.add(session, peticion, key=reserva)
    save_order(session, pedido)
    routing.expect(session, reserva, way_of(pedido))
    first = (pedido.order_id, RESERVATION_PENDING, reserva, pedido.placed_at)
    view.show_first(session.connection(), *first)


def test_half_built_it_places_nothing_and_the_picture_says_so(build: Build) -> None:
    half = build({})

    with pytest.raises(ConfigurationError, match="falta el hueco 1"):
        half.place("ORD-1")
    half.settle()

    assert half.recorded() == {}
    assert picture.done(half) == [True, *[False] * 6]
    assert "faltan 6: el viaje acaba en «place_order»" in picture.reading(picture.done(half))


def test_as_far_as_it_is_built_it_runs(build: Build) -> None:
    filled = gaps.whole({})
    some = {name: filled[name] for name in ("colocar", "publicar")}
    half = build(some)
    half.play()

    assert half.recorded() == {"ReserveStockRequested": 4}
    assert picture.done(half) == [True, True, True, False, False, False, False]


def test_the_storys_orders_end_as_the_ledger_says(whole: Workshop) -> None:
    whole.play()

    assert whole.check().books.holders["RES-4"] == {"BOOK-HEX": 2}
    assert picture.done(whole) == [True] * 7
    assert picture.reading(picture.done(whole)).startswith("El viaje está entero")


def reached(shop: Workshop) -> list[bool]:
    return list(hold(goals(shop)).values())


def test_the_goals_hold_on_the_solution(whole: Workshop) -> None:
    whole.play()

    assert reached(whole) == [True, True, True]
    assert reached(whole) == [True, True, True]
    whole.check()


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("publicar", [False, False, False]), ("fila", [True, True, False])],
)
def test_a_goal_is_missed_without_what_it_is_about(
    build: Build, missing: str, expected: list[bool]
) -> None:
    filled = {name: each for name, each in gaps.whole({}).items() if name != missing}
    half = build(filled)
    half.play()

    assert reached(half) == expected


def test_a_view_that_the_checkout_writes_misses_its_goal(build: Build) -> None:
    def knows_it_all(session: Session, pedido: Any) -> None:
        gaps.whole({})["colocar"](session, pedido)
        row = (pedido.order_id, "RESERVED", pedido.reservation_id, pedido.placed_at)
        view.projection.apply(
            session.connection(),
            dict(zip(("order_id", "status", "reservation_id", "updated_at"), row, strict=True))
            | {"version": 9},
        )

    shop = build(gaps.whole({"colocar": knows_it_all}))
    shop.play()

    assert reached(shop) == [True, True, False]


def test_the_faults_are_closed_by_the_solution_and_open_where_nothing_was_built(
    build: Build,
) -> None:
    shop = build(gaps.whole({}))
    shop.play()
    shop.settle()

    assert faults.closed(shop) == {"F1", "F2", "F3"}
    assert faults.closed(build({})) == set()


def test_an_order_whose_message_never_left_leaves_its_fault_open(whole: Workshop) -> None:
    whole.play()
    with whole.orders.begin() as connection:
        connection.execute(text("delete from outbox_messages where key = 'RES-4'"))

    assert faults.closed(whole) == {"F2", "F3"}


def test_a_message_noted_without_its_effect_leaves_its_fault_open(whole: Workshop) -> None:
    whole.play()
    with whole.stock.begin() as connection:
        connection.execute(text("delete from reservation_lines where reservation_id = 'RES-2'"))

    assert faults.closed(whole) == {"F1", "F3"}


@pytest.mark.slow
def test_nothing_is_lost_doubled_reordered_or_stuck_while_processes_die(servers: Stack) -> None:
    handing.write_functions(gaps.whole({}), [])

    report = chaos.run(
        gaps.whole({}), handing.folder().parent, servers=servers, orders=60, strikes=5
    )

    assert report.count == (0, 0, 0, 0, None)
    assert sum(report.killed.values()) == 10
    assert report.frame().iloc[0].tolist() == [60, 10, 0, 0, 0, 0]


def test_the_count_sees_what_was_lost_and_who_is_stuck(whole: Workshop) -> None:
    whole.play()
    whole.transport.client.flushdb()

    found = count(whole, {"BOOK-DDD": 25, "BOOK-HEX": 10, "BOOK-EDA": 5})

    assert found.lost > 0
    assert found.wrong


def test_the_board_follows_the_attacks(servers: Stack, displayed: Displayed) -> None:
    def stub(session: Session, pedido: Any) -> None:
        raise NotImplementedError

    def wrong(session: Session, pedido: Any) -> None:
        save_order(session, pedido)

    def states() -> list[str]:
        return list(gaps.board(taller._helped)["estado"])

    said = []
    for function in (stub, wrong, coloco_yo):
        displayed(partial(probe, servers, function))
        said.append(states()[0])
    displayed(lambda: taller.usar_solucion(4))

    assert said == ["pendiente", "todavía no", "hecho"]
    assert states() == ["hecho", "pendiente", "con ayuda", "con ayuda", "pendiente", "pendiente"]


def probe(servers: Stack, function: Callable[..., Any]) -> None:
    """What `taller.probar(1, …)` does, on the servers of the tests."""
    result = exercises.examine("05-W1", function, servers=servers)
    exercises._last["05-W1"] = exercises.Checked(function, result)


def test_whose_solution_was_asked_for_is_shown_it(displayed: Displayed) -> None:
    (shown,) = displayed(lambda: taller.usar_solucion(2))

    assert shown["text/markdown"].startswith("**Hueco 2 · con ayuda.** Publicar")
    assert "repetidor.run(parar)" in shown["text/markdown"]


def test_a_gap_takes_its_own_functions() -> None:
    with pytest.raises(ValueError, match="el hueco 5 lleva al_contestar, fila"):
        taller.probar(5, coloco_yo)
    with pytest.raises(ValueError, match="no hay hueco 7"):
        taller.usar_solucion(7)


@pytest.mark.slow
def test_an_own_function_is_assembled_killed_and_handed_over(
    servers: Stack, displayed: Displayed, tmp_path: Path
) -> None:
    probe(servers, coloco_yo)
    made: list[Workshop] = []
    displayed(lambda: made.append(taller.montar(servers=servers)))
    (shop,) = made
    shop.play()
    shop.check()
    report = chaos.run(shop.functions, tmp_path, servers=servers, orders=30, strikes=1)
    displayed(lambda: taller.entregar(shop, report))
    shop.close()

    written = (tmp_path / "entrega/mi_checkout.py").read_text()
    evidence = json.loads((tmp_path / "entrega/evidencia.json").read_text())
    assert "# tu función\ndef coloco_yo(" in written
    assert "colocar = coloco_yo" in written
    assert "def way_of(" in written
    assert written.count("# solución") == 5
    assert [each["estado"] for each in evidence["tablero"]] == ["hecho", *["con ayuda"] * 5]
    assert all(each["cumplida"] for each in evidence["metas"])
    assert evidence["caos"][0]["perdidos"] == 0


def test_the_same_books_hand_over_the_same_files(
    servers: Stack, displayed: Displayed, tmp_path: Path
) -> None:
    def hand_over() -> dict[str, str]:
        made: list[Workshop] = []
        displayed(lambda: made.append(taller.montar(servers=servers)))
        made[0].play()
        report = chaos.Report(0, {}, Count(0, 0, 0, 0, None))
        displayed(lambda: taller.entregar(made[0], report))
        made[0].close()
        files = sorted((tmp_path / "entrega").rglob("*.*"))
        return {path.name: path.read_text() for path in files}

    first = hand_over()

    assert first == hand_over()
    assert len(first) == 10


def test_the_frozen_messages_are_read_by_the_contract(whole: Workshop) -> None:
    whole.play()
    names = handing.write_messages(whole)
    bodies = [(handing.folder() / "mensajes" / name).read_bytes() for name in names]

    read: list[Message[Any]] = [REGISTRY.message(decode_envelope(body)) for body in bodies]

    assert [message.event.event_type for message in read[:6]] == [
        "ReserveStockRequested",
        "StockReserved",
        "ReserveStockRequested",
        "ReserveStockRequested",
        "StockReservationRejected",
        "ReleaseReservationRequested",
    ]
    assert isinstance(read[6].event, StockReserved)
    assert {message.correlation_id for message in read[:6]} == {"RES-1", "RES-2", "RES-3"}


@pytest.mark.slow
def test_fresh_processes_run_the_file(servers: Stack, tmp_path: Path) -> None:
    handing.write_functions(gaps.whole({"colocar": coloco_yo}), ["colocar"])
    whole = Workshop(gaps.whole({}), servers=servers)
    running = [
        start(servers, tmp_path, "labkit", *run_of("service", "fulfillment")),
        start(servers, tmp_path, "labkit", *run_of("inventario", "inventory")),
    ]
    try:
        for order_id in ("ORD-2", "ORD-3", "ORD-4"):
            whole.place(order_id)
        placing = start(servers, tmp_path, "entrega.mi_checkout", "ORD-1", "BOOK-DDD=2")
        said = placing.communicate(timeout=30)[0].decode().splitlines()
        eventually(lambda: is_told(whole), wanted=True)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        codes = [ended(process) for process in running]
        whole.close()

    assert codes == [0, 0]
    assert said[-1] == "ORD-1 · RES-1 · RESERVED · versión 2"


def is_told(whole: Workshop) -> bool:
    return not differences(LEDGER["05"], whole.ficha().books)


def run_of(attribute: str, context: str) -> list[str]:
    where = [f"--database=cuaderno_05_{context}", "--prefix=cuaderno_05:"]
    return ["run", f"entrega.mi_checkout:{attribute}", "--role=all", *where]


def ended(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=30)
    return process.returncode


def start(servers: Stack, place: Path, module: str, *words: str) -> subprocess.Popen[bytes]:
    addresses = {"LABKIT_DATABASE_URL": servers.database_url, "LABKIT_REDIS_URL": servers.redis_url}
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=place,
        env=os.environ | addresses,
        stdout=subprocess.PIPE,
    )
