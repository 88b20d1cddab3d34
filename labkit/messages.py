"""Events, their envelope and its JSON: the words that two services share.

An *event* is a fact, one class per type and version. A *message* is the event inside its
envelope: ids, headers, time. On the wire:

    {"messageId": "0198…", "correlationId": "RES-1", "headers": {"causationId": "…"},
     "event": {"type": "StockReserved", "version": 1, "occurredAt": "2026-02-17T16:40:00.000Z",
               "payload": {"reservationId": "RES-1", "sku": "BOOK-DDD", "qty": 2}}}

Guarantee: writers are strict (what we send decodes to an equal event, or it is refused before
it is stored), readers are tolerant (unknown fields are ignored, headers may be missing, any
string up to 255 characters is an id).
Not guaranteed: that a payload makes business sense; that is the receiver's to decide.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Message", "Envelope Wrapper",
"Canonical Data Model"; CloudEvents 1.0 for the mapping.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from labkit.errors import InvalidEventError, InvalidMessageError, UnknownEventError

MAX_ID_CHARS = 255
MAX_MESSAGE_BYTES = 262_144
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="sorted")


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A fact that other contexts may rely on. Subclass it; the fields are the payload.

    Class attributes: `topic` is the routing key, `version` counts the shape (a field that
    changes meaning needs a new one), `event_type` is the name on the wire (the class name
    unless set, so that a class can be renamed and old messages still decode).
    """

    topic: ClassVar[str] = ""
    event_type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init_subclass__(cls, **config: Any) -> None:
        """Name the type after the class, unless the class names it."""
        super().__init_subclass__(**config)
        if "event_type" not in cls.__dict__:
            cls.event_type = cls.__name__


EventT = TypeVar("EventT", bound=Event)
EventT_co = TypeVar("EventT_co", bound=Event, covariant=True)


class Message(msgspec.Struct, Generic[EventT_co], frozen=True, kw_only=True):
    """An event in its envelope, as a handler receives it.

    `attempt` counts from 1; `redelivered` says that an earlier attempt may have been cut off.
    """

    message_id: str
    correlation_id: str
    event: EventT_co
    occurred_at: datetime
    key: str
    headers: Mapping[str, str]
    attempt: int = 1
    redelivered: bool = False


class _WireEvent(msgspec.Struct, rename="camel"):
    type: str
    version: int
    payload: msgspec.Raw
    occurred_at: str | None = None


class Envelope(msgspec.Struct, rename="camel"):
    """The envelope as read from the wire, its payload not yet decoded."""

    message_id: str
    event: _WireEvent
    correlation_id: str | None = None
    headers: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """Return the ordering key: `headers.key`, else the correlation id, else the id."""
        return str((self.headers or {}).get("key") or self.correlation_id or self.message_id)

    def digest(self) -> bytes:
        """Return the SHA-256 of type, version and payload: 32 bytes, blind to key order."""
        payload = _sorted_encoder.encode(msgspec.json.decode(self.event.payload))
        head = f"{self.event.type}\n{self.event.version}\n".encode()
        return hashlib.sha256(head + payload).digest()


_envelope_decoder = msgspec.json.Decoder(Envelope)


def uuid7() -> str:
    """Return a new UUID of version 7 (RFC 9562): unique, and sorted by its millisecond."""
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def wire_time(moment: datetime) -> str:
    """Write a time as the contract wants it: ISO-8601, UTC, milliseconds, `Z`.

    Args:
        moment: any time with a zone.

    Raises:
        InvalidEventError: when the time has no zone; nobody could tell which hour it means.
    """
    if moment.tzinfo is None:
        msg = f"{moment.isoformat()} has no time zone: use datetime.now(UTC) or a Clock"
        raise InvalidEventError(msg)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_payload(event: Event) -> bytes:
    """Write the event's fields as JSON, strictly.

    Args:
        event: the event.

    Returns:
        The payload; decoding it gives an event equal to this one.

    Raises:
        InvalidEventError: when JSON would change it (NaN, wrong types) or PostgreSQL would
            refuse it (NUL, lone surrogates).
    """
    try:
        payload = _encoder.encode(event)
        same = msgspec.json.decode(payload, type=type(event)) == event
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        msg = f"{type(event).__name__} cannot be written: {error}"
        raise InvalidEventError(msg) from error
    if not same or _NUL.search(payload):
        msg = f"{type(event).__name__} does not survive JSON (NaN, NUL, a wrong type): {event!r}"
        raise InvalidEventError(msg)
    return payload


