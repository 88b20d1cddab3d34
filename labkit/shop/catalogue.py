"""Catalogue: an event that has changed its shape twice, and reads all it ever wrote.

| version | payload | what changed |
|---|---|---|
| 1 | `sku`, `name`, `price: "29.95"`, `revision` | |
| 2 | `sku`, `name`, `priceCents: 2995`, `revision` | the price is a number of cents |
| 3 | `sku`, `title`, `priceCents`, `currency`, `revision` | a better name, and a currency |

Handlers know version 3 alone. `FROZEN` holds one message of each version as it was written: old
messages are facts, so these texts never change, and a test reads them all.

Pattern: Young, *Versioning in an Event Sourced System* ("Upcasting"); Hohpe and Woolf: "Message
Translator".
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from labkit.messages import Event, Registry
from labkit.shop.contracts import Id


class ArticleDescribed(Event, frozen=True):
    """What an article is called and costs; `revision` counts its changes from 1."""

    topic: ClassVar[str] = "catalogue.article-described.v3"
    version: ClassVar[int] = 3

    sku: Id
    title: str
    price_cents: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)]
    revision: Annotated[int, Meta(ge=1)]


REGISTRY = Registry(ArticleDescribed)


@REGISTRY.upcaster("ArticleDescribed", 1)
def cents(v1: dict[str, Any]) -> dict[str, Any]:
    """Say the price as a whole number of cents."""
    price = Decimal(v1["price"]) * 100
    if price != int(price):
        raise ValueError(f"{v1['price']} has a part of a cent")
    kept = {name: value for name, value in v1.items() if name != "price"}
    return kept | {"priceCents": int(price)}


@REGISTRY.upcaster("ArticleDescribed", 2)
def title_and_currency(v2: dict[str, Any]) -> dict[str, Any]:
    """Call the name a title; all prices were in euros."""
    kept = {name: value for name, value in v2.items() if name != "name"}
    return kept | {"title": v2["name"], "currency": "EUR"}


FROZEN: Mapping[int, str] = {
    1: '{"messageId":"ART-1:1","headers":{},"event":{"type":"ArticleDescribed","version":1,'
    '"occurredAt":"2024-03-01T09:00:00.000Z","payload":{"sku":"BOOK-DDD",'
    '"name":"Domain-Driven Design","price":"29.95","revision":1}}}',
    2: '{"messageId":"ART-1:2","headers":{},"event":{"type":"ArticleDescribed","version":2,'
    '"occurredAt":"2025-03-01T09:00:00.000Z","payload":{"sku":"BOOK-DDD",'
    '"name":"Domain-Driven Design","priceCents":2995,"revision":1}}}',
    3: '{"messageId":"ART-1:3","headers":{},"event":{"type":"ArticleDescribed","version":3,'
    '"occurredAt":"2026-02-01T09:00:00.000Z","payload":{"sku":"BOOK-DDD",'
    '"title":"Domain-Driven Design","priceCents":2995,"currency":"EUR","revision":1}}}',
}
