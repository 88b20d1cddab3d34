"""`labkit dead-letters` and `labkit partitions`, run as a person or a script would."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from labkit.lab.servers import Stack
from tests import commands, toy
from tests.flow import Flow
from tests.toy import happen

WIDTH = 80
Labkit = Callable[..., subprocess.CompletedProcess[str]]
NASTY = "[red]\x1b[2J\u202e" + "x" * 200


@pytest.fixture
def labkit(flow: Flow, servers: Stack) -> Labkit:
    """Return a function that runs a command on the target's database."""
    environment = os.environ | {
        "LABKIT_HOME": str(servers.home),
        "NO_COLOR": "1",
        "COLUMNS": str(WIDTH),
    }
    database = flow.target.url.database

    def run(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        where = ["--service=tests.toy:target", f"--database={database}"]
        return commands.labkit(environment, *arguments, *where, answer=answer)

    return run


@pytest.fixture
def dead(flow: Flow) -> str:
    """Return the id of a dead letter behind which one message waits."""
    (message_id,) = happen(flow.source, "a", 1, behaviour="permanent no")
    happen(flow.source, "a", 2)
    flow.deliver(flow.consumer())
    return message_id


def age(flow: Flow, seconds: float) -> None:
    with flow.target.begin() as connection:
        older = "update held set held_at = held_at - make_interval(secs => :s)"
        connection.execute(text(older), {"s": seconds})


def discarded(flow: Flow) -> list[Any]:
    with flow.target.connect() as connection:
        query = text("select message_id, discarded_by, why from discarded")
        return [tuple(row) for row in connection.execute(query)]


def test_the_list_shows_each_dead_letter_within_the_width_of_a_terminal(
    labkit: Labkit, dead: str
) -> None:
    result = labkit("dead-letters", "list")

    assert result.returncode == 0
    assert max(map(len, result.stdout.splitlines())) <= WIDTH
    squeezed = "".join(result.stdout.split())
    assert "PermanentError" in squeezed
    assert "Happenedv1" in squeezed


def test_the_list_tells_scripts_everything_but_the_content(
    labkit: Labkit, flow: Flow, dead: str
) -> None:
    (letter,) = json.loads(labkit("dead-letters", "list", "--json").stdout)

    assert (letter["message_id"], letter["key"], letter["type"]) == (dead, "a", "Happened v1")
    assert (letter["behind"], letter["attempts"], letter["redrive"]) == (1, 1, False)
    assert letter["database"] == flow.target.url.database
    assert "body" not in letter


@pytest.mark.parametrize(
    ("option", "count"),
    [
        ("--consumer=other", 0),
        ("--key=a", 1),
        ("--type=Ignored", 0),
        ("--reason=PERMANENT", 1),
        ("--older-than=1h", 0),
    ],
)
def test_the_list_can_be_narrowed(labkit: Labkit, dead: str, option: str, count: int) -> None:
    assert len(json.loads(labkit("dead-letters", "list", "--json", option).stdout)) == count


def test_an_empty_list_says_so(labkit: Labkit) -> None:
    assert labkit("dead-letters", "list").stdout == "no dead letters\n"


def test_a_strangers_text_is_only_text(labkit: Labkit, flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour=f"permanent {NASTY}")
    flow.deliver(flow.consumer())

    listed, shown = (
        labkit("dead-letters", "list").stdout,
        labkit("dead-letters", "show", "--position=1").stdout,
    )

    for output in (listed, shown):
        assert "[red]" in "".join(output.split())
        assert not {"\x1b", "\u202e"} & set(output)
    assert "x" * 200 in "".join(shown.split())
    assert "x" * 200 not in "".join(listed.split())


def test_show_prints_reason_and_payload(labkit: Labkit, dead: str) -> None:
    result = labkit("dead-letters", "show", dead)

    assert "PermanentError: permanent no" in result.stdout
    assert '      "behaviour": "permanent no"\n' in result.stdout
    assert "1 of its key wait behind it" in result.stdout


def test_show_prints_bytes_that_are_no_message(labkit: Labkit, flow: Flow) -> None:
    stream = flow.transport.stream_key(toy.SOURCE, 0)
    flow.transport.client.xadd(stream, {"body": b"\xff\x00 no message"})
    flow.deliver(flow.consumer())

    assert "\\xff\\x00 no message" in labkit("dead-letters", "show", "--position=1").stdout


@pytest.mark.parametrize("verb", ["show", "redrive", "discard"])
def test_an_unknown_id_is_one_line_that_names_the_remedy(
    labkit: Labkit, dead: str, verb: str
) -> None:
    why = ["--reason=because"] if verb == "discard" else []

    result = labkit("dead-letters", verb, "no-such-id", *why)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "there is no dead letter no-such-id: see labkit dead-letters list" in result.stderr


def test_redrive_lets_the_owner_try_it_again_in_order(
    labkit: Labkit, flow: Flow, dead: str
) -> None:
    toy.repaired.add("permanent no")

    result = labkit("dead-letters", "redrive", dead)
    flow.expire_leases()
    flow.deliver(flow.consumer())

    assert (result.returncode, result.stdout.split()[0]) == (0, "1")
    assert flow.effects("a") == [1, 2]


@pytest.mark.parametrize(("answer", "asked"), [("y\n", True), ("n\n", False)])
def test_redriving_all_asks_first(
    labkit: Labkit, flow: Flow, dead: str, answer: str, asked: bool
) -> None:
    result = labkit("dead-letters", "redrive", "--all", answer=answer)

    assert result.returncode == (0 if asked else 1)
    (letter,) = json.loads(labkit("dead-letters", "list", "--json").stdout)
    assert letter["redrive"] is asked


def test_redriving_what_the_inbox_may_have_forgotten_exits_with_one(
    labkit: Labkit, flow: Flow, dead: str
) -> None:
    age(flow, toy.target.dead_letters.window_s)

    one = labkit("dead-letters", "redrive", dead)
    every = labkit("dead-letters", "redrive", "--all", "--yes", "--json")

    assert (one.returncode, one.stderr.count("\n")) == (1, 1)
    assert "longer than the inbox remembers" in one.stderr
    assert (every.returncode, json.loads(every.stdout)) == (1, {"redriven": 0, "too_old": 1})


def test_discard_asks_first_and_keeps_who_and_why(labkit: Labkit, flow: Flow, dead: str) -> None:
    why = ["--reason=sent twice", "--who=operator"]

    refused = labkit("dead-letters", "discard", dead, *why, answer="n\n")
    assert (refused.returncode, discarded(flow)) == (1, [])
    done = labkit("dead-letters", "discard", dead, *why, "--yes")

    assert (done.returncode, discarded(flow)) == (0, [(dead, "operator", "sent twice")])


def test_discard_needs_a_reason(labkit: Labkit, flow: Flow, dead: str) -> None:
    result = labkit("dead-letters", "discard", dead, "--yes")

    assert (result.returncode, "--reason" in result.stderr) == (2, True)
    assert discarded(flow) == []


def test_an_id_with_two_contents_is_named_with_its_positions(
    labkit: Labkit, flow: Flow, dead: str
) -> None:
    flow.expire_leases()
    flow.publish_again("""body = regexp_replace(body, '"n":1,', '"n":99,')""")
    flow.deliver(flow.consumer())
    with flow.target.begin() as connection:
        connection.execute(text("update held set state = 'parked'"))

    result = labkit("dead-letters", "discard", dead, "--reason=because", "--yes")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "add --position and --service of one" in result.stderr


def test_a_database_that_is_not_there_is_not_created(labkit: Labkit, servers: Stack) -> None:
    home = os.environ | {"LABKIT_HOME": str(servers.home)}

    result = commands.labkit(home, "dead-letters", "list", "--database=misspelt")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "there is no database misspelt" in result.stderr


def test_partitions_are_listed_paused_and_resumed(labkit: Labkit, flow: Flow) -> None:
    consumer = flow.consumer()
    flow.deliver(consumer)
    chosen = ["--partition=0", "--partition=2"]

    paused = labkit("partitions", "pause", "consumer", *chosen, "--why=a look", "--json")
    consumer.leases.hurry()
    consumer.run_once()
    listed = json.loads(labkit("partitions", "list", "--json").stdout)
    resumed = labkit("partitions", "resume", "consumer", "--json")

    assert [row["partition"] for row in json.loads(paused.stdout)] == [0, 2]
    assert [row["partition"] for row in listed if row["paused_why"] == "a look"] == [0, 2]
    assert [row["partition"] for row in listed if row["is_active"]] == [1, 3]
    assert [row["partition"] for row in json.loads(resumed.stdout)] == [0, 2]


def test_the_table_of_partitions_fits_a_terminal(labkit: Labkit, flow: Flow) -> None:
    flow.deliver(flow.consumer())
    labkit("partitions", "pause", "consumer", "--partition=0", "--why=[red]look")

    result = labkit("partitions", "list")

    assert max(map(len, result.stdout.splitlines())) <= WIDTH
    assert "pausing" in result.stdout
    assert "[red]look" in "".join(result.stdout.split())


def test_pause_can_wait_until_the_owner_has_come_to_rest(labkit: Labkit, flow: Flow) -> None:
    flow.deliver(flow.consumer())
    busy = labkit("partitions", "pause", "consumer", "--wait=0.2")
    flow.expire_leases()
    rested = labkit("partitions", "pause", "consumer", "--wait=0.2")

    assert (busy.returncode, "still in the hands of its owner" in busy.stderr) == (1, True)
    assert rested.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["boss"], 2, "neither relay nor consumer"),
        (["relay"], 1, "no worker has registered relay here"),
        (["consumer", "--partition=99"], 1, "no worker has registered consumer partition 99"),
    ],
)
def test_what_cannot_be_paused_is_said_in_a_line(
    labkit: Labkit, flow: Flow, arguments: list[str], code: int, complaint: str
) -> None:
    flow.deliver(flow.consumer())

    result = labkit("partitions", "pause", *arguments)

    assert (result.returncode, complaint in " ".join(result.stderr.split())) == (code, True)
    assert "Traceback" not in result.stderr
