"""The envelope on the wire: what a tolerant reader takes, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from labkit.errors import InvalidMessageError
from labkit.wire import Envelope, decode_envelope, read_time, to_cloudevent

EVENT = {"type": "T", "version": 1, "occurredAt": "2026-02-17T16:40:00.000Z", "payload": {"a": 1}}


def raw(**changes: Any) -> bytes:
    return msgspec.json.encode({"messageId": "M-1", "event": EVENT} | changes)


def with_payload(payload: str) -> Envelope:
    event = f'{{"type":"T","version":1,"payload":{payload}}}'
    return decode_envelope(f'{{"messageId":"M-1","event":{event}}}')


@settings(deadline=None)
@given(st.binary() | st.text())
def test_whatever_cannot_be_read_is_an_invalid_message(noise: bytes | str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        decode_envelope(noise)

    assert caught.value.raw == noise


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        "\ud800",
        raw(messageId=None),
        raw(messageId=7),
        raw(messageId=""),
        raw(messageId="x" * 256),
        raw(messageId="a\0b"),
        raw(correlationId="a\0b"),
        raw(correlationId="x" * 256),
        raw(headers={"key": "a\0b"}),
        raw(headers={"key": "x" * 3000}),
        raw(headers=[]),
        raw(event={"type": "T", "version": "1", "payload": {}}),
        raw(event={"type": "T", "version": 1}),
        b'{"messageId":"M-1","extra":' + b"[" * 100_000,
        raw()[:-1],
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_broken_envelope_is_refused(body: bytes | str) -> None:
    with pytest.raises(InvalidMessageError):
        decode_envelope(body)


def test_unknown_fields_are_ignored() -> None:
    body = raw(newInV9=[1], event=EVENT | {"alsoNew": {"deep": None}})

    assert decode_envelope(body).event.type == "T"


@pytest.mark.parametrize("headers", [{}, {"headers": None}, {"headers": {}}])
def test_headers_may_be_missing_null_or_empty(headers: dict[str, Any]) -> None:
    assert decode_envelope(raw(**headers)).headers == {}


def test_a_null_header_is_missing_and_other_values_become_text() -> None:
    headers = {"traceparent": None, "attempt": 0, "flag": True, "list": [1], "text": "as it is"}

    read = decode_envelope(raw(headers=headers)).headers

    assert read == {"attempt": "0", "flag": "true", "list": "[1]", "text": "as it is"}


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"headers": {"key": "K"}, "correlationId": "C"}, "K"),
        ({"headers": {"key": 0}, "correlationId": "C"}, "0"),
        ({"headers": {"key": None}, "correlationId": "C"}, "C"),
        ({"headers": {"key": ""}, "correlationId": "C"}, "C"),
        ({"correlationId": "C"}, "C"),
        ({"correlationId": None}, "M-1"),
        ({"correlationId": ""}, "M-1"),
        ({}, "M-1"),
    ],
)
def test_a_missing_key_is_the_correlation_id_or_else_the_id(
    fields: dict[str, Any], key: str
) -> None:
    assert decode_envelope(raw(**fields)).key == key


def test_the_digest_is_blind_to_key_order_and_white_space() -> None:
    one = with_payload('{"a":{"x":1,"y":[1,2]},"b":2}')
    other = with_payload('{ "b" : 2,\n "a": {"y":[1, 2], "x":1} }')

    assert one.digest() == other.digest()
    assert len(one.digest()) == 32


@pytest.mark.parametrize("payload", ['{"a":2}', '{"a":1,"b":null}', '{"a":"1"}', "[1]", "null"])
def test_the_digest_tells_payloads_apart(payload: str) -> None:
    assert with_payload(payload).digest() != with_payload('{"a":1}').digest()


def test_the_digest_tells_types_and_versions_apart() -> None:
    digests = {
        decode_envelope(raw(event=EVENT | {"type": type_, "version": version})).digest()
        for type_ in ("T", "U")
        for version in (1, 2)
    }

    assert len(digests) == 4


@pytest.mark.parametrize("payload", ['{"a":1e999}', f'{{"a":{"9" * 5000}}}'])
def test_a_payload_that_cannot_be_decoded_has_a_digest_all_the_same(payload: str) -> None:
    assert with_payload(payload).digest() == with_payload(payload).digest()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-02-17T16:40:00.123Z", datetime(2026, 2, 17, 16, 40, 0, 123_000, UTC)),
        ("2026-02-17T18:40:00+02:00", datetime(2026, 2, 17, 16, 40, tzinfo=UTC)),
        ("2026-02-17T16:40:00", datetime(2026, 2, 17, 16, 40, tzinfo=UTC)),
        (None, datetime(1970, 1, 1, tzinfo=UTC)),
        ("", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_utc(text: str | None, moment: datetime) -> None:
    read = read_time(text)

    assert (read, read.utcoffset()) == (moment, timedelta(0))


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none_is_an_invalid_message(text: str) -> None:
    with pytest.raises(InvalidMessageError, match="is no time"):
        read_time(text)


def test_a_message_maps_to_a_cloudevent() -> None:
    headers = {"causationId": "M-0", "traceparent": "00-ab-cd-01", "key": "K"}

    event = to_cloudevent(raw(correlationId="C-1", headers=headers), source="/inventory")

    assert event == {
        "specversion": "1.0",
        "id": "M-1",
        "source": "/inventory",
        "type": "T.v1",
        "subject": "K",
        "time": "2026-02-17T16:40:00.000Z",
        "datacontenttype": "application/json",
        "correlationid": "C-1",
        "causationid": "M-0",
        "traceparent": "00-ab-cd-01",
        "data": {"a": 1},
    }


def test_a_cloudevent_leaves_out_what_the_message_does_not_say() -> None:
    event = to_cloudevent(raw(event={"type": "T", "version": 1, "payload": {}}), source="/x")

    assert not {"time", "causationid", "traceparent"} & event.keys()
    assert event["correlationid"] == event["subject"] == "M-1"


def test_a_payload_that_cannot_be_decoded_makes_no_cloudevent() -> None:
    body = raw().replace(b'{"a":1}', b'{"a":1e999}')

    with pytest.raises(InvalidMessageError):
        to_cloudevent(body, source="/x")
