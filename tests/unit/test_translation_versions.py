"""Old messages are facts: each version that was ever written is still read."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given, strategies as st

from labkit.errors import InvalidMessageError, UnknownEventError
from labkit.shop.catalogue import FROZEN, REGISTRY, ArticleDescribed, cents
from labkit.wire import decode_envelope

NEWEST = ArticleDescribed(
    sku="BOOK-DDD", title="Domain-Driven Design", price_cents=2995, currency="EUR", revision=1
)


@pytest.mark.parametrize("version", FROZEN)
def test_a_message_of_every_version_is_read_as_the_newest(version: int) -> None:
    envelope = decode_envelope(FROZEN[version])

    assert envelope.event.version == version
    assert REGISTRY.decode(envelope) == NEWEST


def test_there_is_a_frozen_message_of_every_version() -> None:
    assert sorted(FROZEN) == list(range(1, ArticleDescribed.version + 1))


def test_the_frozen_messages_are_what_was_written() -> None:
    digests = {
        version: hashlib.sha256(text.encode()).hexdigest()[:16] for version, text in FROZEN.items()
    }

    assert digests == {1: "8f485e44a212e012", 2: "d2af47fdad5f1e52", 3: "c635586d90123f63"}


@pytest.mark.parametrize("version", FROZEN)
def test_a_field_that_nobody_knows_changes_nothing(version: int) -> None:
    message = msgspec.json.decode(FROZEN[version])
    message["event"]["payload"]["publisher"] = "unknown here"

    assert REGISTRY.decode(decode_envelope(msgspec.json.encode(message))) == NEWEST


def test_a_version_from_the_future_is_told_and_not_guessed() -> None:
    future = FROZEN[3].replace('"version":3', '"version":4')

    with pytest.raises(UnknownEventError, match="ArticleDescribed v4"):
        REGISTRY.decode(decode_envelope(future))


def test_an_old_message_that_was_never_right_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match=r"upcaster from v1 .* part of a cent"):
        REGISTRY.decode(decode_envelope(FROZEN[1].replace("29.95", "29.955")))


@given(st.integers(0, 10**9))
def test_no_cent_is_lost_on_the_way_from_version_1_and_the_old_payload_stays(price: int) -> None:
    old = {"sku": "BOOK-DDD", "price": f"{price // 100}.{price % 100:02}"}
    before = dict(old)

    assert cents(old) == {"sku": "BOOK-DDD", "priceCents": price}
    assert old == before
