"""Trace context: the `traceparent` that ties a message to the span that sent it.

With the extra `tracing` the caller's current span travels; without it, that of the message that is
being handled is passed on.

Source: W3C Trace Context.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from labkit.messages import Event, Message


def _find_tracer() -> Callable[[dict[str, str]], None] | None:
    try:
        return cast(
            "Callable[[dict[str, str]], None]",
            importlib.import_module("opentelemetry.propagate").inject,
        )
    except ImportError:
        return None


_inject_trace = _find_tracer()


def trace_headers(cause: Message[Event] | None) -> dict[str, str]:
    """Return the `traceparent` to send on: the current span's, else the cause's, else none."""
    headers: dict[str, str] = {}
    if _inject_trace is not None:
        _inject_trace(headers)
    inherited = cause.headers.get("traceparent") if cause else None
    found = headers.get("traceparent") or inherited
    return {"traceparent": found} if found else {}
