"""Events and messages as people write them wrong: refused before they are stored."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings, strategies as st

from labkit.errors import InvalidEventError, InvalidMessageError
from labkit.messages import Event, Registry, encode
from labkit.wire import decode_envelope, to_cloudevent

NOON = datetime(2026, 2, 17, 16, 40, tzinfo=UTC)


class Sample(Event, frozen=True):
    topic: ClassVar[str] = "test.sample.v1"

    anything: Any = None


def write(event: Any = Sample(), **changes: Any) -> str:  # noqa: B008 - events are frozen
    usual: dict[str, Any] = {
        "message_id": "M-1",
        "correlation_id": "C-1",
        "occurred_at": NOON,
        "headers": {},
    }
    return encode(event, **usual | changes)


def short(error: BaseException) -> str:
    said = str(error)
    assert len(said) < 400, said
    return said


def declare(**attributes: Any) -> type[Event]:
    namespace = {"topic": "test.odd.v1", "__annotations__": {}} | attributes
    make: Any = type(Event)
    made: type[Event] = make("Odd", (Event,), namespace, frozen=True)
    return made


@pytest.mark.parametrize("name", ["message_id", "correlation_id"])
@pytest.mark.parametrize("value", [7, None, b"x", ["a"], 1.5, {"a": 1}])
def test_an_id_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidEventError, match=f"{name} must be 1 to 255 characters") as caught:
        write(**{name: value})

    assert repr(value) in short(caught.value)


@pytest.mark.parametrize("moment", [None, 7, "2026-02-17T16:40:00Z", date(2026, 2, 17)])
def test_a_time_of_another_type_is_refused(moment: Any) -> None:
    with pytest.raises(InvalidEventError, match=r"no time zone: use datetime\.now\(UTC\)"):
        write(occurred_at=moment)


@pytest.mark.parametrize("headers", [None, 7, "ab", [("a", "b")], {1: "a"}, {"a": None}])
def test_headers_of_another_type_are_refused(headers: Any) -> None:
    with pytest.raises(InvalidEventError, match="headers must be a mapping of strings"):
        write(headers=headers)


@pytest.mark.parametrize("event", [None, 7, "x", {"a": 1}, object(), Sample])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(InvalidEventError, match="cannot be written"):
        write(event)


class Unlike:
    """Equality that fails, as that of an array with several elements."""

    def __eq__(self, _other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "value", [b"x", {1, 2}, Unlike(), "x" * 200_000 + "\0", 10**5000], ids=type
)
def test_a_value_that_json_does_not_keep_is_refused_in_few_words(value: Any) -> None:
    with pytest.raises(InvalidEventError) as caught:
        write(Sample(anything=value))

    short(caught.value)


def test_a_payload_too_strange_to_show_is_refused_in_few_words() -> None:
    with pytest.raises(InvalidEventError, match="does not survive JSON") as caught:
        write(Sample(anything=("x" * 200_000,)))

    short(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *(("topic", value) for value in (7, b"t", "a\0b", "x" * 256, ["t"])),
        *(("event_type", value) for value in (7, None, "", "a\0b", "x" * 256)),
        *(("version", value) for value in ("1", None, 0, -1, 1.5, True, 2**31)),
    ],
    ids=ascii,
)
def test_a_class_that_would_write_what_nobody_reads_is_refused_when_it_is_defined(
    attribute: str, value: Any
) -> None:
    with pytest.raises(InvalidEventError, match=f"Odd: {attribute} must be"):
        declare(**{attribute: value})


def test_a_topic_without_classvar_is_a_field_and_is_refused() -> None:
    with pytest.raises(InvalidEventError, match=r"topic must be a ClassVar\[str\]"):
        Registry(declare(__annotations__={"topic": "str"}))


@pytest.mark.parametrize("thing", [7, None, "Sample", int, object, Sample()])
def test_what_is_no_event_class_is_not_registered(thing: Any) -> None:
    with pytest.raises(InvalidEventError, match="register event classes"):
        Registry(thing)


def test_a_field_that_json_cannot_tell_apart_is_refused_at_registration() -> None:
    for annotation in ("list[int] | tuple[int, ...]", "Nowhere"):
        odd = declare(__annotations__={"x": annotation})
        with pytest.raises(InvalidEventError, match="Odd has a field of no JSON"):
            Registry(odd)


@pytest.mark.parametrize(("type_", "version"), [(7, 1), ("", 1), ("S", "1"), ("S", None), ("S", 0)])
def test_an_upcaster_of_no_version_is_refused(type_: Any, version: Any) -> None:
    with pytest.raises(InvalidEventError, match="an upcaster needs a type and a version"):
        Registry().upcaster(type_, version)


@pytest.mark.parametrize("returned", [None, 7, "x", []])
def test_an_upcaster_that_forgets_its_return_is_named(returned: Any) -> None:
    newest = declare(version=2)
    registry = Registry(newest)
    registry.upcaster("Odd", 1)(lambda _old: returned)
    old = '{"messageId":"M","event":{"type":"Odd","version":1,"payload":{}}}'

    with pytest.raises(InvalidMessageError, match="the upcaster to v2 returned"):
        registry.decode(decode_envelope(old))

    assert registry.decode(decode_envelope(old.replace(":1,", ":2,"))) == newest()


@pytest.mark.parametrize("raw", [None, 7, {}, [b"x"]])
def test_what_is_neither_bytes_nor_text_is_no_message(raw: Any) -> None:
    with pytest.raises(InvalidMessageError):
        decode_envelope(raw)
    with pytest.raises(InvalidMessageError):
        to_cloudevent(raw, source="/x")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
    | st.binary() | st.datetimes() | st.decimals() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(event=anything.map(lambda value: Sample(anything=value)) | anything, id_=anything)
def test_whatever_is_given_is_written_so_that_it_can_be_read_or_is_refused(
    event: Any, id_: Any
) -> None:
    try:
        body = write(event, message_id=id_, headers={"causationId": id_})
    except InvalidEventError:
        return

    envelope = decode_envelope(body)
    assert (envelope.message_id, Registry(Sample).decode(envelope)) == (id_, event)
