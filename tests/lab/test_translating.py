"""What notebook 01 measures, where running the notebook alone would not show a fault."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import permutations

import msgspec
import pytest

from labkit.errors import LabkitError
from labkit.lab import (
    arrivals,
    charts,
    charts_heat,
    domain_changes,
    erp_documents,
    identities,
    memory,
    published,
    restarts,
    stateful,
    tolerance,
    trace_context,
)
from labkit.lab.bench import Bench
from labkit.lab.servers import Stack
from labkit.lab.stateful import Answer
from labkit.lab.story_cast import CAST


@pytest.fixture
def bench(servers: Stack) -> Iterator[Bench]:
    made = Bench(f"traduccion_{uuid.uuid4().hex[:8]}", servers=servers)
    yield made
    made.close()
    made.delete()


def test_a_rule_for_each_change_asks_for_what_today_s_rule_asks_for() -> None:
    asked = {domain_changes.translated(change) for change in domain_changes.changes()}

    assert len(asked) == 1
    assert msgspec.json.decode(asked.pop()) == {
        "reservationId": "RES-2",
        "lines": [{"sku": "BOOK-DDD", "qty": 1}, {"sku": "BOOK-EDA", "qty": 1}],
    }


def test_what_breaks_is_what_inventory_cannot_read() -> None:
    whole = b'{"reservationId":"RES-2","lines":[{"sku":"BOOK-DDD","qty":1}]}'

    assert domain_changes.broken_by(whole) == domain_changes.NOBODY
    assert domain_changes.broken_by(whole.replace(b"reservationId", b"bookingId")) == "inventory"


def test_private_fields_are_seen_on_the_lines_as_well() -> None:
    seen = domain_changes.leaked(b'{"reservationId":"R","margin":1,"lines":[{"sku":"A","cost":2}]}')

    assert seen == ["margin", "cost"]


def test_what_is_translated_is_what_placing_an_order_writes(bench: Bench) -> None:
    bench.place("ORD-2", ("BOOK-DDD", 1), ("BOOK-EDA", 1))

    assert published.written(bench) == published.public_of(["ORD-2"])
    assert published.private_and_public(["ORD-2"]) == {"ORD-2": {"privados": 9, "públicos": 1}}


def test_a_tolerant_reader_refuses_only_what_it_needs() -> None:
    found = tolerance.readings()

    assert {
        name for name, said in found["lector tolerante"].items() if said == tolerance.REFUSES
    } == {tolerance.NEEDED}
    assert found["lector exacto"]["como siempre"] == tolerance.READS
    assert tolerance.reading(found) == (
        "«lector exacto» rechaza 3 de 4: «sobra un campo», «falta uno opcional», «falta uno "
        "obligatorio»; «lector tolerante» rechaza 1 de 4: «falta uno obligatorio»."
    )


def test_the_erp_s_words_are_known_in_one_place_and_looked_for_everywhere() -> None:
    assert erp_documents.who_knows("ART_NR") == ["shop.erp"]
    assert len(erp_documents.who_knows("reservation_id")) > 3
    assert erp_documents.deciders("MENGE") == ["_quantity"]
    assert erp_documents.deciders("SACHBEARB") == []


def test_a_quantity_that_the_erp_may_write_is_not_refused() -> None:
    assert erp_documents.refusal("2,000")["motivo"].tolist() == [None]
    assert erp_documents.refusal("2,500")["campo"].tolist() == ["POSITIONEN[0].MENGE"]


@pytest.mark.parametrize(
    ("identity", "applied", "status"),
    [
        (identities.by_conversation, [True, False], "PARTIALLY_RESERVED"),
        (identities.by_message, [True, True], "RESERVED"),
    ],
)
def test_the_id_that_is_noted_decides_what_is_applied(
    bench: Bench, identity: identities.Identity, applied: list[bool], status: str
) -> None:
    found = identities.consume(bench, "ORD-2", identity)

    assert (found.applied, found.status) == (applied, status)
    assert {answer.correlation_id for answer in found.answers} == {"RES-2"}


def test_a_counter_is_wrong_where_the_rejection_comes_last_and_the_correlator_nowhere(
    bench: Bench,
) -> None:
    counted, correlated = arrivals.counted(), arrivals.correlated(bench.orders)

    assert set(counted) == set(correlated) == set(permutations(arrivals.ANSWERS))
    assert set(arrivals.wrong(counted)) == {each for each in counted if each[-1] == "C"}
    assert arrivals.wrong(correlated) == []


def test_a_reading_says_nothing_of_arrivals_that_have_nothing_in_common() -> None:
    ends: arrivals.Statuses = {("A", "C"): "RESERVED", ("C", "A"): "RESERVED"}

    assert arrivals.reading({"ninguno": ends}) == "«ninguno» se equivoca en 2 de 2."


def test_killed_after_the_first_answer_a_dictionary_forgets_it_and_a_table_does_not(
    bench: Bench,
) -> None:
    ended = restarts.survive(bench)
    known = restarts.table(bench)

    assert ended == [
        "diccionario, primero · muerto en after_answer",
        "diccionario, segundo · terminó",
        "tabla, primero · muerto en after_answer",
        "tabla, segundo · terminó",
    ]
    assert known["diccionario"].tolist() == ["1", "0", "1", "PARTIALLY_RESERVED"]
    assert known["tabla"].tolist() == ["1", "1", "2", "RESERVED"]


def test_a_process_that_does_not_die_as_announced_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "POINT", "memory.misspelt")

    with pytest.raises(LabkitError, match="primero: the process ended with 0"):
        restarts.survive(bench)


def test_a_heat_map_needs_a_result_for_each_case() -> None:
    with pytest.raises(ValueError, match="un resultado por caso, y los casos son 2"):
        charts_heat.heat_map({"uno": [True]}, ["AB", "BA"], title="t", head="llegada")


def test_a_heat_map_can_be_read_from_the_back() -> None:
    figure = arrivals.heat_map({"contador": arrivals.counted()}, title="Las 24 llegadas")

    assert charts.bundle(figure, "lectura")["text/plain"] == "lectura"


def test_a_question_has_one_result_whether_all_answer_or_time_is_up(bench: Bench) -> None:
    clock = stateful.prepared(bench)
    late = [Answer("A", 2), Answer("B", 3, after_s=59.0), Answer("C", 4, after_s=1.0)]
    rows = stateful.collect(bench.orders, clock, "BOOK-HEX", late)

    assert [row["resultado"] for row in rows] == [None, None, "5 unidades", None]
    assert rows[2]["almacenes"] == "AB"


def test_numbered_messages_leave_in_order_and_a_gap_is_named(bench: Bench) -> None:
    clock = stateful.prepared(bench)
    seen = stateful.put_in_order(bench.orders, clock, [1, 3, 4])

    assert seen["sale"].fillna("–").tolist() == ["m1", "–", "–", "m3, m4"]
    assert seen["qué pasa"].tolist()[-1] == "se da por perdido m2"


def test_a_copy_knows_what_it_learned_and_names_what_it_does_not(bench: Bench) -> None:
    stateful.prepared(bench)
    news = stateful.learned(bench.orders, [3, 1])
    lines, missing = stateful.enriched(bench.orders, [{"sku": "BOOK-DDD"}, {"sku": "BOOK-HEX"}])

    assert (news, missing) == ([True, False], ["BOOK-HEX"])
    assert lines["priceCents"].tolist()[0] == 2995


def test_every_message_of_a_journey_carries_the_trace_of_the_first(bench: Bench) -> None:
    seen = trace_context.followed(bench)

    assert seen["tipo"].value_counts().to_dict() == {
        "StockReserved": 2,
        "OrderStatusChanged": 2,
        "ReserveStockRequested": 1,
    }
    assert seen["misma traza"].all()


def test_the_processes_know_the_lines_of_the_order_that_is_placed() -> None:
    assert tuple(sku for sku, _ in CAST[memory.ORDER].lines) == memory.LINES
