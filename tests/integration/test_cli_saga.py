"""`labkit saga`, run as a person or a script would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from labkit import db
from labkit.cli import main
from labkit.clock import FakeClock
from labkit.lab.servers import Stack
from labkit.saga import COMPENSATED, COMPLETED, STUCK
from labkit.saga.operations import Line, Operations
from labkit.transports.redis_streams import RedisStreams
from tests import commands, saga_flow
from tests.saga_flow import Play, sagas
from tests.toy_saga import OutOfStock, Released, Reserved

WIDTH = 80
Labkit = Callable[..., subprocess.CompletedProcess[str]]
NASTY = "[red]\x1b[2J\u202e"


@pytest.fixture
def play(
    engine: Engine, new_database: Callable[[], str], transport: RedisStreams, clock: FakeClock
) -> Iterator[Play]:
    """Return the flow, on whose database the commands work."""
    peers = db.connect(new_database())
    yield Play(engine, peers, transport, clock)
    saga_flow.broken.clear()
    peers.dispose()


@pytest.fixture
def labkit(play: Play, servers: Stack) -> Labkit:
    """Return a function that runs `labkit saga` on the flow's database."""
    environment = os.environ | {
        "LABKIT_HOME": str(servers.home),
        "NO_COLOR": "1",
        "COLUMNS": str(WIDTH),
    }

    def run(
        *arguments: str, answer: str = "", service: str = "tests.saga_flow:ordering"
    ) -> subprocess.CompletedProcess[str]:
        where = [f"--service={service}", f"--database={play.engine.url.database}"]
        return commands.labkit(environment, "saga", *arguments, *where, answer=answer)

    return run


