"""Servers that the user names: two variables, from the environment or the home's `.env`.

Guarantee: both or none, and the message names the one that is missing. Not guaranteed: that they
answer; `labkit doctor` asks them.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from labkit.lab.home import Home, ServerError

DATABASE = "LABKIT_DATABASE_URL"
REDIS = "LABKIT_REDIS_URL"


def named_servers(home: Home) -> tuple[str, str] | None:
    """Look for servers that the user named; the environment goes before `.env`.

    Args:
        home: its `.env` is read too.

    Returns:
        Database URL (with our driver) and Redis URL, or None when neither is set.

    Raises:
        ServerError: only one is set, or one is no such URL.
    """
    known = {**_read_env_file(home.root / ".env"), **os.environ}
    database, redis = known.get(DATABASE), known.get(REDIS)
    if not database and not redis:
        return None
    if not database or not redis:
        given, missing = (REDIS, DATABASE) if redis else (DATABASE, REDIS)
        raise ServerError(
            f"{given} is set and {missing} is not: set both to use servers of your own, "
            "or neither for the embedded ones"
        )
    return _for_psycopg(database), _for_redis(redis)


def with_password(url: URL) -> str:
    """Write a URL out in full; it is for drivers, never for a log.

    Args:
        url: the URL.

    Returns:
        Its text, password included.
    """
    return url.render_as_string(hide_password=False)


def place_of(url: str) -> str:
    """Tell where a URL points to, and nothing that is secret.

    Args:
        url: a database or Redis URL.

    Returns:
        Host and port.
    """
    parts = make_url(url)
    default = 5432 if parts.drivername.startswith("postgres") else 6379
    return f"{parts.host or 'localhost'}:{parts.port or default}"


def _for_psycopg(database: str) -> str:
    url = _parsed(database, DATABASE)
    if url.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ServerError(f"{DATABASE} must name a PostgreSQL, not {url.drivername}")
    return with_password(url.set(drivername="postgresql+psycopg"))


def _for_redis(redis: str) -> str:
    if _parsed(redis, REDIS).drivername not in {"redis", "rediss", "unix"}:
        raise ServerError(f"{REDIS} must begin with redis://, rediss:// or unix://")
    return redis


def _parsed(text: str, variable: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # From None: the original error quotes the text, password included.
        raise ServerError(
            f"{variable} is no URL: write scheme://user:password@host:port/name"
        ) from None
    if "@" in (url.host or ""):
        # The rest of the password, taken for the host: `labkit up` would print it.
        raise ServerError(f"{variable}: write the @ in the password as %40")
    return url


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return {key.strip(): value.strip().strip("'\"") for key, equals, value in pairs if equals}
