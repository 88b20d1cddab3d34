"""The whole journey: two services, two databases, one stream each, and the view that follows."""

from __future__ import annotations

from sqlalchemy import text

from labkit.lab.bench import STOCK
from labkit.shop import fulfillment, inventory
from labkit.testing.audit import audit
from tests.integration.conftest import Shop


def test_orders_travel_to_inventory_and_their_results_back_into_the_view(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.place("ORD-2", ("BOOK-DDD", 1), ("BOOK-EDA", 1))
    shop.place("ORD-3", ("BOOK-HEX", 1), ("BOOK-EDA", 9))

    shop.settle()

    assert [shop.seen(f"ORD-{n}") for n in (1, 2, 3)] == [
        ("RESERVED", 2),
        ("RESERVED", 3),
        ("REJECTED", 2),
    ]
    assert [shop.books(sku) for sku in STOCK] == [(22, 3), (9, 1), (4, 1)]


def test_every_invariant_holds_after_the_journey(shop: Shop) -> None:
    for number in range(1, 8):
        shop.place(f"ORD-{number}", ("BOOK-HEX", 2), ("BOOK-DDD", 1))
    shop.settle()

    found = audit(shop.orders, shop.stock, shop.transport, STOCK)

    assert {name for name, why in found.items() if why} == set()


def test_between_two_settles_every_partition_is_free_for_others(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.settle()
    owned = "select count(*) as n from lease where owner is not null"

    assert [shop.table(engine, owned).n[0] for engine in (shop.orders, shop.stock)] == [0, 0]

    shop.place("ORD-2", ("BOOK-DDD", 1))
    shop.settle()
    assert shop.seen("ORD-2") == ("RESERVED", 2)


def test_what_is_sent_to_a_service_that_is_away_waits_for_it(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))

    done = shop.settle(without=inventory.service)

    assert (list(done.published), shop.books("BOOK-DDD")) == ([1, 0, 0], (25, 0))
    shop.settle()
    assert shop.books("BOOK-DDD") == (23, 2)


def test_without_fulfillment_nothing_is_sent(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))

    done = shop.settle(without=fulfillment.service)

    assert done.to_numpy().sum() == 0


def test_a_cancelled_order_gives_its_stock_back(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.settle()

    shop.cancel("ORD-1")
    shop.settle()

    assert (shop.books("BOOK-DDD"), shop.seen("ORD-1")) == ((25, 0), ("CANCELLED", 3))


def test_an_order_cancelled_before_inventory_heard_of_it_holds_nothing(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.cancel("ORD-1")

    shop.settle()

    assert (shop.books("BOOK-DDD"), shop.status("ORD-1")) == ((25, 0), "CANCELLED")


def test_the_view_answers_by_order_by_status_and_in_numbers(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.place("ORD-2", ("BOOK-EDA", 9))
    shop.settle()

    with shop.orders.connect() as connection:
        view = fulfillment.view
        assert view.count_by_status(connection) == {"RESERVED": 1, "REJECTED": 1}
        assert [row.order_id for row in view.with_status(connection, "REJECTED")] == ["ORD-2"]
        assert view.of_order(connection, "ORD-9") is None


def test_an_older_change_does_not_overwrite_a_newer_row_of_the_view(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.settle()
    with shop.orders.begin() as connection:
        connection.execute(text("update order_status_view set version = 9, status = 'NEWER'"))
        connection.execute(text("delete from inbox_messages where consumer = 'order_status_view'"))
        connection.execute(text("update outbox_messages set published_at = null"))

    shop.settle()

    assert shop.seen("ORD-1") == ("NEWER", 9)


def test_without_its_inbox_rows_a_handler_runs_again(shop: Shop) -> None:
    shop.place("ORD-1", ("BOOK-DDD", 2))
    shop.settle()
    for engine in (shop.orders, shop.stock):
        with engine.begin() as connection:
            connection.execute(text("update outbox_messages set published_at = null"))
            connection.execute(text("delete from inbox_messages"))

    work = shop.settle()

    assert (work.handled.sum() > 0, shop.books("BOOK-DDD")) == (True, (23, 2))


def test_neither_database_has_a_table_of_the_other(shop: Shop) -> None:
    names = []
    for engine in (shop.orders, shop.stock):
        with engine.connect() as connection:
            query = "select tablename from pg_tables where schemaname = 'public'"
            names.append(set(connection.execute(text(query)).scalars()))

    own = {"labkit_schema", "outbox_messages", "inbox_messages", "held", "lease", "member"}
    own |= {"reader", "discarded"}
    assert names[0] & names[1] == own
