"""Events and messages: the words that two services share.

An *event* is a fact, one class per type and version. A *message* is the event inside its
envelope: ids, headers, time; `labkit.wire` shows it as JSON.

Guarantee: writers are strict. What is sent decodes to an equal event, or it is refused before
it is stored.
Not guaranteed: that a payload makes business sense; that is the receiver's to decide.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Message", "Message Translator".
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from labkit.errors import (
    InvalidEventError,
    InvalidMessageError,
    PermanentError,
    UnknownEventError,
)
from labkit.wire import (
    ID_RULE,
    UNREADABLE,
    Envelope,
    WireEvent,
    encode_envelope,
    is_headers,
    is_id,
    is_version,
    read_time,
    wire_time,
)

MAX_MESSAGE_BYTES = 262_144
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NOT_UTC = re.compile(rb'"\d{4}-\d\d-\d\dT[\d:.]+(?:[+-]\d\d:\d\d)?"')
_encoder = msgspec.json.Encoder()


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
        _refuse_bad_names(cls, cls.topic or "none yet")


def _refuse_bad_names(event: type[Event], topic: Any) -> None:
    """Refuse a class that would write what nobody can read.

    Raises:
        InvalidEventError: naming the attribute.
    """
    if not is_id(topic):
        msg = f"topic must be a ClassVar[str] of {ID_RULE}, not {topic!r:.80}"
    elif not is_id(event.event_type):
        msg = f"event_type must be {ID_RULE}, not {event.event_type!r:.80}"
    elif not is_version(event.version):
        msg = f"version must be a ClassVar[int] from 1, not {event.version!r:.80}"
    else:
        return
    raise InvalidEventError(f"{event.__name__}: {msg}")


EventT = TypeVar("EventT", bound=Event)
EventT_co = TypeVar("EventT_co", bound=Event, covariant=True)


class Message(msgspec.Struct, Generic[EventT_co], frozen=True, kw_only=True):
    """An event in its envelope, as a handler receives it.

    `attempt` counts from 1; `redelivered` says that an earlier attempt may have been cut off.
    `headers` are those of `labkit.wire`, and whatever else the sender wrote.
    """

    message_id: str
    correlation_id: str
    event: EventT_co
    occurred_at: datetime
    key: str
    headers: Mapping[str, str]
    attempt: int = 1
    redelivered: bool = False


def uuid7() -> str:
    """Return a new UUID of version 7 (RFC 9562): unique, and sorted by its millisecond."""
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def encode(
    event: Event,
    *,
    message_id: str,
    correlation_id: str,
    occurred_at: datetime,
    headers: Mapping[str, str],
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> str:
    """Write the whole message as JSON that decodes to an equal event.

    Args:
        message_id: unique, 1 to 255 characters.
        correlation_id: the conversation it belongs to, 1 to 255 characters.
        occurred_at: when the fact happened, with time zone.
        headers: see `labkit.wire`; strings only.
        max_bytes: the largest message allowed, in bytes of UTF-8.

    Raises:
        InvalidEventError: when anything does not keep to the contract: JSON would change it
            (NaN, wrong types), PostgreSQL would refuse it (NUL, lone surrogates), a time is not
            UTC, it is too large.
    """
    for name, text in {"message_id": message_id, "correlation_id": correlation_id}.items():
        if not is_id(text):
            raise InvalidEventError(f"{name} must be {ID_RULE}, not {text!r:.80}")
    if not is_headers(headers):
        raise InvalidEventError(f"headers must be a mapping of strings, not {headers!r:.80}")
    try:
        wire = WireEvent(
            type=event.event_type,
            version=event.version,
            occurred_at=wire_time(occurred_at),
            payload=msgspec.Raw(_encode_payload(event)),
        )
        envelope = Envelope(
            message_id=message_id, correlation_id=correlation_id, headers=dict(headers), event=wire
        )
        body = encode_envelope(envelope)
    except InvalidEventError:
        raise
    except Exception as error:  # whatever is in the event, or is no event at all
        raise InvalidEventError(f"{type(event).__name__} cannot be written: {error}") from error
    if (size := len(body)) > max_bytes:
        raise InvalidEventError(
            f"{wire.type} is {size} bytes, more than {max_bytes}: send a pointer"
        )
    if _NUL.search(body):
        raise InvalidEventError(f"{wire.type} holds a NUL character, which PostgreSQL cannot store")
    return body.decode()


def _encode_payload(event: Event) -> bytes:
    payload, name = _encoder.encode(event), type(event).__name__
    if msgspec.json.decode(payload, type=type(event)) != event:
        raise InvalidEventError(f"{name} does not survive JSON (NaN, a wrong type): {event!r:.200}")
    # A text may look like a time without being one, so the match is only a suspicion.
    suspect = _NOT_UTC.search(payload) is not None
    if suspect and _holds_other_time(msgspec.to_builtins(event, builtin_types=(datetime,))):
        raise InvalidEventError(f"{name} holds a time that is not UTC: use .astimezone(UTC)")
    return payload


def _holds_other_time(value: object) -> bool:
    if isinstance(value, datetime):
        return value.utcoffset() != timedelta(0)
    if isinstance(value, dict):
        return any(map(_holds_other_time, (*value, *value.values())))
    return isinstance(value, list | tuple) and any(map(_holds_other_time, value))


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Registry:
    """The event classes that a service can read, by type and version."""

    def __init__(self, *events: type[Event]) -> None:
        self._decoders: dict[tuple[str, int], msgspec.json.Decoder[Event]] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}
        for event in events:
            self.add(event)

    def add(self, event: type[EventT]) -> type[EventT]:
        """Register a class; usable as a decorator.

        Raises:
            InvalidEventError: when it is no event class that can be read, has no topic, or its
                type and version are taken.
        """
        if Event not in getattr(event, "__mro__", ()):
            raise InvalidEventError(f"register event classes, not {event!r:.80}")
        if not event.topic:
            raise InvalidEventError(f"{event.__name__} needs a class attribute topic")
        _refuse_bad_names(event, event.topic)
        name = (event.event_type, event.version)
        if name in self._decoders and self._decoders[name].type is not event:
            raise InvalidEventError(f"{name[0]} v{name[1]} is registered twice")
        try:
            self._decoders[name] = msgspec.json.Decoder(cast("type[Event]", event))
        except (TypeError, NameError) as error:
            raise InvalidEventError(f"{event.__name__} has a field of no JSON: {error}") from error
        return event

    def __contains__(self, event: type[Event]) -> bool:
        """Say whether messages are read as this class."""
        return any(decoder.type is event for decoder in self._decoders.values())

    def upcaster(self, event_type: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Register how a payload of one version becomes a payload of the next.

        It is asked only for versions without a class of their own.

        Raises:
            InvalidEventError: when this is no type and version, or has an upcaster already.
        """
        if not is_id(event_type) or not is_version(from_version):
            raise InvalidEventError(
                f"an upcaster needs a type and a version, not {event_type!r:.80}, {from_version!r}"
            )

        def register(function: Upcaster) -> Upcaster:
            if self._upcasters.setdefault((event_type, from_version), function) is not function:
                raise InvalidEventError(f"{event_type} v{from_version} has two upcasters")
            return function

        return register

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
        except UNREADABLE as error:
            raise _unreadable(wire, error) from error
        except PermanentError:
            raise
        except Exception as error:  # an event's __post_init__ may raise anything
            said = f"cannot be built: {type(error).__name__}"
            raise _unreadable(wire, said) from error

    def _upcast(self, wire: WireEvent) -> Event:
        version, payload = wire.version, msgspec.json.decode(wire.payload)
        while (decoder := self._decoders.get((wire.type, version))) is None:
            step = self._upcasters.get((wire.type, version))
            if step is None:
                raise UnknownEventError(wire.type, wire.version)
            try:
                version, payload = version + 1, step(payload)
            except Exception as error:
                said = f"the upcaster from v{version} failed: {error!r}"
                raise _unreadable(wire, said) from error
            if not isinstance(payload, dict):
                said = f"the upcaster to v{version} returned {payload!r:.40}, not the payload"
                raise _unreadable(wire, said)
        return decoder.decode(_encoder.encode(payload))

    def message(
        self, envelope: Envelope, *, attempt: int = 1, redelivered: bool = False
    ) -> Message[Event]:
        """Read payload and time into what a handler receives; raises what `decode` raises."""
        return Message(
            message_id=envelope.message_id,
            correlation_id=envelope.correlation_id or envelope.message_id,
            event=self.decode(envelope),
            occurred_at=read_time(envelope.event.occurred_at),
            key=envelope.key,
            headers=envelope.headers or {},
            attempt=attempt,
            redelivered=redelivered,
        )


def _unreadable(wire: WireEvent, said: object) -> InvalidMessageError:
    return InvalidMessageError(f"{wire.type} v{wire.version}: {said}", bytes(wire.payload))
