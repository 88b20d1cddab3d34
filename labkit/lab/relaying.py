"""What the processes of a bench do; apart, so that they start without what only draws."""

from __future__ import annotations

from sqlalchemy import Engine

from labkit.shop import fulfillment, inventory
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


def attend_all(engine: Engine, transport: RedisStreams) -> None:
    """Be inventory's consumer until nothing waits; the next one goes on without waiting.

    Args:
        engine: the stock's database.
        transport: the streams.
    """
    for consumer in inventory.service.consumers(engine, transport, owner="inventario"):
        while consumer.run_once():
            pass
        consumer.leases.release()
