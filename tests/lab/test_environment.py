from __future__ import annotations

from pathlib import Path

import pytest

import labkit
from labkit.lab.home import find_home
from labkit.lab.servers import ServerError, reset, stack

OWN_DATABASE = "postgresql://me:hush@db.example:5433/app"
OWN_REDIS = "redis://:hush@cache.example:6380/0"


def test_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATABASE_URL", OWN_DATABASE)
    monkeypatch.setenv("LABKIT_REDIS_URL", OWN_REDIS)

    named = stack(tmp_path)

    assert named.source == "environment"
    assert named.database_url == OWN_DATABASE.replace("postgresql:", "postgresql+psycopg:")
    assert "hush" not in repr(named)


def test_env_file_of_the_home_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"# compose\nexport LABKIT_DATABASE_URL='{OWN_DATABASE}'\nLABKIT_REDIS_URL={OWN_REDIS}\n"
    )

    assert stack(tmp_path).redis_url == OWN_REDIS


@pytest.mark.parametrize(
    ("given", "missing"),
    [("LABKIT_DATABASE_URL", "LABKIT_REDIS_URL"), ("LABKIT_REDIS_URL", "LABKIT_DATABASE_URL")],
)
def test_half_an_environment_names_the_missing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    monkeypatch.setenv(given, OWN_DATABASE if "DATABASE" in given else OWN_REDIS)

    with pytest.raises(ServerError, match=f"{given} is set and {missing} is not"):
        stack(tmp_path)


@pytest.mark.parametrize(
    "nonsense", ["hush", "mysql://me:hush@db/app", "postgresql://me:hush@db:x/"]
)
def test_a_wrong_url_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: str
) -> None:
    monkeypatch.setenv("LABKIT_DATABASE_URL", nonsense)
    monkeypatch.setenv("LABKIT_REDIS_URL", OWN_REDIS)

    with pytest.raises(ServerError) as caught:
        stack(tmp_path)

    assert "hush" not in str(caught.value)


def test_servers_of_the_environment_are_not_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATABASE_URL", OWN_DATABASE)
    monkeypatch.setenv("LABKIT_REDIS_URL", OWN_REDIS)

    with pytest.raises(ServerError, match="empty them with their own tools"):
        reset(tmp_path)


def test_home_is_the_repository_and_never_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_home().root == Path(labkit.__file__).resolve().parents[1]


def test_labkit_home_chooses_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))

    assert find_home().root == tmp_path