def history(play: Play, saga_id: str = "S-1") -> list[Line]:
    with Session(play.engine) as session:
        return Operations(sagas).one(session, saga_id).history


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failure is."""
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    return result.stderr


def test_the_list_shows_what_is_stuck_first_within_the_width_of_a_terminal(
    labkit: Labkit, play: Play
) -> None:
    play.start("S-1")
    play.stick_behind_the_pivot("S-2")

    result = labkit("list")

    assert result.returncode == 0
    assert max(map(len, result.stdout.splitlines())) <= WIDTH
    assert result.stdout.index("S-2") < result.stdout.index("S-1")
    squeezed = "".join(result.stdout.split())
    assert [word in squeezed for word in ("STUCK", "shipping", "STRIKE")] == [True] * 3


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["S-2", "S-1"]),
        (["--all"], ["S-2", "S-1", "S-3"]),
        (["--status=stuck"], ["S-2"]),
        (["--status=compensated", "--status=RUNNING"], ["S-1", "S-3"]),
        (["--older-than=1000d"], []),
        (["--waiting=1000d"], []),
        (["--saga=toy", "--limit=1"], ["S-2"]),
    ],
)
def test_the_list_can_be_narrowed_for_scripts(
    labkit: Labkit, play: Play, options: list[str], ids: list[str]
) -> None:
    play.start("S-1", "S-3")
    play.answer("S-3", OutOfStock())
    play.stick_behind_the_pivot("S-2")
    found = json.loads(labkit("list", "--json", *options).stdout)
    assert [each["id"] for each in found] == ids


def test_an_empty_list_says_so(labkit: Labkit) -> None:
    assert labkit("list").stdout == "no sagas\n"


def test_show_prints_reason_data_and_history(labkit: Labkit, play: Play) -> None:
    play.stick_behind_the_pivot()

    result = labkit("show", "S-1")

    assert max(map(len, result.stdout.splitlines())) <= WIDTH
    assert "stock, order, payment" in result.stdout
    assert '  "order": "S-1",' in result.stdout
    assert "STRIKE" in result.stdout
    assert "started" in result.stdout


def test_show_tells_scripts_everything(labkit: Labkit, play: Play) -> None:
    play.stick_behind_the_pivot()
    shown = json.loads(labkit("show", "S-1", "--json").stdout)
    assert shown["state"]["data"] == {"order": "S-1", "lines": ["A"]}
    assert [line["what"] for line in shown["history"]][-2:] == ["answered", "stuck"]
    assert shown["database"] == play.engine.url.database


def test_retry_sends_the_command_again_and_notes_who(labkit: Labkit, play: Play) -> None:
    play.stick_while_compensating()

    result = labkit("retry", "S-1", "--why=stock is back", "--who=op-1")

    assert (result.returncode, result.stdout) == (
        0,
        "retried S-1: now COMPENSATING at stock/undo\n",
    )
    retried = history(play)[-2]
    assert (retried.what, retried.detail, retried.who) == ("retried", "stock is back", "op-1")
    play.work()
    play.answer("S-1", Released())
    assert play.state("S-1").status is COMPENSATED


@pytest.mark.parametrize(("answer", "skips"), [("y\n", True), ("n\n", False)])
def test_skip_asks_first(labkit: Labkit, play: Play, answer: str, skips: bool) -> None:
    play.stick_behind_the_pivot()
    result = labkit("skip", "S-1", "--why=by hand", answer=answer)
    assert "S-1 is STUCK at shipping/do" in result.stdout
    assert result.returncode == (0 if skips else 1)
    assert play.state("S-1").status is (COMPLETED if skips else STUCK)


def test_cancel_undoes_what_runs(labkit: Labkit, play: Play) -> None:
    play.start("S-1")
    result = labkit("cancel", "S-1", "--why=twice", "--who=customer", "--yes", "--json")
    assert json.loads(result.stdout) == {
        "cancelled": "S-1",
        "status": "COMPENSATING",
        "step": "stock/undo",
    }
    assert play.sent("S-1") == ["reserve", "release"]


def test_the_operators_login_is_noted_unless_another_name_is_given(
    labkit: Labkit, play: Play
) -> None:
    play.stick_behind_the_pivot()
    labkit("retry", "S-1", "--why=so")
    assert history(play)[-1].who not in {None, ""}


def test_what_cannot_be_is_one_line_with_the_remedy(labkit: Labkit, play: Play) -> None:
    play.stick_behind_the_pivot()
    said = complaint(labkit("compensate", "S-1", "--why=so", "--yes"))
    assert "past the point of no return: retry or skip shipping" in said


def test_the_second_operator_is_told_what_the_first_did(labkit: Labkit, play: Play) -> None:
    play.stick_behind_the_pivot()
    labkit("retry", "S-1", "--why=strike is over", "--who=op-1")
    said = complaint(labkit("skip", "S-1", "--why=by hand", "--who=op-2", "--yes"))
    assert "op-1 retried shipping/do at " in said
    assert "(strike is over)" in said


@pytest.mark.parametrize("verb", ["show", "retry", "skip", "compensate", "cancel"])
def test_an_unknown_id_names_the_remedy(labkit: Labkit, play: Play, verb: str) -> None:
    why = [] if verb == "show" else ["--why=so"]
    assert "there is no toy S-9: see labkit saga list --all" in complaint(labkit(verb, "S-9", *why))


def test_a_decision_without_a_reason_is_refused(labkit: Labkit, play: Play) -> None:
    play.stick_behind_the_pivot()
    assert labkit("retry", "S-1").returncode == 2
    assert "say who" in complaint(labkit("retry", "S-1", "--why= "))


def test_local_work_that_fails_is_one_line_and_changes_nothing(
    play: Play,
    servers: Stack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    play.start("S-1")
    play.make_stuck("S-1")
    saga_flow.broken.add("S-1")
    monkeypatch.setenv("LABKIT_HOME", str(servers.home))
    place = ["--service=tests.saga_flow:ordering", f"--database={play.engine.url.database}"]
    arguments = ["labkit", "saga", "skip", "S-1", "--why=so", "--yes", *place]
    monkeypatch.setattr(sys, "argv", arguments)

    with pytest.raises(SystemExit) as ended:
        main()

    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (1, 1)
    assert "nothing is changed" in said
    assert "BrokenError('S-1')" in said
    assert play.state("S-1").status is STUCK


def test_a_service_without_sagas_names_the_remedy(labkit: Labkit, play: Play) -> None:
    said = complaint(labkit("list", service="tests.saga_flow:peers"))
    assert "name the service that declares them" in said


def test_an_unknown_name_of_sagas_is_told_those_that_there_are(labkit: Labkit, play: Play) -> None:
    assert "there are toy" in complaint(labkit("list", "--saga=other"))


def test_a_strangers_text_is_only_text(labkit: Labkit, play: Play) -> None:
    play.start(f"S-{NASTY}")
    play.answer(f"S-{NASTY}", Reserved())
    for output in (labkit("list").stdout, labkit("show", f"S-{NASTY}").stdout):
        assert "[red]" in "".join(output.split())
        assert not {"\x1b", "\u202e"} & set(output)
