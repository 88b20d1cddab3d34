"""Events and messages: what may leave, and what comes back."""

from __future__ import annotations

import math
import time
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from labkit.errors import InvalidEventError, InvalidMessageError, UnknownEventError
from labkit.messages import Event, Registry, encode, uuid7
from labkit.shop.contracts import StockReserved
from labkit.wire import decode_envelope

NOON = datetime(2026, 2, 17, 16, 40, tzinfo=UTC)
CEST = timezone(timedelta(hours=2))


class Line(msgspec.Struct, frozen=True):
    sku: str
    qty: int


class Sample(Event, frozen=True):
    topic: ClassVar[str] = "test.sample.v1"

    text: str = ""
    number: int = 0
    ratio: float = 0.0
    price: Decimal = Decimal(0)
    day: date = date(2026, 1, 1)
    at: datetime | None = None
    lines: tuple[Line, ...] = ()
    by_name: dict[str, int] = msgspec.field(default_factory=dict)
    anything: Any = None


REGISTRY = Registry(Sample)


def write(event: Event, **changes: Any) -> str:
    envelope: dict[str, Any] = {
        "message_id": "M-1",
        "correlation_id": "C-1",
        "occurred_at": NOON,
        "headers": {},
    }
    return encode(event, **envelope | changes)


def read(registry: Registry, type_: str, version: int, payload: str, envelope: str = "") -> Event:
    event = f'"event":{{"type":"{type_}","version":{version},"payload":{payload}}}'
    return registry.decode(decode_envelope(f'{{"messageId":"M-1",{event}{envelope}}}'))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
samples = st.builds(
    Sample,
    text=st.text(st.characters()),
    number=st.integers(),
    ratio=st.floats(),
    price=st.decimals(),
    day=st.dates(),
    at=st.none() | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(CEST)),
    lines=st.lists(st.builds(Line, st.text(), st.integers())).map(tuple),
    by_name=st.dictionaries(st.text(), st.integers(), max_size=3),
    anything=json_values,
)


@settings(max_examples=50, deadline=None)
@given(samples)
def test_what_is_accepted_comes_back_equal_and_can_be_stored(event: Sample) -> None:
    try:
        body = write(event)
    except InvalidEventError:
        return

    assert REGISTRY.decode(decode_envelope(body)) == event
    assert "\0" not in body
    assert body.encode().decode() == body


def test_the_wire_is_the_contract_to_the_letter() -> None:
    event = StockReserved(reservation_id="RES-1", sku="BOOK-DDD", qty=2)

    body = write(event, correlation_id="RES-1", headers={"causationId": "M-0"})

    assert body == (
        '{"messageId":"M-1","correlationId":"RES-1","headers":{"causationId":"M-0"},'
        '"event":{"type":"StockReserved","version":1,"occurredAt":"2026-02-17T16:40:00.000Z",'
        '"payload":{"reservationId":"RES-1","sku":"BOOK-DDD","qty":2}}}'
    )


@pytest.mark.parametrize(
    "event",
    [
        Sample(ratio=math.nan),
        Sample(ratio=math.inf),
        Sample(anything=[1, {"deep": -math.inf}]),
        Sample(text="a\0b"),
        Sample(anything={"a\0b": 1}),
        Sample(text="\ud800"),
        Sample(number="2"),  # type: ignore[arg-type]
        Sample(number=2.0),  # type: ignore[arg-type]
        Sample(number=True, anything=(1, 2)),
        Sample(text=None),  # type: ignore[arg-type]
        Sample(anything={1: "one"}),
        Sample(anything=object()),
        Sample(at=datetime(2026, 2, 17, 16, 40)),  # noqa: DTZ001 - the point of the case
        Sample(at=datetime(2026, 2, 17, 16, 40, tzinfo=CEST)),
    ],
    ids=lambda event: repr(event)[7:60],
)
def test_what_json_or_postgresql_would_change_is_refused(event: Sample) -> None:
    with pytest.raises(InvalidEventError):
        write(event)


def test_a_payload_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(InvalidEventError, match="recursion"):
        write(Sample(anything=endless))


@pytest.mark.parametrize("text", ["2026-02-17T16:40:00", "2026-02-17T16:40:00+02:00", "\\u0000"])
def test_a_text_that_only_looks_dangerous_may_leave(text: str) -> None:
    body = write(Sample(text=text, at=NOON))

    assert read_sample(body).text == text


def read_sample(body: str) -> Sample:
    event = REGISTRY.decode(decode_envelope(body))
    assert isinstance(event, Sample)
    return event


@pytest.mark.parametrize("moment", [datetime(2026, 2, 17), datetime.min])  # noqa: DTZ001, DTZ901
def test_a_time_without_zone_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidEventError, match="no time zone"):
        write(Sample(), occurred_at=moment)


def test_a_time_of_another_zone_is_written_as_utc() -> None:
    body = write(Sample(), occurred_at=NOON.astimezone(CEST))

    assert '"occurredAt":"2026-02-17T16:40:00.000Z"' in body


@pytest.mark.parametrize("name", ["message_id", "correlation_id"])
@pytest.mark.parametrize("value", ["", "x" * 256, "a\0b", "\ud800"])
def test_a_bad_id_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidEventError):
        write(Sample(), **{name: value})


