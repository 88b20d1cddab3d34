"""A service beside another one: a consumer of its own, and everything else is shared."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labkit.dead_letters import Wanted
from labkit.errors import ConfigurationError
from labkit.lab import sites
from labkit.lab.entries import Entries
from labkit.lab.servers import Stack
from labkit.lab.service_checks import checks
from labkit.lab.sites import Site
from labkit.lab.trace import trace
from labkit.observe import measure
from labkit.service import Service
from tests import commands, toy
from tests.flow import Flow
from tests.neighbour import watcher

Labkit = Callable[..., subprocess.CompletedProcess[str]]


def consume(flow: Flow, service: Service) -> None:
    (consumer,) = service.consumers(flow.target, flow.transport, clock=flow.clock)
    while consumer.run_once():
        pass
    consumer.leases.release()


@pytest.fixture
def message_id(flow: Flow) -> str:
    """Return the id of a message that both services were given, and one of them refused."""
    (message_id,) = toy.happen(flow.source, "a", 1, behaviour="refuse")
    toy.repaired.add("refuse")
    flow.relay.run_once()
    for service in (toy.target, watcher):
        consume(flow, service)
    return message_id


@pytest.fixture
def labkit(flow: Flow, servers: Stack) -> Labkit:
    environment = os.environ | {"LABKIT_HOME": str(servers.home), "NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return commands.labkit(environment, *arguments)

    return run


def test_each_service_of_a_context_handles_every_message_once(flow: Flow) -> None:
    toy.happen(flow.source, "a", 1, 2)
    flow.relay.run_once()

    for service in (toy.target, watcher, watcher, toy.target):
        consume(flow, service)

    assert flow.effects("a") == flow.effects("watched a") == [1, 2]


def test_tables_of_a_context_are_created_by_any_of_its_services(flow: Flow) -> None:
    watcher.create_tables(flow.source)

    sites_of_both = [Site(each, flow.source) for each in (toy.target, watcher)]
    assert [site.name for site in sites_of_both] == ["target", "target"]
    assert toy.effects_of(flow.source) == []


def test_a_dead_letter_belongs_to_the_service_that_refused_it(flow: Flow, message_id: str) -> None:
    with flow.target.connect() as connection:
        found = watcher.dead_letters.find(connection, Wanted())

    assert [(each.consumer, each.message_id) for each in found] == [("watcher", message_id)]
    assert flow.effects() == [1]


def test_services_of_one_context_are_measured_as_one(flow: Flow, message_id: str) -> None:
    found = measure(watcher, flow.target)

    assert {each.labels["service"] for each in found} == {"target"}
    assert ("held", 1.0) in {(each.name, each.value) for each in found}


def test_a_message_is_traced_through_all_services_of_a_context_once(flow: Flow) -> None:
    toy.happen(flow.source, "a", 1)
    flow.relay.run_once()
    for service in (toy.target, watcher):
        consume(flow, service)
    (answer,) = _stored(flow)
    places = [Site(toy.source, flow.source), Site(toy.target, flow.target, (watcher,))]

    root = trace(answer, places, Entries(flow.transport)).root

    received = [moment.where for moment in root.moments if moment.what == "received"]
    assert received == ["target", "watcher"]
    assert [(each.type, each.service) for each in root.caused] == [("Ignored", "target")]
    assert [m.what for m in root.caused[0].moments].count("appended") == 1


def _stored(flow: Flow) -> list[str]:
    with flow.target.connect() as connection:
        query = "select message_id from outbox_messages"
        return list(connection.exec_driver_sql(query).scalars())


# --- where they are found ---


@pytest.fixture
def named(servers: Stack) -> Iterator[str]:
    """Return the name of the target's database, made under that very name."""
    servers.database("target")
    yield "target"
    servers.drop_database("target")


def test_a_service_is_found_in_the_database_of_its_context(servers: Stack, named: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="tables missing"),
        sites.opened(servers, [watcher]),
    ):
        pass


def test_services_of_one_context_are_one_site(flow: Flow, servers: Stack) -> None:
    here, there = (str(each.url.database) for each in (flow.target, flow.source))
    toy.target.create_tables(flow.source)
    services, databases = [watcher, toy.target, toy.target], [here, here, there]

    with sites.opened(servers, services, databases) as found:
        assert [(site.database, site.service, site.beside) for site in found] == [
            (here, watcher, (toy.target,)),
            (there, toy.target, ()),
        ]
        assert [each.consumer for each in found[0].subscribed()] == ["watcher", "target"]


def test_the_doctor_looks_at_a_context_once_and_knows_all_its_readers(
    servers: Stack, named: str
) -> None:
    found = [check.name for check in checks(servers, [toy.target, watcher])]

    assert found == ["target schema"]


# --- on the command line ---


BOTH = ("--service=tests.toy:target", "--service=tests.neighbour:watcher")


def test_a_dead_letter_is_listed_once_and_redriven_by_its_id(
    flow: Flow, labkit: Labkit, message_id: str
) -> None:
    where = (*BOTH, f"--database={flow.target.url.database}")
    listed = json.loads(labkit("dead-letters", "list", *where, "--json").stdout)
    redriven = labkit("dead-letters", "redrive", message_id, *where)

    assert [each["consumer"] for each in listed] == ["watcher"]
    assert redriven.returncode == 0, redriven.stderr


def test_the_partitions_of_a_context_are_listed_once(flow: Flow, labkit: Labkit) -> None:
    consume(flow, watcher)

    where = (*BOTH, f"--database={flow.target.url.database}", "--json")
    listed = json.loads(labkit("partitions", "list", *where).stdout)

    numbers = [each["partition"] for each in listed if each["name"] == "watcher < source.events"]
    assert sorted(numbers) == list(range(toy.SOURCE.partitions))


def test_the_numbers_of_a_context_are_shown_once_under_its_name(flow: Flow, labkit: Labkit) -> None:
    where = [f"--database={flow.target.url.database}"] * 2

    shown: Any = labkit("outbox", "stats", *BOTH, *where).stdout

    titles = [line.strip() for line in shown.splitlines() if line.strip() in {"target", "watcher"}]
    assert titles == ["target"]


def test_run_says_who_runs_the_relay_of_a_context(flow: Flow, labkit: Labkit) -> None:
    where = f"--database={flow.target.url.database}"

    result = labkit("run", "tests.neighbour:watcher", "--role=relay", where)

    assert result.returncode == 1
    assert "watcher has no relay of its own: run that of target" in result.stderr
