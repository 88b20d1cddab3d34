"""What a relay process of a bench does; apart, so that it starts without what only draws."""

from __future__ import annotations

from sqlalchemy import Engine

from labkit.shop import fulfillment
from labkit.transports.redis_streams import RedisStreams


def relay_all(engine: Engine, transport: RedisStreams) -> None:
    """Be a relay until nothing waits; the next one under this name goes on without waiting.

    Args:
        engine: the orders' database.
        transport: the streams.
    """
    relay = fulfillment.service.relay(engine, transport, owner="repetidor")
    while relay.run_once():
        pass
    relay.leases.release()
