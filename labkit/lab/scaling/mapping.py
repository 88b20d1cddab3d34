"""Mapping: brings the entries of a Redis stream to a function, as Lambda's event source mapping.

Up to `pollers` batches are in hand at once. What was answered well is deleted. What failed comes
back after `again_s`, until it was received `receives` times: then it is a dead letter. Redis counts
the receives, so they survive us. An exception fails the whole batch; a response that names
`batchItemFailures` fails these (`report_failures`), by the rules of `labkit.partial_batches`. A
throttled batch comes back too, and it counts as received: with too little concurrency, messages
become dead letters that no code ever saw.

Guarantee: a message is deleted only after an invocation that did not name it, or it is a dead
letter; until then it is received at least once more.
Not guaranteed: once: whoever dies between the answer and the deletion repeats the batch, and so
does an invocation that takes longer than `visible_s`. Nor order. Why not `labkit.consumer`, which
promises both within one database: a function has none that we know of.

Source: AWS Lambda, "Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from labkit.errors import BatchItemFailuresError, BulkheadFullError, LabkitError, TransientError
from labkit.lab.scaling.instances import Function, FunctionError
from labkit.partial_batches import raise_failures

_GROUP, _CONSUMER = "mapping", "poller"
_LOOK_EVERY_S = 0.01
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Settings:
    """What a mapping goes by.

    Attributes:
        batch: how many messages an invocation gets at most.
        receives: how often a message is received before it is a dead letter.
        pollers: how many batches are in hand at once.
        report_failures: whether the response is read. If not, an answer deletes the whole batch,
            even one that names failures.
        again_s: when what failed comes back, in seconds.
        visible_s: when what nobody answered for comes back; longer than any invocation.
    """

    batch: int = 10
    receives: int = 3
    pollers: int = 2
    report_failures: bool = True
    again_s: float = 0.05
    visible_s: float = 30.0


class Record(NamedTuple):
    """A message that was received, for the `received`th time."""

    message_id: str
    body: str
    received: int

    def as_lambda_has_it(self) -> dict[str, Any]:
        """Return it as a function gets it."""
        count = {"ApproximateReceiveCount": str(self.received)}
        return {"messageId": self.message_id, "body": self.body, "attributes": count}


class Queue:
    """A stream with one group and its dead letters; what an earlier one left is deleted.

    Args:
        client: as of `redis_streams.connect`.
        key: of the stream.
        settings: the mapping's.
    """

    def __init__(self, client: redis.Redis, key: str, settings: Settings) -> None:
        # Its answers are typed as either those of the asyncio client or ours.
        self._client: Any = client
        self._key, self._dead_key = key, f"{key}:dead"
        self._settings = settings
        self.delete()
        self._client.xgroup_create(key, _GROUP, id="0", mkstream=True)

    def send(self, *bodies: object) -> list[str]:
        """Append messages; return their ids."""
        return [self._client.xadd(self._key, _fields(json.dumps(each))).decode() for each in bodies]

    def receive(self) -> list[Record]:
        """Return the next batch: what comes back, together, before what was never received."""
        if again := self._receive_again():
            return again
        found = self._client.xreadgroup(
            _GROUP, _CONSUMER, {self._key: ">"}, count=self._settings.batch
        )
        return [_record(entry, 1) for _, entries in found for entry in entries]

    def done(self, records: Sequence[Record]) -> None:
        """Delete what was answered well."""
        with self._client.pipeline() as both:
            for each in records:
                self._forget(both, each.message_id)
            both.execute()

    def failed(self, records: Sequence[Record]) -> None:
        """Let what failed come back soon, or set it aside when it was received often enough."""
        settings = self._settings
        idle_ms = int((settings.visible_s - settings.again_s) * 1000)
        again = [each.message_id for each in records if each.received < settings.receives]
        with self._client.pipeline() as all_of_it:
            if again:
                # In one call, so that they come back at one moment, and together.
                all_of_it.xclaim(self._key, _GROUP, _CONSUMER, 0, again, idle=idle_ms, justid=True)
            for each in records:
                if each.message_id not in again:
                    all_of_it.xadd(self._dead_key, _fields(each.body) | {"id": each.message_id})
                    self._forget(all_of_it, each.message_id)
            all_of_it.execute()

    def dead(self) -> list[Any]:
        """Return the bodies of the dead letters."""
        return [json.loads(fields[b"body"]) for _, fields in self._client.xrange(self._dead_key)]

    def __len__(self) -> int:
        """Return how many messages are neither done nor dead."""
        return int(self._client.xlen(self._key))

    def delete(self) -> None:
        """Delete everything."""
        self._client.delete(self._key, self._dead_key)

    def _receive_again(self) -> list[Record]:
        visible_ms = int(self._settings.visible_s * 1000)
        waiting = self._client.xpending_range(
            self._key, _GROUP, "-", "+", self._settings.batch, idle=visible_ms
        )
        received = {each["message_id"]: each["times_delivered"] + 1 for each in waiting}
        if not received:
            return []
        # It is ours only if it still idles; Redis counts it as delivered once more.
        entries = self._client.xclaim(self._key, _GROUP, _CONSUMER, visible_ms, list(received))
        return [_record(entry, received[entry[0]]) for entry in entries]

    def _forget(self, pipeline: Any, message_id: str) -> None:
        pipeline.xack(self._key, _GROUP, message_id)
        pipeline.xdel(self._key, message_id)


class Delivery(NamedTuple):
    """What came of a batch.

    `at_s` is since the delivery began, `outcome` `done`, `failed` or `throttled`, `executed` how
    many lines its log has. `cold` and `took_s` are None when nobody answered.
    """

    at_s: float
    records: int
    outcome: str
    executed: int
    cold: bool | None
    took_s: float | None
    instances: int


class Coming(NamedTuple):
    """A message that is sent `at_s` seconds after the beginning."""

    at_s: float
    body: object


class Mapping:
    """Receives batches, invokes the function, and does with them what it answers.

    Args:
        queue: where from.
        function: where to.
        settings: limits.
    """

    def __init__(self, queue: Queue, function: Function, settings: Settings) -> None:
        self.deliveries: list[Delivery] = []
        # When, and how many instances there were.
        self.alive: list[tuple[float, int]] = []
        self._queue = queue
        self._function = function
        self._settings = settings
        self._began_s = time.monotonic()

    def run(self, coming: Sequence[Coming] = (), *, to_zero: bool = False) -> None:
        """Deliver what is there and what comes, until nothing is left.

        Args:
            coming: what is sent meanwhile, in order.
            to_zero: wait until the last instance has ended, too.

        Raises:
            LabkitError: when that does not come.
        """
        self._began_s, left = time.monotonic(), list(coming)
        in_hand: set[Future[None]] = set()
        with ThreadPoolExecutor(self._settings.pollers) as pool:
            while left or in_hand or len(self._queue) or (to_zero and self._function.instances):
                while left and left[0].at_s <= self._now_s():
                    self._queue.send(left.pop(0).body)
                self._function.end_idle()
                self.alive.append((self._now_s(), self._function.instances))
                in_hand = self._poll(pool, in_hand)
                if self._now_s() > _PATIENCE_S:
                    raise LabkitError(f"{len(self._queue)} messages are still there")

    def _poll(self, pool: ThreadPoolExecutor, in_hand: set[Future[None]]) -> set[Future[None]]:
        """Take another batch if a poller is free; look again in a moment."""
        if len(in_hand) < self._settings.pollers and (records := self._queue.receive()):
            return in_hand | {pool.submit(self._deliver, records)}
        if not in_hand:
            time.sleep(_LOOK_EVERY_S)
            return in_hand
        done, busy = wait(in_hand, _LOOK_EVERY_S, FIRST_COMPLETED)
        for each in done:
            each.result()
        return busy

    def _deliver(self, records: list[Record]) -> None:
        at_s = self._now_s()
        cold: bool | None = None
        took_s: float | None = None
        failed, outcome, log = records, "failed", list[str]()
        try:
            answer = self._function.invoke({"Records": [r.as_lambda_has_it() for r in records]})
            log, cold, took_s = answer.log, answer.cold, answer.took_s
            failed = self._named(answer.response, records)
            outcome = "failed" if failed else "done"
        except BulkheadFullError:
            outcome = "throttled"
        except FunctionError as error:
            log = error.log
        self._queue.failed(failed)
        self._queue.done([each for each in records if each not in failed])
        counts = (len(records), outcome, len(log), cold, took_s, self._function.instances)
        self.deliveries.append(Delivery(at_s, *counts))

    def _named(self, response: object, records: list[Record]) -> list[Record]:
        """Return those that the response names; all, when nobody can tell."""
        if not self._settings.report_failures or response is None:
            return []
        try:
            raise_failures(response, cast("Any", records))
        except BatchItemFailuresError as error:
            return [each for each in records if each.message_id in error.message_ids]
        except TransientError:
            return records
        return []

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s


def _fields(body: str) -> dict[str, str]:
    return {"body": body}


def _record(entry: tuple[bytes, dict[bytes, bytes]], received: int) -> Record:
    entry_id, fields = entry
    return Record(entry_id.decode(), fields[b"body"].decode(), received)