def test_an_id_of_255_characters_is_accepted() -> None:
    longest = "ñ" * 255

    body = write(Sample(), message_id=longest, correlation_id=longest)

    assert decode_envelope(body).message_id == longest


@pytest.mark.parametrize("value", [1, None, b"x", "a\0b", "\ud800"])
def test_a_header_that_is_no_clean_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidEventError):
        write(Sample(), headers={"name": value})


def test_a_message_over_the_limit_is_refused_and_says_its_size() -> None:
    with pytest.raises(InvalidEventError, match=r"is \d+ bytes, more than 300: send a pointer"):
        write(Sample(text="x" * 300), max_bytes=300)


def test_a_message_of_exactly_the_limit_may_leave() -> None:
    size = len(write(Sample(text="ñ")).encode())

    assert write(Sample(text="ñ"), max_bytes=size)


@settings(max_examples=50, deadline=None)
@given(payload=st.dictionaries(st.text().map(lambda name: f"x{name}"), json_values, max_size=4))
def test_a_reader_ignores_fields_that_it_does_not_know(payload: dict[str, Any]) -> None:
    known = msgspec.json.encode({"text": "hello"} | payload).decode()

    event = read(REGISTRY, "Sample", 1, known, ',"newInV9":{"a":[1]}')

    assert event == Sample(text="hello")


def test_upcasters_carry_an_old_payload_to_the_newest_version() -> None:
    registry = Registry(Renamed)
    registry.upcaster("OldName", 1)(lambda old: {"quantity": old["qty"]})
    registry.upcaster("OldName", 2)(lambda old: {"quantity": old["quantity"], "unit": "piece"})

    assert read(registry, "OldName", 1, '{"qty":3}') == Renamed(quantity=3, unit="piece")
    assert read(registry, "OldName", 2, '{"quantity":3}') == Renamed(quantity=3, unit="piece")


class Renamed(Event, frozen=True):
    topic: ClassVar[str] = "test.renamed.v3"
    event_type: ClassVar[str] = "OldName"
    version: ClassVar[int] = 3

    quantity: int
    unit: str


def test_a_renamed_class_still_reads_and_writes_its_old_name() -> None:
    body = write(Renamed(quantity=1, unit="piece"))

    assert '"type":"OldName","version":3' in body
    assert Registry(Renamed).decode(decode_envelope(body)) == Renamed(quantity=1, unit="piece")


def test_an_upcaster_that_fails_makes_an_invalid_message() -> None:
    registry = Registry(Renamed)
    registry.upcaster("OldName", 2)(lambda old: {"quantity": old["no such field"]})

    with pytest.raises(InvalidMessageError, match=r"OldName v2: the upcaster from v2 .*KeyError"):
        read(registry, "OldName", 2, "{}")


@pytest.mark.parametrize(("type_", "version"), [("Sample", 9), ("Sample", 0), ("Other", 1)])
def test_an_unknown_type_or_version_is_named(type_: str, version: int) -> None:
    with pytest.raises(UnknownEventError, match=f"unknown event {type_} v{version}"):
        read(REGISTRY, type_, version, "{}")


@pytest.mark.parametrize(
    "payload", ['{"number":"three"}', "[]", "null", '{"number":1e999}', '{"lines":[{}]}']
)
def test_a_payload_of_another_shape_is_an_invalid_message(payload: str) -> None:
    with pytest.raises(InvalidMessageError, match="Sample v1") as caught:
        read(REGISTRY, "Sample", 1, payload)

    assert caught.value.raw == payload.encode()


def test_two_classes_of_one_name_are_refused() -> None:
    class Impostor(Event, frozen=True):
        topic: ClassVar[str] = "test.other.v1"
        event_type: ClassVar[str] = "Sample"

    with pytest.raises(InvalidEventError, match="Sample v1 is registered twice"):
        Registry(Sample, Sample, Impostor)


def test_two_upcasters_of_one_version_are_refused() -> None:
    registry = Registry()
    registry.upcaster("Sample", 1)(lambda old: old)

    with pytest.raises(InvalidEventError, match="Sample v1 has two upcasters"):
        registry.upcaster("Sample", 1)(lambda old: old)


def test_an_event_without_topic_is_refused() -> None:
    class Nowhere(Event, frozen=True):
        pass

    with pytest.raises(InvalidEventError, match="Nowhere needs a class attribute topic"):
        Registry(Nowhere)


def test_a_message_carries_its_envelope_to_the_handler() -> None:
    body = write(Sample(text="hello"), headers={"key": "K-1", "traceparent": "00-ab"})

    message = REGISTRY.message(decode_envelope(body), attempt=2, redelivered=True)

    assert (message.message_id, message.correlation_id, message.key) == ("M-1", "C-1", "K-1")
    assert (message.event, message.occurred_at) == (Sample(text="hello"), NOON)
    assert (message.attempt, message.redelivered) == (2, True)
    assert message.headers == {"key": "K-1", "traceparent": "00-ab"}


def test_an_id_is_a_uuid_of_version_7_and_of_this_millisecond() -> None:
    before_ms = time.time_ns() // 1_000_000

    made = uuid.UUID(uuid7())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before_ms <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_are_unique_and_sorted_by_their_millisecond() -> None:
    made = [uuid7() for _ in range(10_000)]

    assert len(set(made)) == len(made)
    assert [text[:13] for text in made] == sorted(text[:13] for text in made)
