"""What README says is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from labkit.lab.servers import Stack

README = Path(__file__).parents[2] / "README.md"


def test_the_example_of_the_readme_runs_and_has_its_effect(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(servers.home))
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}

    exec(compile(example, "README.md", "exec", dont_inherit=True), names)

    assert _redriven(names) == [True]
    with names["mail_db"].connect() as connection:
        letters = connection.execute(text("select order_id from letters")).scalars().all()
    for engine in (names["mail_db"], names["shop_db"]):
        engine.dispose()
    names["streams"].client.close()
    assert letters == ["ORD-1"]


def _redriven(names: dict[str, Any]) -> list[bool]:
    """Make a dead letter, run the README's lines on it, and return which were marked."""
    (lines,) = re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
    streams, shop, mail = names["streams"], names["shop"], names["mail"]
    streams.client.xadd(streams.stream_key(shop.stream, 0), {"no": "message"})
    with names["mail_db"].begin() as connection:
        connection.execute(text("update lease set until = null"))
        connection.execute(text("delete from member"))
    mail.consumers(names["mail_db"], streams, owner="again")[0].run_once()
    exec(compile(lines, "README.md", "exec", dont_inherit=True), names)
    with names["mail_db"].connect() as connection:
        return list(connection.execute(text("select redrive from held")).scalars())


def test_the_example_of_the_readme_is_short() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [
        line for line in example.splitlines() if line and not line.startswith(("from ", "import "))
    ]

    assert len(lines) <= 21
