"""The agreements: kept by what the shop writes, broken by what only looks alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from labkit.lab import agreements, story
from labkit.lab.servers import Stack
from labkit.shop import frozen
from labkit.shop.contracts import REGISTRY, OrderStatusChanged
from labkit.wire import decode_envelope

Spoil = Callable[[dict[str, Any]], object]


def test_the_frozen_messages_are_what_the_services_write(running: Stack) -> None:
    shop = story.close("01", name="congelados", servers=running)
    shop.settle()
    written = {}
    for engine in (shop.orders, shop.stock):
        with engine.connect() as connection:
            for body in connection.execute(text("select body from outbox_messages")).scalars():
                message = json.loads(body)
                written[message["messageId"]] = message
    shop.close()

    public = {
        name: message
        for name, message in written.items()
        if message["event"]["type"] != OrderStatusChanged.event_type
    }
    assert {name: json.loads(body) for name, body in frozen.ours().items()} == public


def test_the_frozen_messages_keep_every_agreement() -> None:
    assert agreements.broken(frozen.ours()) == {said: [] for said in agreements.AGREEMENTS}
    assert len(agreements.AGREEMENTS) == 8


def test_messages_of_other_teams_can_be_read() -> None:
    bodies = frozen.foreign()

    assert len(bodies) == 2
    for body in bodies.values():
        assert REGISTRY.message(decode_envelope(body)).correlation_id.startswith("RES-")


@pytest.mark.parametrize(
    ("said", "spoil"),
    [
        ("nombre y versión", lambda m: m["event"].update(version=9)),
        ("sobre:", lambda m: m.update(timestamp="ahora")),
        ("correlationId", lambda m: m.update(correlationId="ORD-3")),
        ("occurredAt", lambda m: m["event"].update(occurredAt="2026-02-17T16:00:00.000+00:00")),
        ("motivos", lambda m: m["event"]["payload"].update(reason="no queda")),
        ("un messageId", lambda m: m.update(messageId="inventory-2")),
        ("una respuesta", lambda m: m["event"]["payload"].update(sku="BOOK-HEX")),
        ("traduce", lambda m: m["event"]["payload"].update(internalMargin=3)),
    ],
)
def test_each_agreement_names_the_message_that_breaks_it(said: str, spoil: Spoil) -> None:
    messages = frozen.ours()
    spoilt = json.loads(messages["inventory-1"])  # RES-3, rejected
    spoil(spoilt)
    found = agreements.broken(messages | {"inventory-1": json.dumps(spoilt).encode()})

    assert [row for row, names in found.items() if names and row.startswith(said)]
    assert all(names in ([], ["inventory-1"], ["inventory-1", "inventory-2"])
               for names in found.values())  # fmt: skip
    assert sum(map(bool, found.values())) == 1


def test_what_looks_alike_is_refused_row_by_row() -> None:
    rows = agreements.table({"parecidos": agreements.lookalikes()})

    kept = rows["parecidos"] == agreements.KEPT
    assert rows["acuerdo"][kept].tolist() == ["una respuesta por línea"]
