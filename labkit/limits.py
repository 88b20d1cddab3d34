"""Limits: what a setting may be, checked where it is given.

The problem: a lease of `nan` seconds or a batch of 0 fails an hour later, in another thread, as
an error of somebody else's. Guarantee: a wrong setting is a `ConfigurationError` that names the
setting, shows the value, shortened, and says what is allowed.
"""

from __future__ import annotations

import re
from typing import Any

from labkit.errors import ConfigurationError

MAX_SECONDS = 10_000_000.0  # four months; PostgreSQL counts milliseconds in 32 bits, half of it
MAX_BATCH = 10_000
# No braces, which Redis hashes by; nothing that a log, a shell or PostgreSQL trips over.
_NAME = re.compile(r"[\w.:-]{0,100}")
_MAX_OWNER = 255
# PostgreSQL cuts names at 63 bytes, and those of our indexes are longer than their table's.
_MAX_TABLE_BYTES = 63 - len("_unpublished")


def number(name: str, value: Any, least: float, most: float = MAX_SECONDS) -> None:
    """Refuse what is no number from `least` to `most`; both whole: no whole number."""
    whole = isinstance(least, int) and isinstance(most, int)
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{name} must be {what} from {least} to {most}, not {value!r:.40}")


def name(what: str, value: Any, *, empty: bool = False) -> None:
    """Refuse what cannot be part of a key in Redis and a text in PostgreSQL."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or not (value or empty):
        raise ConfigurationError(
            f"{what} must be up to 100 letters, digits and . : _ -, not {value!r:.40}"
        )


def table_name(value: Any) -> None:
    """Refuse a table name that PostgreSQL would cut or could not store."""
    good = isinstance(value, str) and value.isprintable()
    if not good or not 0 < len(value.encode()) <= _MAX_TABLE_BYTES:
        raise ConfigurationError(
            f"a table's name is 1 to {_MAX_TABLE_BYTES} printable bytes, not {value!r:.80}"
        )


def kind(what: str, value: Any, wanted: type) -> None:
    """Refuse a value of another type, such as a stream's name instead of a Stream."""
    if not isinstance(value, wanted):
        raise ConfigurationError(f"{what} must be a {wanted.__name__}, not {value!r:.40}")


def lease(lease_s: Any, owner: Any = "-") -> None:
    """Refuse a lease in which no transaction has time to end, or an owner of no printable name."""
    number("lease_s", lease_s, 0.1, 86_400.0)
    if not isinstance(owner, str) or not owner.isprintable() or not 0 < len(owner) <= _MAX_OWNER:
        raise ConfigurationError(
            f"owner must be 1 to {_MAX_OWNER} printable characters, not {owner!r:.40}"
        )


def worker(batch: Any, poll_s: Any, lease_s: Any) -> None:
    """Refuse a pace that does nothing, burns a processor, or sleeps through the worker's lease."""
    lease(lease_s)
    number("batch", batch, 1, MAX_BATCH)
    if not isinstance(poll_s, tuple | list) or len(poll_s) != 2:  # noqa: PLR2004 - a pair
        raise ConfigurationError(f"poll_s must be (shortest, longest), not {poll_s!r:.40}")
    number("the longest pause of poll_s", poll_s[1], 0.001, lease_s / 2)
    number("the shortest pause of poll_s", poll_s[0], 0.0001, float(poll_s[1]))


def storable(said: str) -> str:
    """Return what a person wrote as PostgreSQL can store it: it knows no NUL, no half character."""
    return said.encode(errors="backslashreplace").decode().replace("\0", "\\0")
