"""Refactoring: one field of a domain event gets another name, as on any afternoon.

Guarantee: inside `renamed` it is the same class, so `type(e) is OrderPlaced`, `isinstance` and
`match` answer as before; afterwards it is as it was, whatever happened inside.
Not guaranteed: instances made before see none of it, and other threads see it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, make_dataclass

# What a dataclass has from its fields.
_DERIVED = ("__dataclass_fields__", "__init__", "__repr__", "__eq__", "__hash__", "__match_args__")


@contextmanager
def renamed(event: type, old: str, new: str) -> Iterator[None]:
    """Rename a field of a frozen dataclass meanwhile.

    Args:
        event: the class.
        old: the field's name.
        new: its name inside.
    """
    names = [(new if each.name == old else each.name, each.type) for each in fields(event)]
    other = make_dataclass(event.__name__, names, frozen=True)
    before = {name: event.__dict__[name] for name in _DERIVED}
    try:
        for name in _DERIVED:
            setattr(event, name, other.__dict__[name])
        yield
    finally:
        for name, value in before.items():
            setattr(event, name, value)
