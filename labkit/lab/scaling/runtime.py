"""Runtime: what the process of a function does, one invocation a line.

    python -m labkit.lab.scaling.runtime module:handler

A line of JSON on its standard input is an event, a line on its standard output the answer:
`{"response": …, "log": […]}`, or `{"error": …, "log": […]}` when the handler raised. What the
handler prints is its log. The process ends with its input.

Guarantee: one invocation at a time, and what a module keeps is there in the next one.
Not guaranteed: the time limit, and the frozen process between two invocations, of AWS Lambda.

Source: AWS Lambda, "Runtime API": a loop that takes an event and posts a response.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any


def main(path: str) -> None:
    """Serve a handler until the input ends.

    Args:
        path: `module:function`.
    """
    module, _, name = path.partition(":")
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        print(json.dumps(_answer(handler, json.loads(line))), flush=True)


def _answer(handler: Callable[[Any, None], object], event: object) -> dict[str, object]:
    log, answer = io.StringIO(), {}
    with redirect_stdout(log):
        try:
            answer = {"response": handler(event, None)}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the invocation's answer
            answer = {"error": f"{type(error).__name__}: {error}"}
    return answer | {"log": log.getvalue().splitlines()}


if __name__ == "__main__":
    main(sys.argv[1])
