"""`labkit run --metrics-port`: the measures of `labkit.observe` in Prometheus' words.

Guarantee: numbers are read when they are asked for; a server that does not answer costs its own
numbers and shows in `labkit_scrape_failed`, never the page or the worker. Only this machine can
ask.
Not guaranteed: that the extra is installed: `pip install labkit-session7[metrics]`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from labkit import observe
from labkit.errors import ConfigurationError, LabkitError
from labkit.observe import Measure
from labkit.ports import Inspection
from labkit.saga import measures as sagas
from labkit.service import Service, Worker

log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_MEANING = {
    "outbox_pending": "Committed events that are not published yet.",
    "outbox_oldest_pending_age": "How long the oldest of them has been waiting.",
    "outbox_last_published_age": "How long ago the newest published row was published.",
    "outbox_refused": "Rows that the broker does not take.",
    "outbox_keys_waiting": "Keys whose events wait behind a refused row.",
    "held": "Messages that failed or wait behind one that did.",
    "held_oldest_age": "How long the oldest of them has been held.",
    "dead_letters": "Messages that wait for somebody to redrive them.",
    "lease_owners": "Workers that own partitions.",
    "lease_idle_partitions": "Partitions that nobody works on.",
    "inbox_rows_estimate": "Remembered messages, as PostgreSQL's planner estimates them.",
    "stream_length": "Entries in a partition of the stream.",
    "group_lag": "Entries that the group was never given.",
    "group_pending": "Entries that the group was given and has not acknowledged.",
    "group_oldest_lag_age": "Age of the oldest entry that the group was never given.",
    "group_oldest_pending_age": "Age of the oldest entry that the group has not acknowledged.",
    "consumer_messages": "Messages by what became of them, since the process began.",
    "saga_started": "Sagas that began.",
    "saga_completed": "Times that a saga ended well.",
    "saga_compensated": "Times that a saga ended with all made good.",
    "saga_failed": "Times that a saga was stuck, to wait for a person.",
    "saga_under_way": "Sagas that have not ended.",
    "saga_oldest_under_way_age": "How long ago the oldest of them began.",
    "saga_duration_seconds": "From the beginning of a saga to its end.",
    "scrape_failed": "1 for each side that did not answer this time.",
}


def serve(
    port: int, service: Service, engine: Engine, inspection: Inspection, workers: Sequence[Worker]
) -> int:
    """Serve `/metrics` on 127.0.0.1 in a thread of its own, for as long as the process lives.

    Args:
        port: where; 0 takes any that is free.
        service: what to measure.
        engine: its database; the connection is not shared with the workers.
        inspection: the broker.
        workers: whose counters to show.

    Returns:
        The port.

    Raises:
        ConfigurationError: when prometheus-client is missing or the port is taken.
    """
    prometheus: Any = _prometheus()
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(prometheus, service, engine, inspection, workers))
    try:
        server, _ = prometheus.start_http_server(port, addr=_HOST, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics on {_HOST}:{port} ({error.strerror}): choose another port"
        ) from error
    return int(server.server_port)


def _prometheus() -> Any:
    try:
        importlib.import_module("prometheus_client.core")
        return importlib.import_module("prometheus_client")
    except ImportError as error:
        raise ConfigurationError(
            "--metrics-port needs prometheus-client: pip install labkit-session7[metrics]"
        ) from error


class _Collector:
    """Measures at every scrape."""

    def __init__(
        self,
        prometheus: Any,
        service: Service,
        engine: Engine,
        inspection: Inspection,
        workers: Sequence[Worker],
    ) -> None:
        self._families = prometheus.core
        self._workers = workers
        self._sides: dict[str, Callable[[], list[Measure]]] = {
            "database": lambda: observe.measure_database(service, engine),
            "sagas": lambda: sagas.measure(service, engine),
            "broker": lambda: observe.measure_stream(service, inspection),
        }

    def describe(self) -> list[Any]:
        """Say nothing in advance: registering must not ask the servers."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return the families, one per name."""
        families: dict[str, Any] = {}
        for each in self._measures():
            if each.unit == "histogram":
                self._sample(families, each)
                continue
            family = families.setdefault(each.name, None) or self._family(each)
            families[each.name] = family
            family.add_metric(list(each.labels.values()), each.value)
        yield from families.values()

    def _measures(self) -> Iterator[Measure]:
        yield from observe.counters(self._workers)
        for side, ask in self._sides.items():
            try:
                found, failed = ask(), 0
            except (LabkitError, SQLAlchemyError) as error:
                log.warning("metrics: the %s does not answer: %s", side, error)
                found, failed = [], 1
            yield from found
            yield Measure("scrape_failed", {"side": side}, failed)

    def _sample(self, families: dict[str, Any], each: Measure) -> None:
        name = each.name.rpartition("_")[0]
        if name not in families:
            families[name] = self._families.Metric(f"labkit_{name}", _MEANING[name], "histogram")
        families[name].add_sample(f"labkit_{each.name}", each.labels, each.value)

    def _family(self, each: Measure) -> Any:
        counts = each.unit == "total"
        make = self._families.CounterMetricFamily if counts else self._families.GaugeMetricFamily
        unit = "_seconds" if each.unit == "seconds" else ""
        meaning = _MEANING.get(each.name, "What this worker did, since the process began.")
        return make(f"labkit_{each.name}{unit}", meaning, labels=list(each.labels))
