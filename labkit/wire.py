"""The wire contract: the envelope's JSON, its payload untouched.

    {"messageId": "0198…", "correlationId": "RES-1", "headers": {"causationId": "…"},
     "event": {"type": "StockReserved", "version": 1, "occurredAt": "2026-02-17T16:40:00.000Z",
               "payload": {"reservationId": "RES-1", "sku": "BOOK-DDD", "qty": 2}}}

| header | what it says |
|---|---|
| `causationId` | the message that was being handled when this one was stored |
| `key` | the ordering key, when it is not the correlation id |
| `requestId` | the request that this message is, or answers; stable over its attempts, carried on |
| `deadline` | the moment after which nobody waits for the answer: ISO-8601, UTC, `Z` |
| `traceparent` | W3C trace context |

Guarantee: readers are tolerant. Unknown fields are ignored, correlation, headers and time may be
missing or null, and any string of 1 to 255 characters without NUL is an id. What cannot be read
is an `InvalidMessageError`, whatever is wrong with it.
Not guaranteed: that the payload can be read; `labkit.messages.Registry` decides that by type.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Envelope Wrapper", "Canonical Data
Model"; CloudEvents 1.0 for the mapping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from labkit.errors import InvalidEventError, InvalidMessageError

MAX_ID_CHARS = 255
REQUEST_ID = "requestId"  # the header, see above
DEADLINE = "deadline"  # likewise
_MAX_INT = 2**31 - 1
ID_RULE = f"1 to {MAX_ID_CHARS} characters without NUL"
# What msgspec raises over bytes from a stranger; nesting without end is a RecursionError.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="sorted")


class WireEvent(msgspec.Struct, kw_only=True, rename="camel"):
    """The event as it travels: its payload is not decoded yet."""

    type: str
    version: int
    occurred_at: str | None = None
    payload: msgspec.Raw


class Envelope(msgspec.Struct, kw_only=True, rename="camel"):
    """The envelope as it travels; once read, its headers are text and never None."""

    message_id: str
    correlation_id: str | None = None
    headers: dict[str, Any] | None = None
    event: WireEvent

    @property
    def key(self) -> str:
        """Return the ordering key: `headers.key`, else the correlation id, else the id."""
        return (self.headers or {}).get("key") or self.correlation_id or self.message_id

    def digest(self) -> bytes:
        """Return the SHA-256 of type, version and payload: 32 bytes, blind to key order."""
        try:
            payload = _sorted_encoder.encode(msgspec.json.decode(self.event.payload))
        except UNREADABLE:  # such as 1e999: it stands for itself
            payload = bytes(self.event.payload)
        head = f"{self.event.type}\n{self.event.version}\n".encode()
        return hashlib.sha256(head + payload).digest()


_decoder = msgspec.json.Decoder(Envelope)


def is_id(text: Any) -> bool:
    """Say whether this can be an id or a key: see `ID_RULE`."""
    return isinstance(text, str) and 0 < len(text) <= MAX_ID_CHARS and "\0" not in text


def is_version(number: Any) -> bool:
    """Say whether this can be a version: a whole number from 1."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _MAX_INT


def is_headers(headers: Any) -> bool:
    """Say whether these can be headers: a mapping of texts to texts."""
    return isinstance(headers, Mapping) and all(
        isinstance(text, str) for header in headers.items() for text in header
    )


def encode_envelope(envelope: Envelope) -> bytes:
    """Write an envelope as JSON."""
    return _encoder.encode(envelope)


def decode_envelope(raw: bytes | str) -> Envelope:
    """Read a message up to its payload, tolerantly.

    Raises:
        InvalidMessageError: when it is no such JSON, or an id is not 1 to 255 characters.
    """
    try:
        envelope = _decoder.decode(raw)
        envelope.headers = {
            name: value if isinstance(value, str) else _encoder.encode(value).decode()
            for name, value in (envelope.headers or {}).items()
            if value is not None
        }
    except (*UNREADABLE, TypeError) as error:
        raise InvalidMessageError(f"not a message of the wire contract: {error}", raw) from error
    for text in (envelope.message_id, envelope.correlation_id or "-", envelope.key):
        if not is_id(text):
            raise InvalidMessageError(f"ids and keys must be {ID_RULE}, not {text!r}", raw)
    return envelope


def wire_time(moment: datetime) -> str:
    """Write a time as the contract wants it: ISO-8601, UTC, milliseconds, `Z`.

    Raises:
        InvalidEventError: when the time has no zone; nobody could tell which hour it means.
    """
    if getattr(moment, "tzinfo", None) is None:
        raise InvalidEventError(
            f"{moment!s:.40} is a {type(moment).__name__} and has no time zone: "
            "use datetime.now(UTC) or a Clock"
        )
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str | None) -> datetime:
    """Read a time in any ISO-8601 form; a missing one is 1970, one without zone is UTC.

    Raises:
        InvalidMessageError: when it is no time.
    """
    try:
        moment = datetime.fromisoformat(text or "1970-01-01")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidMessageError(f"occurredAt {text!r} is no time", text) from error


def to_cloudevent(raw: bytes | str, *, source: str) -> dict[str, Any]:
    """Write a message as a CloudEvent 1.0 in structured JSON mode.

    Args:
        source: the URI reference of the producer, such as `/fulfillment`.

    Raises:
        InvalidMessageError: when the message or its payload cannot be read.
    """
    envelope = decode_envelope(raw)
    try:
        data = msgspec.json.decode(envelope.event.payload)
    except UNREADABLE as error:
        raise InvalidMessageError(str(error), raw) from error
    headers = envelope.headers or {}
    optional = {
        "time": envelope.event.occurred_at,
        "causationid": headers.get("causationId"),
        "traceparent": headers.get("traceparent"),
    }
    return {
        "specversion": "1.0",
        "id": envelope.message_id,
        "source": source,
        "type": f"{envelope.event.type}.v{envelope.event.version}",
        "subject": envelope.key,
        "datacontenttype": "application/json",
        "correlationid": envelope.correlation_id or envelope.message_id,
        **{name: value for name, value in optional.items() if value},
        "data": data,
    }
