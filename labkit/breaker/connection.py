"""The connection of a shared breaker: one that answers soon or not at all.

The problem: redis-py waits five seconds for an answer and then tries again. A Redis that hangs
would so hang every protected call, in front of a dependency that is well.

Not guaranteed: a time limit for looking up the server's name; give an address, or a local resolver.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labkit import limits
from labkit.errors import ConfigurationError

SOCKET_TIMEOUT_S = 0.05
MAX_SOCKET_TIMEOUT_S = 1.0
_REMEDY = "open it with labkit.breaker.connect(url)"


def connect(url: str, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """Open a client as a breaker wants it: short time limits, no attempts of its own.

    Args:
        url: `redis://[:password@]host:port/db`.
        socket_timeout_s: for connecting and for each answer, up to `MAX_SOCKET_TIMEOUT_S`.

    Returns:
        A client that connects at the first call.

    Raises:
        ConfigurationError: when this is no address of a Redis, or the limit is too long.
    """
    limits.number("socket_timeout_s", socket_timeout_s, 0.001, MAX_SOCKET_TIMEOUT_S)
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=socket_timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, AttributeError, TypeError, redis.RedisError):
        # Why not "from error": it may quote a part of the password.
        raise ConfigurationError("this is no redis:// address") from None


def check(client: Any) -> None:
    """Refuse a client with which a protected call could hang.

    Raises:
        ConfigurationError: when it waits for too long, or tries again by itself.
    """
    limits.kind("client", client, redis.Redis)
    settings = client.get_connection_kwargs()
    for name in ("socket_timeout", "socket_connect_timeout"):
        # Both must be named: what redis-py does without one of them differs between its versions.
        limit_s = settings.get(name)
        if limit_s is None or limit_s > MAX_SOCKET_TIMEOUT_S:
            raise ConfigurationError(
                f"the client's {name} is {limit_s}: a Redis that hangs would hang every protected "
                f"call for as long; allow at most {MAX_SOCKET_TIMEOUT_S} s, or {_REMEDY}"
            )
    if getattr(settings.get("retry"), "_retries", 0) or settings.get("retry_on_timeout"):
        raise ConfigurationError(
            "the client tries again by itself, so a protected call would wait several times: "
            f"give it retry=Retry(NoBackoff(), 0), or {_REMEDY}"
        )
    _check_pool(client.connection_pool)


def _check_pool(pool: redis.ConnectionPool) -> None:
    if isinstance(pool, redis.BlockingConnectionPool):
        waits_s = pool.timeout
        if waits_s is None or waits_s > MAX_SOCKET_TIMEOUT_S:
            raise ConfigurationError(
                f"the client's pool lets calls wait {waits_s} s for a connection: allow at most "
                f"{MAX_SOCKET_TIMEOUT_S} s, or {_REMEDY}"
            )
