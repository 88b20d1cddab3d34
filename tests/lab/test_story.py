"""The story: each notebook begins where the one before ends, and both are what is written down."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import text

from labkit.errors import ConfigurationError
from labkit.lab import pr_de_ayer, story, story_books
from labkit.lab.servers import Stack
from labkit.lab.story import OffScriptError
from labkit.lab.story_cast import CAST, LEDGER, OPENING, QUESTIONS
from labkit.testing.audit import audit

NOTEBOOKS = ("01", "02", "03", "04", "05")


@pytest.mark.parametrize("row", LEDGER)
def test_the_ledger_balances(row: str) -> None:
    books = LEDGER[row]
    for sku, opening in OPENING.items():
        available, held = books.stock[sku]
        assert available + held == opening
        assert held == sum(of.get(sku, 0) for of in books.holders.values())
    assert books.orders.keys() <= CAST.keys()


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_ends_as_the_ledger_says(running: Stack, notebook: str) -> None:
    closed = story.close(notebook, servers=running)

    assert closed.check().books == LEDGER[notebook]
    assert QUESTIONS[notebook] in repr(closed)
    closed.close()


@pytest.mark.parametrize(("notebook", "following"), [("01", "02"), ("02", "03"), ("03", "04")])
def test_a_notebook_begins_where_the_one_before_ends(
    running: Stack, notebook: str, following: str
) -> None:
    closed = story.close(notebook, name="hasta_aqui", servers=running)
    opened = story.open(following, servers=running)

    assert story_books.read(opened) == story_books.read(closed) == LEDGER[notebook]
    assert opened.ficha().lines == closed.ficha().lines
    assert opened.ficha().question == closed.ficha().question
    for each in (closed, opened):
        each.close()


@pytest.mark.parametrize("notebook", ["01", "05"])
def test_the_first_and_the_last_begin_with_the_opening_stock(running: Stack, notebook: str) -> None:
    opened = story.open(notebook, servers=running)

    assert story_books.read(opened) == LEDGER["00"]
    opened.close()


@pytest.mark.parametrize("notebook", ["02", "03", "04"])
def test_every_invariant_of_the_shop_holds_at_the_end(running: Stack, notebook: str) -> None:
    closed = story.close(notebook, servers=running)
    closed.settle()

    found = audit(closed.orders, closed.stock, closed.transport, OPENING)
    closed.close()

    assert {name: why for name, why in found.items() if why} == {}


def test_a_story_opened_again_is_the_same_to_the_last_id(running: Stack) -> None:
    seen = []
    for _ in range(2):
        historia = story.close("02", servers=running)
        tables = [
            historia.table(engine, "select seq, message_id, body from outbox_messages order by 1")
            for engine in (historia.orders, historia.stock)
        ]
        seen.append((repr(historia), historia._repr_markdown_(), [t.to_json() for t in tables]))
        historia.close()

    assert seen[0] == seen[1]
    assert "2026-02-17T16:00:00.000Z" in seen[0][2][0]
    assert "fulfillment-1" in seen[0][2][0]


def test_two_stories_under_two_names_do_not_meet(running: Stack) -> None:
    one = story.open("02", servers=running)
    other = story.open("02", name="otra_02", servers=running)

    one.settle()

    assert one.ficha().books.orders["ORD-1"] == "RESERVED"
    assert story_books.read(other) == LEDGER["01"]
    for each in (one, other):
        each.close()


def test_a_later_notebook_may_be_opened_before_an_earlier_one(running: Stack) -> None:
    later = story.open("03", servers=running)
    earlier = story.open("02", servers=running)

    assert (story_books.read(later), story_books.read(earlier)) == (LEDGER["02"], LEDGER["01"])
    for each in (later, earlier):
        each.close()


def test_what_differs_is_named_in_spanish(running: Stack) -> None:
    historia = story.close("02", servers=running)
    with historia.orders.begin() as connection:
        connection.execute(text("update orders set status = 'RESERVED' where order_id = 'ORD-3'"))
    with historia.stock.begin() as connection:
        connection.execute(text("update stock set available = 8, held = 2 where sku = 'BOOK-HEX'"))
    historia.place("ORD-6")

    with pytest.raises(OffScriptError) as raised:
        historia.check("02")
    historia.close()

    said = str(raised.value)
    assert "tras el cuaderno 02" in said
    assert "el pedido ORD-3: debería ser REJECTED y es RESERVED" in said
    assert "el pedido ORD-6: debería ser nada y es RESERVATION_PENDING" in said
    assert "de BOOK-HEX: debería ser (7, 3) y es (8, 2)" in said
    assert "sin publicar: debería decir nada y dice RES-6" in said


def test_the_card_shows_what_waits_and_what_is_open(running: Stack) -> None:
    historia = story.open("02", servers=running)
    before = historia.ficha()
    historia.close()

    assert (
        "| ORD-2 | 1 × BOOK-DDD, 1 × BOOK-EDA | RESERVATION_PENDING |" in before._repr_markdown_()
    )
    assert "| sin publicar | 3 | RES-1, RES-2, RES-3 |" in before._repr_markdown_()
    assert "están escritos, ¿quién los envía?" in repr(before)


def test_notebook_02_reaches_its_end_with_a_process_that_is_really_killed(running: Stack) -> None:
    historia = story.open("02", servers=running)
    between = "pr.between_save_and_publish:kill:@1"
    lines = CAST["ORD-4"].lines

    died = historia.apart(historia.orders, pr_de_ayer.place_order, "ORD-4", lines, faults=between)
    historia.settle()
    assert (died, historia.without_event()) == (-signal.SIGKILL, ["ORD-4"])
    with pytest.raises(OffScriptError, match="pedido ORD-4: debería ser RESERVED y es RESERV"):
        historia.check()

    assert historia.recover() == ["ORD-4"]
    historia.settle()
    historia.check()
    historia.close()


def test_while_inventory_is_away_the_request_waits_for_it(running: Stack) -> None:
    historia = story.close("03", servers=running)

    card = historia.ficha()
    historia.close()

    assert card.books.unhandled == ("RES-17",)
    assert "| publicados, sin atender | 1 | RES-17 |" in card._repr_markdown_()


def test_a_poisoned_message_is_a_dead_letter_until_it_is_corrected(running: Stack) -> None:
    historia = story.open("04", servers=running)
    historia.place("ORD-18")
    historia.poison("ORD-18")
    historia.settle()
    assert historia.ficha().books.dead == ("RES-18",)

    assert historia.cure() == 1
    historia.settle()
    historia.check("04")
    historia.close()


def test_there_is_no_story_of_another_notebook(running: Stack) -> None:
    with pytest.raises(ConfigurationError, match="no tiene un cuaderno '07'"):
        story.open("07", servers=running)
