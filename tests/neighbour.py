"""A service beside the toy target: in its database, on its tables, under a name of its own."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.errors import PermanentError
from labkit.messages import Message
from labkit.service import Service
from tests import toy

watcher = Service("watcher", toy.REGISTRY, beside=toy.target)


@watcher.on(toy.Happened, source=toy.SOURCE)
def watch(session: Session, message: Message[toy.Happened]) -> None:
    """Record an effect of its own, and say so; refuse what it is told to."""
    event = message.event
    if event.behaviour == "refuse":
        raise PermanentError(event.behaviour)
    key = f"watched {event.key}"
    session.execute(
        insert(toy.effects), {"message_id": message.message_id, "key": key, "n": event.n}
    )
    watcher.outbox.add(session, toy.Ignored(), key=event.key, cause=message)
