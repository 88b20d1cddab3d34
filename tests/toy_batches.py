"""The toy target with a batch handler, which names the messages that their events tell it to."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from labkit.messages import Message
from labkit.partial_batches import BatchResponse
from labkit.service import Service
from tests import toy
from tests.toy import Happened

target = Service("target", toy.REGISTRY)


@target.on_batch(Happened, source=toy.SOURCE)
def write_all_down(session: Session, messages: Sequence[Message[Happened]]) -> BatchResponse:
    """Record all effects, and name those of a first attempt that are told to fail."""
    rows = [{"message_id": m.message_id, "key": m.event.key, "n": m.event.n} for m in messages]
    session.execute(insert(toy.effects), rows)
    failed = [m for m in messages if m.event.behaviour == "until 2" and m.attempt == 1]
    return {"batchItemFailures": [{"itemIdentifier": m.message_id} for m in failed]}
