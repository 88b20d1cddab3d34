"""The ERP's documents: our words come out, or a refusal that names field and reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from labkit.errors import PermanentError
from labkit.messages import encode
from labkit.shop.contracts import Line, ReserveStockRequested
from labkit.shop.erp import CustomerOrder, ErpDocumentError, OrderedLine, order_of, request_of
from labkit.translation import Translator
from tests.unit.test_messages import NOON

POSITION = {"POS": "000010", "ART_NR": "000000000100", "MENGE": "2,000", "PREIS_CT": "0002995"}
DOCUMENT: dict[str, Any] = {
    "MANDT": "100",
    "BELEGART": "TA",
    "BELEGNR": "0000004711",
    "WAEHRUNG": "EUR",
    "ERFASSER": "R07",
    "MARGE": "0,31",
    "POSITIONEN": [
        POSITION | {"LAGERORT": "R07"},
        POSITION | {"ART_NR": "200", "MENGE": "1", "PREIS_CT": "1000"},
        POSITION | {"MENGE": "3,0"},
    ],
}


def changed(**fields: Any) -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT) | fields


def with_position(**fields: Any) -> dict[str, Any]:
    return changed(POSITIONEN=[POSITION, POSITION | fields])


def test_a_document_becomes_an_order_in_our_words_with_each_article_once() -> None:
    assert order_of(DOCUMENT) == CustomerOrder(
        "ORD-4711", (OrderedLine("BOOK-DDD", 5, 14_975), OrderedLine("BOOK-HEX", 1, 1000))
    )


def test_inventory_is_asked_for_articles_and_quantities_alone() -> None:
    order = order_of(DOCUMENT)
    assert order is not None

    assert request_of(order) == ReserveStockRequested(
        reservation_id="RES-4711", lines=(Line("BOOK-DDD", 5), Line("BOOK-HEX", 1))
    )


def test_a_field_that_we_do_not_need_may_change_or_go() -> None:
    other = changed(MANDT=None, MARGE={"new": "shape"}, NEU="?")
    del other["ERFASSER"]

    assert order_of(other) == order_of(DOCUMENT)


def test_a_document_of_another_kind_is_not_our_business() -> None:
    assert order_of(changed(BELEGART="AN", POSITIONEN="whatever")) is None


@pytest.mark.parametrize(
    ("document", "field", "reason"),
    [
        (None, "document", "None is no record"),
        ([DOCUMENT], "document", "is no record"),
        ({}, "BELEGART", "is missing"),
        (changed(BELEGNR=4711), "BELEGNR", "4711 is no text"),
        (changed(BELEGNR="47-11"), "BELEGNR", "'47-11' is not made of digits"),
        (changed(WAEHRUNG="DEM"), "WAEHRUNG", "'DEM' is not EUR"),
        (changed(POSITIONEN=None), "POSITIONEN", "one position or more"),
        (changed(POSITIONEN=[]), "POSITIONEN", "one position or more"),
        (changed(POSITIONEN=["x"]), "POSITIONEN[0]", "'x' is no record"),
        (with_position(ART_NR="0999"), "POSITIONEN[1].ART_NR", "999 is no article of ours"),
        (with_position(ART_NR=""), "POSITIONEN[1].ART_NR", "'' is not made of digits"),
        (with_position(MENGE="2,500"), "POSITIONEN[1].MENGE", "'2,500' is no whole number"),
        (with_position(MENGE="1.000"), "POSITIONEN[1].MENGE", "'1.000' is no whole number"),
        (with_position(MENGE="0,000"), "POSITIONEN[1].MENGE", "'0,000' is no whole number"),
        (with_position(MENGE="-2"), "POSITIONEN[1].MENGE", "'-2' is no whole number"),
        (with_position(MENGE=2), "POSITIONEN[1].MENGE", "2 is no text"),
        (with_position(MENGE="1000000"), "POSITIONEN", "more than 1000000 of BOOK-DDD"),
        (with_position(PREIS_CT="29,95"), "POSITIONEN[1].PREIS_CT", "is not made of digits"),
        (with_position(PREIS_CT="٢٩"), "POSITIONEN[1].PREIS_CT", "is not made of digits"),
        (with_position(PREIS_CT=None), "POSITIONEN[1].PREIS_CT", "is missing"),
    ],
)
def test_what_cannot_be_an_order_is_refused_by_field_and_reason(
    document: Any, field: str, reason: str
) -> None:
    with pytest.raises(PermanentError) as refused:
        order_of(document)

    assert isinstance(refused.value, ErpDocumentError)
    assert refused.value.field == field
    assert reason in refused.value.reason
    assert str(refused.value) == f"{field}: {refused.value.reason}"


texts = st.none() | st.integers() | st.text() | st.sampled_from(["TA", "EUR", "100", "1,000"])
records = st.dictionaries(
    st.sampled_from(["BELEGART", "BELEGNR", "WAEHRUNG", "POSITIONEN", "ART_NR", "MENGE"]), texts
)
numbers = st.from_regex(r"0{0,3}[1-3]00", fullmatch=True) | texts
positions = st.fixed_dictionaries(
    {
        "ART_NR": numbers,
        "MENGE": st.integers(-1, 10**7).map(lambda n: f"{n},000") | texts,
        "PREIS_CT": st.integers(0, 10**9).map(str) | texts,
    }
)
documents = st.fixed_dictionaries(
    {"BELEGART": st.just("TA"), "WAEHRUNG": st.just("EUR"), "BELEGNR": numbers},
    optional={"POSITIONEN": st.lists(positions | records, max_size=4)},
)


@settings(max_examples=200, deadline=None)
@given(documents | records)
def test_any_record_is_an_order_that_can_be_sent_or_is_refused(document: dict[str, Any]) -> None:
    try:
        order = order_of(document)
    except ErpDocumentError:
        return

    if order is not None:
        encode(request_of(order), message_id="M", correlation_id="C", occurred_at=NOON, headers={})


def test_a_translator_lets_orders_out_and_passes_the_refusal_on() -> None:
    translator = Translator("erp")

    @translator.on(dict)
    def ask_for_stock(document: dict[str, Any]) -> ReserveStockRequested | None:
        order = order_of(document)
        return request_of(order) if order else None

    public = translator.translate_all([DOCUMENT, changed(BELEGART="AN")])

    assert [event.topic for event in public] == ["fulfillment.reserve-stock-requested.v1"]
    with pytest.raises(ErpDocumentError, match="WAEHRUNG"):
        translator.translate(changed(WAEHRUNG="USD"))
