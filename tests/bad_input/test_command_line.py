"""The command line given nonsense: one short complaint, an exit code, no traceback, no password."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from labkit.lab.servers import Stack
from tests import commands

SECRET = "my-secret"
SHOP = "labkit.shop.inventory:service"
AWAY = {
    "LABKIT_DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:1/x",
    "LABKIT_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
}


def labkit(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    wide = os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}
    return commands.labkit(wide | environment, *arguments)


def complained(result: subprocess.CompletedProcess[str], *codes: int) -> str:
    said = result.stdout + result.stderr
    assert result.returncode in codes, said
    assert "Traceback" not in said
    assert SECRET not in said
    return said


@pytest.mark.parametrize("arguments", [("up",), ("demo", "--orders=1"), ("run", SHOP)])
@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"LABKIT_DATABASE_URL": f"postgresql://me:a@{SECRET}@host/x"}, "%40"),
        ({"LABKIT_REDIS_URL": f"http://:{SECRET}@host"}, "must begin with redis://"),
        ({"LABKIT_FAULTS": "relay.after_publish:explode"}, "LABKIT_FAULTS: cannot read"),
        ({"LABKIT_FAULTS": "relay.nowhere:kill"}, "no such point: relay.nowhere"),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy(
    tmp_path: Path, arguments: tuple[str, ...], wrong: dict[str, str], remedy: str
) -> None:
    result = labkit(AWAY | {"LABKIT_HOME": str(tmp_path)} | wrong, *arguments)

    assert remedy in complained(result, 1)


@pytest.mark.parametrize("arguments", [("demo", "--orders=1"), ("run", SHOP), ("doctor",)])
def test_servers_that_are_away_are_a_short_complaint(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    complained(labkit(AWAY | {"LABKIT_HOME": str(tmp_path)}, *arguments), 1)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--lease=nan", "lease"),
        ("--lease=inf", "lease"),
        ("--lease=1e9", "lease"),
        ("--lease=0", "lease"),
        ("--prefix={x}", "prefix"),
        ("--prefix=a b", "prefix"),
        (f"--name={'x' * 10_000}", "owner"),
        ("--role=boss", "role"),
    ],
)
def test_a_worker_refuses_an_option_that_makes_no_sense(
    servers: Stack, database: str, option: str, named: str
) -> None:
    home = {"LABKIT_HOME": str(servers.home)}
    place = f"--database={database.rpartition('/')[2]}"

    result = labkit(home, "run", SHOP, place, option)

    assert named in complained(result, 1, 2)
