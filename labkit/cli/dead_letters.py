"""`labkit dead-letters list | show | redrive | discard`: the operator's verbs on parked messages.

Safe while workers run; what is redriven is run by the owner of its partition, as soon as there is
one. Ids, keys, reasons and payloads come from strangers and are shown as text, whatever they hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labkit.cli.services import (
    AsJson,
    Database,
    Services,
    Who,
    Yes,
    login,
    opened,
    plain,
    printable,
)
from labkit.cli.spans import age, seconds
from labkit.dead_letters import DeadLetter, Wanted
from labkit.errors import RejectedError
from labkit.lab.sites import Site
from labkit.wire import UNREADABLE

app = typer.Typer(no_args_is_help=True, help="Look at dead letters, try them again, give them up.")

_SHOWN = 50

Id = Annotated[str | None, typer.Argument(metavar="MESSAGE_ID", help="Of the message.")]
Position = Annotated[
    int | None, typer.Option(help="Its number in the list, when one id is several dead letters.")
]
Consumer = Annotated[str | None, typer.Option(help="Only of this consumer.")]
Key = Annotated[str | None, typer.Option(help="Only of this key.")]
EventType = Annotated[str | None, typer.Option("--type", help="Only of this type of event.")]
Reason = Annotated[str | None, typer.Option(help="Only with this text in the reason.")]
OlderThan = Annotated[str, typer.Option(metavar="TIME", help="Held at least so long: 90s, 2h, 1d.")]


class Found(NamedTuple):
    """A dead letter and where it is."""

    site: Site
    letter: DeadLetter


@app.command("list")
def list_(
    service: Services = None,
    database: Database = None,
    consumer: Consumer = None,
    key: Key = None,
    event_type: EventType = None,
    reason: Reason = None,
    older_than: OlderThan = "0s",
    limit: Annotated[int, typer.Option(help="Of each service, at most.", min=1)] = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first: what they are, why, and how many wait behind them."""
    wanted = Wanted(consumer, None, key, event_type, reason, seconds(older_than))
    with opened(service, database) as sites:
        found = _find(sites, wanted, limit + 1)
    shown = [each for site in sites for each in [f for f in found if f.site is site][:limit]]
    if as_json:
        typer.echo(json.dumps([_facts(each) for each in shown], indent=2))
    elif shown:
        _print_table(shown, more=len(shown) < len(found))
    else:
        _say("no dead letters")


