"""Functions to be run by `labkit.lab.scaling.functions`: AWS Lambda's shapes, in and out.

Each prints a line per record that it executes: the log is where executions are counted. A record
whose body says `poison` fails, always.
"""

from __future__ import annotations

import json
import time
from typing import Any

TAKES_S = 0.1


def all_or_nothing(event: dict[str, Any], _context: object) -> None:
    """Try every record, and raise when one of them failed: then all of them count as failed."""
    if failed := _failed(event):
        raise ValueError(f"{len(failed)} records failed")


def partial(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Try every record, and name those that failed: only they come back."""
    return {"batchItemFailures": [{"itemIdentifier": each} for each in _failed(event)]}


def slow(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Wait for something outside, then do what `partial` does."""
    time.sleep(TAKES_S)
    return partial(event, _context)


def _failed(event: dict[str, Any]) -> list[str]:
    failed = []
    for record in event["Records"]:
        print("executed", record["messageId"])
        if json.loads(record["body"]).get("poison"):
            failed.append(record["messageId"])
    return failed
