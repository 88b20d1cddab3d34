"""Two readers of one message that changes: one wants it exact, one looks at what it uses.

The tolerant one is `labkit.messages.Registry`, which every consumer of labkit reads with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from labkit.errors import PermanentError
from labkit.lab.charts import Cell, bad, good, plain
from labkit.messages import Event, Registry
from labkit.shop import frozen
from labkit.wire import decode_envelope

Payload = dict[str, Any]
READS, REFUSES = "lo lee", "lo rechaza"
NEEDED = "falta uno obligatorio"


class StockReserved(Event, frozen=True):
    """The answer as fulfillment reads it: it uses three fields, and a fourth if it is there."""

    topic: ClassVar[str] = "inventory.stock-reserved.v1"

    reservation_id: str
    sku: str
    qty: int
    warehouse: str | None = None


class _Exact(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The same four fields, and nothing else will do."""

    reservation_id: str
    sku: str
    qty: int
    warehouse: str


_registry = Registry(StockReserved)


def exact(body: bytes) -> None:
    """Read a payload that must be as it always was.

    Raises:
        ValidationError: it is not.
    """
    msgspec.json.decode(decode_envelope(body).event.payload, type=_Exact)


def tolerant(body: bytes) -> None:
    """Read what is used, and ignore the rest.

    Raises:
        InvalidMessageError: something that is used is missing.
    """
    _registry.decode(decode_envelope(body))


READERS: Mapping[str, Callable[[bytes], None]] = {
    "lector exacto": exact,
    "lector tolerante": tolerant,
}
CHANGES: Mapping[str, Callable[[Payload], Payload]] = {
    "como siempre": lambda payload: payload,
    "sobra un campo": lambda payload: payload | {"batch": "L-7"},
    "falta uno opcional": lambda payload: _without(payload, "warehouse"),
    NEEDED: lambda payload: _without(payload, "qty"),
}


def readings() -> dict[str, dict[str, str]]:
    """Let each reader read each change of an answer to RES-2.

    Returns:
        Reader, change, what came of it.
    """
    return {
        reader: {name: _outcome(read, change) for name, change in CHANGES.items()}
        for reader, read in READERS.items()
    }


def cells(found: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Cell]]:
    """Return the readings as cells of a matrix; to refuse what lacks a need is no fault.

    Args:
        found: from `readings`.
    """
    return {
        reader: {
            name: plain(said) if name == NEEDED else (good if said == READS else bad)(said)
            for name, said in row.items()
        }
        for reader, row in found.items()
    }


def reading(found: Mapping[str, Mapping[str, str]]) -> str:
    """Read which changes each reader survives.

    Args:
        found: from `readings`.
    """
    said = []
    for reader, row in found.items():
        refused = [f"«{name}»" for name, outcome in row.items() if outcome == REFUSES]
        said.append(f"«{reader}» rechaza {len(refused)} de {len(row)}: {', '.join(refused)}")
    return "; ".join(said) + "."


def _outcome(read: Callable[[bytes], None], change: Callable[[Payload], Payload]) -> str:
    message = msgspec.json.decode(frozen.ours()["inventory-4"])
    event = message["event"]
    event["payload"] = change(event["payload"] | {"warehouse": "A"})
    try:
        read(msgspec.json.encode(message))
    except (PermanentError, msgspec.ValidationError):
        return REFUSES
    return READS


def _without(payload: Payload, field: str) -> Payload:
    return {name: value for name, value in payload.items() if name != field}