@app.command()
def show(
    message_id: Id = None,
    position: Position = None,
    service: Services = None,
    database: Database = None,
    consumer: Consumer = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its reason and its payload, whole."""
    with opened(service, database) as sites:
        found = _one(sites, message_id, position, consumer)
    if as_json:
        body = found.letter.body.decode(errors="backslashreplace")
        typer.echo(json.dumps(_facts(found) | {"body": body}, indent=2))
    else:
        _print_one(found)


@app.command()
def redrive(
    message_id: Id = None,
    position: Position = None,
    every: Annotated[bool, typer.Option("--all", help="All that the options below name.")] = False,
    service: Services = None,
    database: Database = None,
    consumer: Consumer = None,
    key: Key = None,
    event_type: EventType = None,
    reason: Reason = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let a dead letter be tried again, in its place, by the owner of its partition.

    Repair the cause first. What was held for longer than the inbox remembers is refused.
    """
    if every and (message_id or position is not None):
        raise typer.BadParameter("name one dead letter, or --all of them", param_hint="--all")
    with opened(service, database) as sites:
        if every:
            wanted = Wanted(consumer, None, key, event_type, reason)
            flagged, too_old = _redrive_all(sites, wanted, yes=yes)
        else:
            site, letter = _one(sites, message_id, position, consumer)
            with site.engine.begin() as connection:
                site.service.dead_letters.redrive(connection, letter.position)
            flagged, too_old = 1, 0
    _report_redriven(flagged, too_old, as_json=as_json)


@app.command()
def discard(
    reason: Annotated[str, typer.Option(help="Why; kept with the message.")],
    message_id: Id = None,
    position: Position = None,
    service: Services = None,
    database: Database = None,
    consumer: Consumer = None,
    who: Who = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give a dead letter up: it is never handled, and its key goes on without it.

    The whole message stays in the table `discarded`, with who, when and why.
    """
    with opened(service, database) as sites:
        site, letter = _one(sites, message_id, position, consumer)
        if not yes:
            typer.confirm(f"Discard {_name(letter)}? {letter.behind} wait behind it", abort=True)
        with site.engine.begin() as connection:
            site.service.dead_letters.discard(
                connection, letter.position, who=who or login(), why=reason
            )
    if as_json:
        typer.echo(json.dumps({"discarded": letter.position}))
    else:
        _say(f"discarded {escape(_name(letter))}; {letter.behind} behind it go on")


def _find(sites: Sequence[Site], wanted: Wanted, limit: int | None = None) -> list[Found]:
    found: list[Found] = []
    for site in sites:
        with site.engine.connect() as connection:
            letters = site.service.dead_letters.find(connection, wanted, limit)
        found += [Found(site, letter) for letter in letters]
    return found


def _one(
    sites: Sequence[Site], message_id: str | None, position: int | None, consumer: str | None
) -> Found:
    if message_id is None and position is None:
        raise typer.BadParameter("name a dead letter by its id or --position", param_hint="ID")
    wanted = Wanted(consumer=consumer, message_id=message_id)
    found = [f for f in _find(sites, wanted) if position in {None, f.letter.position}]
    named = plain(message_id or f"at position {position}", 300)
    if not found:
        raise RejectedError(f"there is no dead letter {named}: see labkit dead-letters list")
    if len(found) > 1:
        places = ", ".join(f"{f.letter.position} in {f.site.database}" for f in found)
        raise RejectedError(
            f"{named} is several dead letters: add --position and --service of one, {places}"
        )
    return found[0]


def _redrive_all(sites: Sequence[Site], wanted: Wanted, *, yes: bool) -> tuple[int, int]:
    count = len(_find(sites, wanted))
    if count and not yes:
        typer.confirm(f"Try {count} dead letters again?", abort=True)
    flagged = too_old = 0
    for site in sites:
        with site.engine.begin() as connection:
            redriven = site.service.dead_letters.redrive_all(connection, wanted)
        flagged, too_old = flagged + len(redriven.flagged), too_old + len(redriven.too_old)
    return flagged, too_old


def _report_redriven(flagged: int, too_old: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"redriven": flagged, "too_old": too_old}))
    else:
        _say(f"{flagged} to be tried again, by the consumers that own their partitions")
    if too_old and not as_json:
        _say(f"[yellow]{too_old} held for longer than the inbox remembers: look, discard[/yellow]")
    if too_old and not flagged:
        raise typer.Exit(1)


def _type(letter: DeadLetter) -> str:
    event = letter.envelope and letter.envelope.event
    return f"{event.type} v{event.version}" if event else "no message"


def _name(letter: DeadLetter) -> str:
    return f"{plain(letter.message_id, 300)} ({plain(_type(letter), 100)})"


def _facts(found: Found) -> dict[str, Any]:
    letter = found.letter
    facts = letter._asdict() | {"database": found.site.database, "type": _type(letter)}
    facts["key"] = letter.envelope.key if letter.envelope else None
    facts["held_at"] = letter.held_at.isoformat()
    return {name: value for name, value in facts.items() if name != "body"}


def _print_table(shown: Sequence[Found], *, more: bool) -> None:
    table = Table(title="Dead letters", title_justify="left")
    table.add_column("pos", justify="right", no_wrap=True)
    table.add_column("message", overflow="fold", ratio=5)
    table.add_column("key", overflow="fold", ratio=3)
    table.add_column("held", justify="right", no_wrap=True)
    table.add_column("behind", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold", ratio=5)
    for _, letter in shown:
        key = letter.envelope.key if letter.envelope else ""
        said = f"{printable(_type(letter), 60)} · {printable(letter.consumer, 60)}"
        mark = "[yellow]asked for again[/yellow]\n" if letter.redrive else ""
        table.add_row(
            str(letter.position),
            f"{printable(letter.message_id, 80)}\n[dim]{said}[/dim]",
            printable(key, 60),
            age(letter.held_s),
            str(letter.behind),
            mark + printable(letter.reason, 160),
        )
    Console().print(table)
    _say("labkit dead-letters show MESSAGE_ID" + (" · there are more: --limit" if more else ""))


def _print_one(found: Found) -> None:
    letter, facts = found.letter, Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    waits = f"{letter.behind} of its key wait behind it" if letter.blocks else "nobody waits for it"
    asked = ", asked for again" if letter.redrive else ""
    for name, value in {
        "message": letter.message_id,
        "type": _type(letter),
        "key": letter.envelope.key if letter.envelope else "none",
        "consumer": f"{letter.consumer} in {found.site.database}",
        "from": f"{letter.stream}, partition {letter.partition}",
        "position": f"{letter.position}: {waits}",
        "held": f"{letter.held_at.isoformat(' ', 'seconds')}, for {age(letter.held_s)}",
        "attempts": f"{letter.attempts}{asked}",
        "reason": letter.reason,
    }.items():
        facts.add_row(name, printable(value))
    Console().print(facts)
    Console().print(printable(_pretty(letter.body)), highlight=False, soft_wrap=True)


def _pretty(body: bytes) -> str:
    try:
        return msgspec.json.format(body, indent=2).decode()
    except UNREADABLE:
        return body.decode(errors="backslashreplace")


def _say(said: str) -> None:
    Console().print(said, soft_wrap=True, highlight=False)
