"""`labkit saga list | show | retry | skip | compensate | cancel`: what people do about sagas.

Safe while workers run, and while a colleague does the same. What is decided goes on at once; its
commands leave with the service's relay. Ids, reasons and data come from strangers and are shown as
text, whatever they hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from labkit.cli import saga_table
from labkit.cli.services import AsJson, Database, Services, Who, Yes, login, opened, plain
from labkit.cli.spans import seconds
from labkit.errors import ConfigurationError, LabkitError, SagaError
from labkit.lab.sites import Site
from labkit.saga.operations import UNDER_WAY, Listed, Operations, Shown
from labkit.saga.rows import sagas_of
from labkit.saga.state import State, Status

app = typer.Typer(
    no_args_is_help=True, help="Look at sagas; retry, skip, compensate or cancel them."
)

_SHOWN = 50

Id = Annotated[str, typer.Argument(metavar="SAGA_ID", help="As listed.")]
Name = Annotated[str | None, typer.Option("--saga", help="Only of this name.")]
Why = Annotated[str, typer.Option(help="Why; kept in the saga's history.")]


class Place(NamedTuple):
    """Sagas of one name, and the database that keeps them."""

    site: Site
    name: str
    operations: Operations


@app.command("list")
def list_(
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(help="Repeatable; all that have not ended by default.", case_sensitive=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Begun at least so long ago: 90s, 2h, 1d.")
    ] = "0s",
    waiting: Annotated[
        str, typer.Option(metavar="TIME", help="Nothing has happened for at least so long.")
    ] = "0s",
    limit: Annotated[int, typer.Option(help="Of each name, at most.", min=1)] = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """List sagas that have not ended: those that are stuck first, then the longest untouched.

    Example: labkit saga list --service myshop.checkout:service --status stuck --waiting 10m
    """
    statuses = list(Status) if every else status or UNDER_WAY
    older_than_s, waiting_s = seconds(older_than), seconds(waiting)
    shown: list[tuple[Place, Listed]] = []
    more = False
    with _places(service, database, saga) as places:
        for place in places:
            with Session(place.site.engine) as session:
                found = place.operations.find(
                    session,
                    statuses,
                    older_than_s=older_than_s,
                    waiting_s=waiting_s,
                    limit=limit + 1,
                )
            shown += [(place, each) for each in found[:limit]]
            more = more or len(found) > limit
    if as_json:
        typer.echo(_json([_facts(*each) for each in shown]))
    else:
        saga_table.print_list([each for _, each in shown], more=more)


@app.command()
def show(
    saga_id: Id,
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show one saga: where it stands, why, its data, and its whole history.

    Example: labkit saga show RES-3 --service myshop.checkout:service
    """
    with _places(service, database, saga) as places:
        place, found = _one(places, saga_id)
    if as_json:
        history = [line._asdict() for line in found.history]
        state = msgspec.to_builtins(found.state)
        facts = _facts(place, found.listed) | {"state": state, "history": history}
        typer.echo(_json(facts))
    else:
        saga_table.print_one(found, place.site.database)


@app.command()
def retry(
    saga_id: Id,
    why: Why,
    who: Who = None,
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    as_json: AsJson = False,
) -> None:
    """Try the step of a stuck saga again, with all its attempts. Repair the cause first.

    Example: labkit saga retry RES-3 --why "the carrier is back" --service myshop.checkout:service
    """
    with _places(service, database, saga) as places:
        state = _act(_one(places, saga_id), "retry", who, why)
    _report("retried", state, as_json=as_json)


