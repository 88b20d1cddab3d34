"""The preconditions that Redis or Valkey must meet; see `labkit.lab.preconditions`."""

from __future__ import annotations

import re
from typing import Any

import redis

from labkit.lab.preconditions import Check

# The first with XAUTOCLAIM and XTRIM MINID.
_OLDEST_REDIS = (6, 2)
_FULL = 0.9
_COMMANDS = (
    *("xadd", "xack", "xautoclaim", "xdel", "xgroup", "xinfo", "xlen", "xpending"),
    *("xrange", "xread", "xreadgroup", "xtrim", "eval", "evalsha", "script", "time"),
    *("hget", "hset", "get", "set", "incr", "pexpire"),
)


def redis_version(client: redis.Redis) -> Check:
    """Redis or Valkey has streams that can be trimmed behind their readers."""
    info = client.info("server")
    valkey = info.get("valkey_version")
    # Valkey tells the Redis version that it is compatible with, besides its own.
    numbers = tuple(int(n) for n in re.findall(r"\d+", str(info["redis_version"]))[:2])
    return Check(
        "Redis version",
        numbers >= _OLDEST_REDIS,
        f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
        "use Redis 6.2 or newer, or any Valkey: older ones have no XTRIM MINID and no XAUTOCLAIM",
    )


def append_only_file(client: redis.Redis) -> Check:
    """A restart of Redis brings the streams back."""
    enabled = bool(int(client.info("persistence")["aof_enabled"]))
    return Check(
        "Redis append-only file",
        enabled,
        "on" if enabled else "off",
        "set appendonly yes; or rely on the relay's reconcile, which publishes retained outbox "
        "rows again after a loss",
        "warning",
    )


def eviction(client: redis.Redis) -> Check:
    """Redis refuses writes when memory is full, instead of forgetting streams."""
    policy = str(client.info("memory")["maxmemory_policy"])
    return Check(
        "Redis maxmemory-policy",
        policy == "noeviction",
        policy,
        "set maxmemory-policy noeviction: any other policy may throw a stream away unread",
    )


def memory(client: redis.Redis) -> Check:
    """Redis has room for what is published next."""
    info = client.info("memory")
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    return Check(
        "Redis maxmemory",
        not most or used < _FULL * most,
        f"{used / most:.0%} of {most / 1e6:.0f} MB in use" if most else "no limit",
        "raise maxmemory, or let the cleaner trim streams: at 100 % Redis refuses to publish and "
        "the outbox fills",
        "warning",
    )


def primary(client: redis.Redis) -> Check:
    """This Redis takes writes."""
    role = str(client.info("replication")["role"])
    return Check(
        "Redis role",
        role == "master",
        "primary" if role == "master" else f"{role}, read-only",
        "point LABKIT_REDIS_URL to the primary: a replica refuses to publish",
    )


def commands(client: redis.Redis) -> Check:
    """Every command that labkit sends exists here (asked by name: versions tell little)."""
    # Why not ("COMMAND", "INFO", ...): redis-py's own parser fails on a command that is missing.
    ask: Any = client.execute_command
    answers = ask("COMMAND INFO", *_COMMANDS)
    missing = [name for name, about in zip(_COMMANDS, answers, strict=True) if not about]
    return Check(
        "Redis commands",
        not missing,
        f"missing: {', '.join(missing)}" if missing else f"all {len(_COMMANDS)} are there",
        "use Redis 6.2 or newer, or Valkey; some hosted ones take commands away",
    )
