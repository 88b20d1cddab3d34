"""What all exercises share: refusals in Spanish, hints, deaths that are real, a real notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from labkit.errors import LabkitError
from labkit.lab import exercises
from labkit.lab.exercises.arrivals import arrivals
from labkit.lab.exercises.steps import label_of
from labkit.lab.servers import Stack


def one_argument(session: Any) -> None:
    raise AssertionError("never called")


async def asynchronous(session: Any, pedido: Any) -> None:
    raise AssertionError("never called")


def misspelt(session: Any, pedido: Any) -> None:
    sesion.execute("select 1")  # type: ignore[name-defined]  # noqa: F821


def sends_bad_sql(session: Any, pedido: Any) -> None:
    session.connection().exec_driver_sql("select * from pedidos")


def breaks_the_commit(session: Any, pedido: Any) -> None:
    session.connection().exec_driver_sql("select 1")
    session.commit = None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (one_argument, "se llama con 2 argumentos: `colocar_pedido(session, pedido)`"),
        (asynchronous, "sin `async`"),
        (None, "no una función"),
        (misspelt, "NameError"),
        (sends_bad_sql, "UndefinedTable"),
        (breaks_the_commit, "TypeError"),
    ],
)
def test_a_function_that_cannot_run_gets_a_sentence_and_no_traceback(
    servers: Stack, answer: Any, said: str
) -> None:
    result = exercises.examine("02-E1", answer, servers=servers)

    assert (result.state, said in result.text) == ("failed", True), result.text
    assert "Traceback" not in result.text


def test_an_exception_is_told_with_the_students_own_line(servers: Stack) -> None:
    result = exercises.examine("02-E1", misspelt, servers=servers)

    line = misspelt.__code__.co_firstlineno + 1
    assert f"línea {line}" in result.text
    assert '`sesion.execute("select 1")' in result.text


@pytest.mark.parametrize("body", ["...", "pass", "raise NotImplementedError", '"""Nada."""'])
def test_a_stub_is_known_whatever_it_looks_like(servers: Stack, body: str) -> None:
    cell: dict[str, Any] = {}
    exec(f"def colocar_pedido(session, pedido):\n    {body}", cell)

    assert exercises.examine("02-E1", cell["colocar_pedido"], servers=servers).state == "pending"


def test_a_word_that_is_always_returned_is_an_answer_and_no_stub() -> None:
    def decidir(fallo: Any) -> Any:
        return "reintentar"

    assert exercises.examine("04-E2", decidir).state == "failed"


def test_arrivals_are_all_the_orders_of_a_message_that_repeats() -> None:
    assert list(arrivals(["a", "b"], again="a", times=2)) == [
        ("a", "a", "b"),
        ("a", "b", "a"),
        ("b", "a", "a"),
    ]


@pytest.mark.parametrize(
    ("statement", "label"),
    [
        ("insert into orders (a) values (1)", "INSERT orders"),
        ("select 1 from stock for update of stock", "SELECT stock"),
        ('with x as (select 1) insert into "outbox_messages" (a)', "INSERT outbox_messages"),
        ("UPDATE stock SET a = 1", "UPDATE stock"),
        ("lock table stock", "LOCK"),
    ],
)
def test_a_step_is_named_by_what_it_does_to_which_table(statement: str, label: str) -> None:
    assert label_of(statement) == label


def test_hints_come_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    exercises.hint("02-E1", 1)
    assert "transacción" in capsys.readouterr().out
    exercises.hint("02-E1", 99)
    assert "tiene" in capsys.readouterr().out


def test_an_unknown_exercise_is_refused_with_the_names() -> None:
    with pytest.raises(LabkitError, match="02-E1, 02-E2"):
        exercises.examine("02-E9", misspelt)


NOTEBOOK = [
    """
from labkit.lab import exercises
from labkit.lab.exercises.pieces import (
    PayloadMismatchError, ReserveStockRequested, digest_of, inbox, outbox, publish, save_order,
    take_stock,
)

def evento_de(pedido):
    return ReserveStockRequested(reservation_id=pedido.reservation_id, lines=pedido.lines)
""",
    """
def colocar_pedido(session, pedido):
    print("dentro")
    save_order(session, pedido)
    outbox.add(session, evento_de(pedido), key=pedido.reservation_id)

def atender(session, mensaje):
    print("dentro")
    noted = {mensaje.message_id: digest_of(mensaje)}
    accepted = inbox.accept(session.connection(), "inventory", noted)
    if accepted.mismatched:
        raise PayloadMismatchError(mensaje.message_id)
    if accepted.fresh:
        take_stock(session, mensaje)
""",
    'exercises.check("02-E1", colocar_pedido)',
    'exercises.check("02-E2", atender)',
    """
def colocar_pedido(session, pedido):
    save_order(session, pedido)
    publish(evento_de(pedido), key=pedido.reservation_id)
exercises.check("02-E1", colocar_pedido)
""",
    'exercises.check("02-E1", print)',
]


def test_a_real_kernel_survives_the_deaths_of_its_functions(
    servers: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABKIT_DATABASE_URL", servers.database_url)
    monkeypatch.setenv("LABKIT_REDIS_URL", servers.redis_url)
    v4: Any = nbformat.v4
    cells = [v4.new_code_cell(source) for source in NOTEBOOK]
    notebook = v4.new_notebook(cells=cells)

    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()

    shown = [
        output.data["text/markdown"]
        for cell in cells
        for output in cell.outputs
        if output.output_type == "display_data"
    ]
    said = [text.partition(".**")[0].removeprefix("**") for text in shown]
    assert said == [
        "02-E1 · Superado",
        "02-E2 · Superado",
        "02-E1 · Todavía no",
        "02-E1 · Todavía no",
    ]
    assert all(output.output_type != "execute_result" for cell in cells for output in cell.outputs)
