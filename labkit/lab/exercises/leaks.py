"""Leaks: what a student hands out, seen as the payload that it would become.

Guarantee: whatever can be written as JSON is looked into: an event, a dict, a copy of the domain's
own object, a text that is JSON already.
Not guaranteed: that a private value under a public name is noticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import msgspec

from labkit.shop.domain_events import OrderLine, OrderPlaced
from labkit.wire import UNREADABLE

_LONGEST = 300
_PUBLIC = ("reservationId", "lines")
_PUBLIC_OF_A_LINE = ("sku", "qty")
# Of several, these are told first: nobody doubts that they are private.
_SHAMEFUL = ("internalMargin", "unitCost")


class Leak(NamedTuple):
    """A field that must not leave, and why not, in a sentence without its end."""

    field: str
    why: str


def leak_in(answer: object) -> Leak | None:
    """Return a field that the contract does not have, if there is one."""
    payload = payload_of(answer)
    if field := _extra(payload, _PUBLIC):
        return Leak(field, f"{_kind(field)}: el contrato solo admite `reservationId` y `lines`")
    lines = payload.get("lines")
    for line in lines if isinstance(lines, list) else ():
        if isinstance(line, Mapping) and (field := _extra(line, _PUBLIC_OF_A_LINE)):
            why = f"{_kind(field)}: de cada línea, el contrato solo admite `sku` y `qty`"
            return Leak(field, why)
    return None


def payload_of(answer: object) -> Mapping[str, Any]:
    """Return the payload with the names of the wire; empty for what has none."""
    content: object = answer
    with contextlib.suppress(*UNREADABLE, TypeError, ValueError):
        if isinstance(answer, str | bytes):
            content = msgspec.json.decode(answer)
        content = msgspec.to_builtins(content, str_keys=True, enc_hook=vars)
    return _camel(content) if isinstance(content, Mapping) else {}


def shown(answer: object) -> str:
    """Return what would leave, for the student to look at."""
    payload = payload_of(answer)
    text = msgspec.json.encode(payload).decode() if payload else f"{answer!r}"
    return f"`{text[:_LONGEST]}`"


def _kind(field: str) -> str:
    return "es privado" if field in _PRIVATE else "sobra"


def _extra(payload: Mapping[str, Any], public: Iterable[str]) -> str | None:
    extra = [name for name in payload if name not in set(public)]
    return next((name for name in _SHAMEFUL if name in extra), extra[0] if extra else None)


def _camel(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {_camel_name(str(name)): _camel(value) for name, value in content.items()}
    return [_camel(each) for each in content] if isinstance(content, list | tuple) else content


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return "".join([first, *(word.title() for word in rest)])


_PRIVATE = {
    _camel_name(each.name) for owner in (OrderPlaced, OrderLine) for each in fields(owner)
} - {*_PUBLIC, *_PUBLIC_OF_A_LINE}