@app.command()
def skip(
    saga_id: Id,
    why: Why,
    who: Who = None,
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Go on behind the step of a stuck saga, because you did it by hand, or do without it.

    Example: labkit saga skip RES-3 --why "sent by courier" --service myshop.checkout:service
    """
    with _places(service, database, saga) as places:
        question = "" if yes else "Go on as if this step had succeeded"
        state = _act(_one(places, saga_id), "skip", who, why, question)
    _report("skipped", state, as_json=as_json)


@app.command()
def compensate(
    saga_id: Id,
    why: Why,
    who: Who = None,
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let a stuck saga make good what it did; refused behind the point of no return.

    Example: labkit saga compensate RES-3 --why "bank: no such payment" --yes
    """
    with _places(service, database, saga) as places:
        question = "" if yes else "Make good all that it did"
        state = _act(_one(places, saga_id), "compensate", who, why, question)
    _report("compensating", state, as_json=as_json)


@app.command()
def cancel(
    saga_id: Id,
    why: Why,
    who: Who = None,
    service: Services = None,
    database: Database = None,
    saga: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a running saga for the business: it makes good what it did; refused from the pivot on.

    Example: labkit saga cancel RES-3 --why "ordered twice" --who customer --yes
    """
    with _places(service, database, saga) as places:
        question = "" if yes else "Cancel it and make good all that it did"
        state = _act(_one(places, saga_id), "cancel", who, why, question)
    _report("cancelled", state, as_json=as_json)


# What is looked at when no service is named.
_SHOP = ("labkit.shop.checkout:service",)


@contextmanager
def _places(
    services: Sequence[str] | None, database: str | None, name: str | None
) -> Iterator[list[Place]]:
    with opened(services or _SHOP, database) as sites:
        every = [
            Place(site, sagas.name, Operations(sagas))
            for site in sites
            for sagas in sagas_of(site.service.metadata).values()
        ]
        found = [place for place in every if name in {None, place.name}]
        if not found:
            there = f"there are {', '.join(place.name for place in every)}" if every else "none"
            what = f"sagas {plain(name, 100)}" if name else "sagas"
            raise ConfigurationError(
                f"no {what} in {', '.join(site.service.name for site in sites)} ({there}): "
                "name the service that declares them with --service"
            )
        yield found


def _one(places: Sequence[Place], saga_id: str) -> tuple[Place, Shown]:
    found: list[tuple[Place, Shown]] = []
    missing: list[str] = []
    for place in places:
        try:
            with Session(place.site.engine) as session:
                found.append((place, place.operations.one(session, saga_id)))
        except SagaError as error:
            missing.append(plain(str(error), 300))
    if not found:
        raise SagaError(missing[0])
    if len(found) > 1:
        names = ", ".join(f"{place.name} in {place.site.database}" for place, _ in found)
        raise SagaError(f"{plain(saga_id, 300)} is several sagas: add --saga of one, {names}")
    return found[0]


def _act(
    found: tuple[Place, Shown], verb: str, who: str | None, why: str, question: str = ""
) -> State:
    place, listed = found[0], found[1].listed
    if question:
        typer.confirm(f"{plain(listed.id, 300)} is {_where(listed)}. {question}?", abort=True)
    act: Callable[..., State] = getattr(place.operations, verb)
    try:
        with Session(place.site.engine) as session, session.begin():
            return act(session, listed.id, who=login() if who is None else who, why=why)
    except (LabkitError, DBAPIError):
        raise
    except Exception as error:  # whatever the saga's local work raises
        raise SagaError(
            f"nothing is changed: the work that follows in this service failed ({error!r:.200}); "
            "mend its cause, then do it again"
        ) from error


def _where(listed: Listed | State) -> str:
    step = listed.step if isinstance(listed, Listed) else str(listed.in_hand or "")
    return f"{listed.status} at {step}" if step else str(listed.status)


def _report(what: str, state: State, *, as_json: bool) -> None:
    if as_json:
        facts = {what: state.id, "status": state.status, "step": str(state.in_hand or "")}
        typer.echo(_json(facts))
    else:
        saga_table.say(f"{what} {plain(state.id, 300)}: now {_where(state)}")


def _facts(place: Place, listed: Listed) -> dict[str, Any]:
    return {"database": place.site.database} | listed._asdict()


def _json(facts: Any) -> str:
    return json.dumps(msgspec.to_builtins(facts), indent=2)
