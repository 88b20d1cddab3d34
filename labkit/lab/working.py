"""What a worker process of a bench does; apart, so that it starts without what only draws."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine

from labkit.cli.work import run_all, stop_on_signals
from labkit.service import Role, Service
from labkit.shop import checkout, fulfillment, inventory, payments
from labkit.transports.redis_streams import RedisStreams

SERVICES: Mapping[str, Service] = {
    each.name: each
    for each in (fulfillment.service, inventory.service, payments.service, checkout.service)
}


def work_as(engine: Engine, transport: RedisStreams, name: str, role: Role, owner: str) -> None:
    """Be a worker until SIGTERM, as `labkit run` is.

    Args:
        engine: the service's database.
        transport: the streams.
        name: of one of `SERVICES`.
        role: what to do for it.
        owner: its name; whoever comes next under it need not wait for the lease to end.
    """
    run_all(SERVICES[name].workers(role, engine, transport, owner=owner), stop_on_signals())
