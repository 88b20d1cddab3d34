"""What docker-compose.yml promises, read from the file: no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)

each_service = pytest.mark.parametrize("service", sorted(SERVICES))


def test_the_three_servers_are_offered_in_their_major_versions() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}

    assert images == {
        "postgres": "postgres:18",
        "redis": "redis:8",
        "rabbitmq": "rabbitmq:4-management",
    }


@each_service
def test_a_port_is_bound_to_loopback_only(service: str) -> None:
    ports = SERVICES[service]["ports"]

    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


@each_service
def test_a_service_says_when_it_is_healthy(service: str) -> None:
    check = SERVICES[service]["healthcheck"]

    assert check["test"]
    assert {"interval", "timeout", "retries"} <= check.keys()


@each_service
def test_data_outlives_its_container(service: str) -> None:
    volumes = {volume.split(":")[0] for volume in SERVICES[service]["volumes"]}

    assert volumes <= yaml.safe_load(TEXT)["volumes"].keys()


@each_service
def test_a_password_is_asked_for_and_never_written_down(service: str) -> None:
    secrets = {
        name: value
        for name, value in SERVICES[service]["environment"].items()
        if re.search("PASS|AUTH", name)
    }

    assert secrets
    assert all(re.fullmatch(r"\$\{LABKIT_\w+_PASSWORD:\?[^}]+\}", s) for s in secrets.values())


@each_service
def test_no_command_line_carries_a_password(service: str) -> None:
    lines = [SERVICES[service].get("command", []), SERVICES[service]["healthcheck"]["test"]]

    assert "PASSWORD" not in str(lines)
    assert not re.search(r"--requirepass|redis-cli\b.*\s-a\b", str(lines))


def test_a_commit_in_postgresql_waits_for_the_disk() -> None:
    assert "synchronous_commit=on" in SERVICES["postgres"]["command"]


def test_postgresql_notes_when_a_commit_happened() -> None:
    assert "track_commit_timestamp=on" in SERVICES["postgres"]["command"]


def test_redis_keeps_what_it_acknowledged_and_evicts_nothing() -> None:
    command = str(SERVICES["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass" in command


def test_the_example_names_every_variable_that_compose_asks_for() -> None:
    assert set(re.findall(r"\$\{(\w+)", TEXT)) <= EXAMPLE.keys()


def test_every_password_of_the_example_says_that_it_must_be_changed() -> None:
    passwords = [value for name, value in EXAMPLE.items() if name.endswith("_PASSWORD")]

    assert passwords
    assert all(password.startswith("change-me") for password in passwords)


@pytest.mark.parametrize(
    ("url", "service", "password"),
    [
        ("LABKIT_DATABASE_URL", "postgres", "LABKIT_POSTGRES_PASSWORD"),
        ("LABKIT_REDIS_URL", "redis", "LABKIT_REDIS_PASSWORD"),
        ("LABKIT_AMQP_URL", "rabbitmq", "LABKIT_RABBITMQ_PASSWORD"),
    ],
)
def test_an_address_of_the_example_leads_to_its_service(
    url: str, service: str, password: str
) -> None:
    host, port, _ = SERVICES[service]["ports"][0].split(":")

    assert f":{EXAMPLE[password]}@{host}:{port}/" in EXAMPLE[url]
