"""Frozen messages: what the two services say to each other about ORD-1 to ORD-3, as files.

The contract to hold others to: a service in another language reads these files, and writes the
like. `ours` were written by this shop's own services; `foreign` are as other teams write them, with
articles that are UUIDs, ids that are texts, and no headers.

Guarantee: a test writes `ours` anew through the real services, and compares.
Not guaranteed: order; a key's own messages are numbered in theirs.
"""

from __future__ import annotations

from importlib import resources

_FOREIGN = "foreign"


def ours() -> dict[str, bytes]:
    """Return the messages of this shop by message id."""
    return {name: body for name, body in _all().items() if not name.startswith(_FOREIGN)}


def foreign() -> dict[str, bytes]:
    """Return the messages of other teams by the name of their file."""
    return {name: body for name, body in _all().items() if name.startswith(_FOREIGN)}


def _all() -> dict[str, bytes]:
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".json")]
    return {
        file.name.removesuffix(".json"): file.read_bytes()
        for file in sorted(files, key=lambda file: file.name)
    }
