"""A connection to Redis: how labkit opens one, and what its errors mean to a worker.

The question behind every error is whether waiting helps. A server that is away, full, loading or
read-only may come back (`BrokerUnavailableError`); a wrong password, missing rights or a key of
another type need a person (`ConfigurationError`). Neither text holds the password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError as RedisConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry

from labkit.errors import BrokerUnavailableError, ConfigurationError

SOCKET_TIMEOUT_S = 5.0


def connect(url: str) -> redis.Redis:
    """Open a client as labkit wants it.

    Args:
        url: `redis://[:password@]host:port/db`.

    Returns:
        A client with keep-alive and time limits; it connects at the first command.

    Raises:
        ConfigurationError: when this is no address of a Redis.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=2.0,
            socket_keepalive=True,
            # Why no retries: the workers have their own, and a lease that ends meanwhile.
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, AttributeError, TypeError, RedisError):
        # Why not "from error": it may quote a part of the password.
        raise ConfigurationError("LABKIT_REDIS_URL is no redis:// address") from None


@contextmanager
def naming_errors(key: str = "") -> Iterator[None]:
    """Turn what Redis answers into what a worker should do about it.

    Args:
        key: what is asked for, for whoever has to look at it.

    Raises:
        BrokerUnavailableError: when it may pass.
        ConfigurationError: when it will not.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise ConfigurationError(
            f"Redis refuses this user: check LABKIT_REDIS_URL ({type(error).__name__})"
        ) from error
    except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
        if "WRONGTYPE" in str(error):
            raise _foreign(key, "another type") from error
        raise BrokerUnavailableError(
            f"Redis did not take it: {type(error).__name__}: {error}"
        ) from error
    except RedisError as error:
        raise ConfigurationError(
            f"LABKIT_REDIS_URL leads to something that is no Redis ({type(error).__name__})"
        ) from error
    except ValueError as error:
        raise _foreign(key, "no number of ours") from error


def _foreign(key: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{key or 'a key of ours'} holds {what}: give RedisStreams another prefix, or delete it"
    )