def encode(
    event: Event,
    *,
    message_id: str,
    correlation_id: str,
    occurred_at: datetime,
    headers: Mapping[str, str],
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> str:
    """Write the whole message.

    Args:
        event: the event.
        message_id: unique, 1 to 255 characters.
        correlation_id: the conversation it belongs to, 1 to 255 characters.
        occurred_at: when the fact happened, with time zone.
        headers: causation, trace, key; strings only.
        max_bytes: the largest message allowed, in bytes of UTF-8.

    Returns:
        The JSON text.

    Raises:
        InvalidEventError: when anything does not keep to the contract.
    """
    for name, value in (("message_id", message_id), ("correlation_id", correlation_id)):
        if not 0 < len(value) <= MAX_ID_CHARS or "\0" in value:
            msg = f"{name} must be 1 to {MAX_ID_CHARS} characters without NUL, not {value!r}"
            raise InvalidEventError(msg)
    wire = Envelope(
        message_id=message_id,
        correlation_id=correlation_id,
        headers=dict(headers),
        event=_WireEvent(
            type=event.event_type,
            version=event.version,
            occurred_at=wire_time(occurred_at),
            payload=msgspec.Raw(encode_payload(event)),
        ),
    )
    body = _encoder.encode(wire)
    if len(body) > max_bytes:
        msg = f"{event.event_type} is {len(body)} bytes, more than {max_bytes}: send a pointer"
        raise InvalidEventError(msg)
    return body.decode()


def decode_envelope(raw: bytes | str) -> Envelope:
    """Read a message up to its payload, tolerantly.

    Args:
        raw: the JSON as it came.

    Raises:
        InvalidMessageError: when it is no such JSON, or its id is not 1 to 255 characters.
    """
    try:
        envelope = _envelope_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"not a message of the wire contract: {error}"
        raise InvalidMessageError(msg, raw) from error
    if not 0 < len(envelope.message_id) <= MAX_ID_CHARS or "\0" in envelope.message_id:
        msg = f"messageId must be 1 to {MAX_ID_CHARS} characters without NUL"
        raise InvalidMessageError(msg, raw)
    return envelope


def _read_time(text: str | None) -> datetime:
    if text is None:
        return datetime.fromtimestamp(0, UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Registry:
    """The event classes that a service can read, by type and version.

    Args:
        events: the classes to start with.
    """

    def __init__(self, *events: type[Event]) -> None:
        self._decoders: dict[tuple[str, int], msgspec.json.Decoder[Event]] = {}
        self._classes: dict[tuple[str, int], type[Event]] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}
        for event in events:
            self.add(event)

    def add(self, event: type[EventT]) -> type[EventT]:
        """Register a class; usable as a decorator.

        Raises:
            InvalidEventError: when it has no topic, or its type and version are taken.
        """
        name = (event.event_type, event.version)
        if not event.topic:
            msg = f"{event.__name__} needs a class attribute topic"
            raise InvalidEventError(msg)
        if self._classes.setdefault(name, event) is not event:
            msg = f"{name[0]} v{name[1]} is registered twice"
            raise InvalidEventError(msg)
        self._decoders[name] = msgspec.json.Decoder(cast("type[Event]", event))
        return event

    def upcaster(self, event_type: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Register how a payload of one version becomes a payload of the next.

        Args:
            event_type: the type on the wire.
            from_version: the version that the function reads.
        """

        def register(function: Upcaster) -> Upcaster:
            self._upcasters[event_type, from_version] = function
            return function

        return register

    def class_of(self, event_type: str, version: int) -> type[Event] | None:
        """Return the class that reads this type and version, following upcasters."""
        while (event_type, version) in self._upcasters:
            version += 1
        return self._classes.get((event_type, version))

    def decode(self, envelope: Envelope) -> Event:
        """Read the payload.

        Raises:
            UnknownEventError: when nobody registered this type and version.
            InvalidMessageError: when the payload does not fit the class.
        """
        wire = envelope.event
        try:
            decoder = self._decoders.get((wire.type, wire.version))
            return decoder.decode(wire.payload) if decoder else self._upcast(wire)
        except msgspec.MsgspecError as error:
            msg = f"{wire.type} v{wire.version}: {error}"
            raise InvalidMessageError(msg, bytes(wire.payload)) from error

    def _upcast(self, wire: _WireEvent) -> Event:
        version, payload = wire.version, msgspec.json.decode(wire.payload)
        while (step := self._upcasters.get((wire.type, version))) is not None:
            version, payload = version + 1, step(payload)
        event = self._classes.get((wire.type, version))
        if event is None:
            raise UnknownEventError(wire.type, wire.version)
        return msgspec.convert(payload, event)

    def message(
        self, envelope: Envelope, *, attempt: int = 1, redelivered: bool = False
    ) -> Message[Event]:
        """Read the payload and build what a handler receives.

        Raises:
            UnknownEventError: when nobody registered this type and version.
            InvalidMessageError: when the payload or the time cannot be read.
        """
        try:
            occurred_at = _read_time(envelope.event.occurred_at)
        except ValueError as error:
            msg = f"occurredAt {envelope.event.occurred_at!r} is no time"
            raise InvalidMessageError(msg) from error
        return Message(
            message_id=envelope.message_id,
            correlation_id=envelope.correlation_id or envelope.message_id,
            event=self.decode(envelope),
            occurred_at=occurred_at,
            key=envelope.key,
            headers={name: str(value) for name, value in (envelope.headers or {}).items()},
            attempt=attempt,
            redelivered=redelivered,
        )


def to_cloudevent(raw: bytes | str, *, source: str) -> dict[str, Any]:
    """Write a message as a CloudEvent 1.0 in structured JSON mode.

    Args:
        raw: the message's JSON.
        source: the URI reference of the producer, such as `/fulfillment`.

    Returns:
        The CloudEvent as plain values.
    """
    envelope = decode_envelope(raw)
    headers = envelope.headers or {}
    optional = {
        "causationid": headers.get("causationId"),
        "traceparent": headers.get("traceparent"),
    }
    return {
        "specversion": "1.0",
        "id": envelope.message_id,
        "source": source,
        "type": f"{envelope.event.type}.v{envelope.event.version}",
        "subject": envelope.key,
        "time": envelope.event.occurred_at,
        "datacontenttype": "application/json",
        "correlationid": envelope.correlation_id or envelope.message_id,
        **{name: value for name, value in optional.items() if value},
        "data": msgspec.json.decode(envelope.event.payload),
    }


def _find_tracer() -> Callable[[dict[str, str]], None] | None:
    try:
        return cast(
            "Callable[[dict[str, str]], None]",
            importlib.import_module("opentelemetry.propagate").inject,
        )
    except ImportError:
        return None


_inject_trace = _find_tracer()


def trace_headers(cause: Message[Event] | None = None) -> dict[str, str]:
    """Return the `traceparent` to send on: the current span's, else the cause's, else none.

    Args:
        cause: the message that is being handled, if any.
    """
    headers: dict[str, str] = {}
    if _inject_trace is not None:
        _inject_trace(headers)
    inherited = cause.headers.get("traceparent") if cause else None
    found = headers.get("traceparent") or inherited
    return {"traceparent": found} if found else {}
