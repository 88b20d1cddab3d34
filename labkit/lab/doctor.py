"""Ask every precondition of the promise and collect the answers.

Guarantee: each failed check says in one sentence what to do; a server that is away is one failed
check, not a traceback; no password is ever shown.
Not guaranteed: that what held a moment ago still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import redis
from sqlalchemy.engine import make_url

from labkit.lab import preconditions, server_health, service_checks
from labkit.lab.environment import place_of, with_password
from labkit.lab.preconditions import Check
from labkit.lab.servers import Stack
from labkit.service import Service

__all__ = ["Check", "checks"]

_TIMEOUT_S = 3.0
_POSTGRES = (
    preconditions.postgres_version,
    preconditions.synchronous_commit,
    preconditions.fsync,
    preconditions.encoding,
    preconditions.max_connections,
    server_health.commit_times,
    server_health.open_transactions,
    server_health.prepared_transactions,
)
_REDIS = (
    preconditions.redis_version,
    preconditions.append_only_file,
    preconditions.eviction,
    server_health.memory,
    preconditions.primary,
    preconditions.commands,
)
# What a server that is away, half-way up or forbids the question makes a driver raise.
_FAILURES = (psycopg.Error, redis.RedisError, OSError, ValueError, KeyError)


def checks(stack: Stack, services: Sequence[Service] = (), prefix: str = "") -> list[Check]:
    """Ask this Python, PostgreSQL and Redis for every precondition.

    Args:
        stack: the servers to ask.
        services: whose databases and streams to look at, where they exist.
        prefix: put before every key in Redis.

    Returns:
        All checks, in reading order; those of a server that is away are one.
    """
    conn, client = _open_postgres(stack), _open_redis(stack)
    found = [preconditions.python_version(), preconditions.hiredis_in_use()]
    found += _ask_all(conn, _POSTGRES)
    found += _ask_all(client, _REDIS)
    if not isinstance(conn, Check) and not isinstance(client, Check):
        found.append(_ask(preconditions.clocks, conn, client))
    found.append(_ask(preconditions.loopback, "PostgreSQL", stack.database_url))
    found.append(_ask(preconditions.loopback, "Redis", stack.redis_url))
    if services and not isinstance(conn, Check) and not isinstance(client, Check):
        found += service_checks.checks(stack, services, prefix)
    for opened in (conn, client):
        if not isinstance(opened, Check):
            opened.close()
    return [_without_passwords(check, stack) for check in found]


def _ask_all(server: Any, questions: Sequence[Callable[[Any], Check]]) -> list[Check]:
    if isinstance(server, Check):
        return [server]
    return [_ask(question, server) for question in questions]


def _ask(question: Callable[..., Check], *subjects: Any) -> Check:
    try:
        return question(*subjects)
    except _FAILURES as exc:
        name = question.__name__.replace("_", " ")
        remedy = "see that the server runs and that its user may ask this, then run it again"
        return Check(name, ok=False, detail=f"no answer: {exc}", remedy=remedy)


def _open_postgres(stack: Stack) -> psycopg.Connection | Check:
    plain = with_password(make_url(stack.database_url).set(drivername="postgresql"))
    try:
        return psycopg.connect(plain, autocommit=True, connect_timeout=round(_TIMEOUT_S))
    except _FAILURES as exc:
        return _away("PostgreSQL", stack.database_url, exc)


def _open_redis(stack: Stack) -> redis.Redis | Check:
    try:
        client = redis.Redis.from_url(
            stack.redis_url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=None,
        )
        client.ping()
    except _FAILURES as exc:
        return _away("Redis", stack.redis_url, exc)
    return client


def _away(service: str, url: str, exc: Exception) -> Check:
    return Check(
        f"{service} answers",
        ok=False,
        detail=f"{place_of(url)}: {exc}".strip(),
        remedy="`labkit up` starts the embedded servers, `docker compose up -d` those of compose; "
        "if you named your own, check address and password",
    )


def _without_passwords(check: Check, stack: Stack) -> Check:
    detail = check.detail
    for url in (make_url(stack.database_url), make_url(stack.redis_url)):
        for secret in (url.password, url.query.get("password")):
            detail = detail.replace(str(secret), "***") if secret else detail
    return replace(check, detail=detail)
