"""Agreements between the two teams, as checks that read messages and name those that break them.

    agreements.table({"congelados": frozen.ours(), "parecidos": agreements.lookalikes()})

Guarantee: each row reads the messages as they would travel; nothing is taken from a model.
Not guaranteed: that a message makes business sense.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pandas as pd

from labkit.errors import PermanentError
from labkit.shop import frozen
from labkit.shop.contracts import (
    OUT_OF_STOCK,
    REGISTRY,
    RESERVATION_RELEASED,
    UNKNOWN_SKU,
    ReleaseReservationRequested,
    ReserveStockRequested,
    StockReservationRejected,
    StockReserved,
)
from labkit.wire import decode_envelope

Bodies = Mapping[str, bytes]
Named = dict[str, dict[str, Any]]
KEPT = "se cumple"
_EVENTS = {
    event.event_type: event
    for event in (
        ReserveStockRequested,
        ReleaseReservationRequested,
        StockReserved,
        StockReservationRejected,
    )
}
_ENVELOPE = {"messageId", "correlationId", "headers", "event"}
_EVENT = {"type", "version", "occurredAt", "payload"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_REASONS = {OUT_OF_STOCK, UNKNOWN_SKU, RESERVATION_RELEASED}


def broken(messages: Bodies) -> dict[str, list[str]]:
    """Return, for each agreement, the names of the messages that break it.

    Args:
        messages: name to body.
    """
    read = {name: json.loads(body) for name, body in messages.items()}
    return {said: sorted(set(check(read))) for said, check in AGREEMENTS.items()}


def table(sets: Mapping[str, Bodies]) -> pd.DataFrame:
    """Return a row for each agreement, and whether each set of messages keeps it.

    Args:
        sets: what a set of messages is called, and the messages.
    """
    found = {title: broken(messages) for title, messages in sets.items()}
    rows = [
        {"acuerdo": said} | {title: _verdict(each[said]) for title, each in found.items()}
        for said in AGREEMENTS
    ]
    return pd.DataFrame(rows)


def readable(messages: Bodies) -> pd.DataFrame:
    """Read each message as our consumers do, and return what matters of it.

    Args:
        messages: name to body.
    """
    rows = []
    for body in messages.values():
        envelope = decode_envelope(body)
        event = REGISTRY.decode(envelope)
        rows.append(
            {
                "correlationId": envelope.correlation_id,
                "se lee como": type(event).__name__,
                "headers": "vacíos" if b'"headers"' in body else "no vienen",
            }
        )
    return pd.DataFrame(rows)


def lookalikes() -> dict[str, bytes]:
    """Return the answers to RES-3 as a team writes them that has only seen an example."""
    return {
        name: json.dumps(_alike(json.loads(body))).encode()
        for name, body in frozen.ours().items()
        if name.startswith("inventory") and b"RES-3" in body
    }


def _alike(message: dict[str, Any]) -> dict[str, Any]:
    event, payload = message["event"], message["event"]["payload"]
    content = {"orderId": "ORD-3", "sku": payload["sku"], "reservationId": payload["reservationId"]}
    content |= {"reason": "no queda"} if "reason" in payload else {"quantity": payload["qty"]}
    return {
        "messageId": "RES-3",
        "correlationId": "ORD-3",
        "headers": {},
        "event": {
            "type": event["type"],
            "version": "1",
            "timestamp": "2026-02-17 17:00:00",
            "payload": content,
        },
    }


def _verdict(names: list[str]) -> str:
    return KEPT if not names else f"no: {', '.join(names)}"


def _unreadable(messages: Named) -> Iterator[str]:
    for name, message in messages.items():
        try:
            REGISTRY.decode(decode_envelope(json.dumps(message)))
        except PermanentError:
            yield name


def _other_envelope(messages: Named) -> Iterator[str]:
    for name, message in messages.items():
        if message.keys() != _ENVELOPE or message["event"].keys() != _EVENT:
            yield name


def _other_conversation(messages: Named) -> Iterator[str]:
    for name, message in messages.items():
        if message["correlationId"] != message["event"]["payload"]["reservationId"]:
            yield name


def _other_time(messages: Named) -> Iterator[str]:
    for name, message in messages.items():
        if not _TIME.fullmatch(str(message["event"].get("occurredAt"))):
            yield name


def _other_reason(messages: Named) -> Iterator[str]:
    for name, message in messages.items():
        if message["event"]["payload"].get("reason", OUT_OF_STOCK) not in _REASONS:
            yield name


def _same_id(messages: Named) -> Iterator[str]:
    times = Counter(message["messageId"] for message in messages.values())
    return (name for name, message in messages.items() if times[message["messageId"]] > 1)


def _more_than_a_line(messages: Named) -> Iterator[str]:
    """An answer speaks of one line: it names one article, and no two answers name the same."""
    lines = {name: _line_of(message) for name, message in messages.items() if _answers(message)}
    times = Counter(lines.values())
    return (name for name, line in lines.items() if not all(line) or times[line] > 1)


def _more_than_agreed(messages: Named) -> Iterator[str]:
    """Whoever publishes translates: only the contract's fields leave."""
    for name, message in messages.items():
        agreed = msgspec.structs.fields(_EVENTS[message["event"]["type"]])
        if message["event"]["payload"].keys() != {field.encode_name for field in agreed}:
            yield name


def _answers(message: dict[str, Any]) -> bool:
    return message["event"]["type"] in {"StockReserved", "StockReservationRejected"}


def _line_of(message: dict[str, Any]) -> tuple[str, str]:
    payload = message["event"]["payload"]
    return payload.get("reservationId", ""), payload.get("sku", "")


AGREEMENTS: Mapping[str, Callable[[Named], Iterator[str]]] = {
    "nombre y versión que el otro sabe leer": _unreadable,
    "sobre: sus cuatro campos, y ninguno más": _other_envelope,
    "correlationId = reservationId": _other_conversation,
    "occurredAt en UTC, con milisegundos y Z": _other_time,
    "motivos estables, de una lista": _other_reason,
    "un messageId por mensaje": _same_id,
    "una respuesta por línea": _more_than_a_line,
    "traduce quien publica: nada privado sale": _more_than_agreed,
}
