"""What relay and consumer need from a transport, and nothing else.

The fence travels through the ports: a numbered batch is published under an epoch, a partition
is read under an epoch. So relay and consumer know no broker; another transport is one module.
A broker that cannot fence (RabbitMQ) accepts every epoch and says in its docstring what that
costs.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from labkit import limits

MAX_PARTITIONS = 1024


@dataclass(frozen=True)
class Stream:
    """A context's events: the name of its log, and into how many partitions keys are spread.

    Readers and writers must agree on the number; a transport remembers it and refuses another.

    Raises:
        ConfigurationError: when the name cannot be a key, or the number is not 1 to 1024.
    """

    name: str
    partitions: int = 8

    def __post_init__(self) -> None:
        """Refuse what no transport could keep; each partition costs its owner renewals."""
        limits.name("the stream's name", self.name)
        limits.number("partitions", self.partitions, 1, MAX_PARTITIONS)

    def partition_of(self, key: str) -> int:
        """Return the partition of a key: the same in every process, language and year."""
        return zlib.crc32(key.encode()) % self.partitions


class Entry(NamedTuple):
    """One entry of a partition as read from the broker; `body` is None when it was deleted."""

    position: str
    body: bytes | None


class Fence(Protocol):
    """Keeps owners with an older epoch out of a partition."""

    def epoch(self, partition: int) -> int:
        """Return the epoch that the broker knows, 0 when it knows none."""

    def raise_epoch(self, partition: int, epoch: int) -> None:
        """Shut out every owner below `epoch`.

        Raises:
            LeaseLostError: when the broker already knows a newer one.
        """


class Publisher(Fence, Protocol):
    """Appends batches to the partitions of one stream."""

    def head(self, partition: int) -> int | None:
        """Return the number of the last batch published, None when the broker knows none."""

    def publish(
        self, partition: int, *, epoch: int, head: int | None, batch: int, bodies: Sequence[str]
    ) -> None:
        """Append all bodies in order and raise the head to `batch`, or do nothing.

        Args:
            head: the head that the caller expects to find.
            batch: the number of this batch, above `head`.

        Raises:
            LeaseLostError: when a newer epoch is in force.
            HeadMismatchError: when the head is not the expected one.
            RefusedByBrokerError: when one body cannot be published.
            BrokerUnavailableError: when the broker did not answer; it may have been published.
        """


class Subscription(Fence, Protocol):
    """Reads the partitions of one stream for one consumer group."""

    def read_pending(self, partition: int, *, epoch: int, after: str, count: int) -> list[Entry]:
        """Return what was delivered and never acknowledged, in order, after a position."""

    def read_new(self, partition: int, *, epoch: int, count: int) -> list[Entry]:
        """Return what was never delivered, in order.

        Raises:
            LeaseLostError: when a newer epoch is in force.
            BrokerUnavailableError: when the broker did not answer.
        """

    def ack(self, partition: int, positions: Sequence[str]) -> None:
        """Acknowledge; a position that is not pending is ignored."""

    def wait(self, partitions: Sequence[int], timeout_s: float) -> Collection[int]:
        """Return which partitions may have something new, once one has; none after `timeout_s`."""


class Reader(NamedTuple):
    """Where one group stands in a partition.

    `needs` is the oldest position that it may ask for again: its oldest pending entry, else the
    last one that was delivered. `waits` says whether an entry waits for it, pending or new.
    """

    group: str
    needs: str
    waits: bool


class LogState(NamedTuple):
    """A partition's readers, and how many entries vanished: removed, but not by `Log.trim`."""

    readers: list[Reader]
    vanished: int


class Log(Protocol):
    """One stream's entries, for whoever keeps them: what may go, and what is missing.

    It carries no epoch, since each call is safe whoever makes it, and however late. A broker
    that deletes what was acknowledged (RabbitMQ) has no readers, no entries, and nothing to do.
    """

    def state(self, partition: int) -> LogState:
        """Return who reads a partition and how far, and what somebody else removed from it.

        Raises:
            BrokerUnavailableError: when the broker did not answer; so do all methods below.
        """

    def trim(self, partition: int, *, groups: Collection[str], kept_s: float) -> int:
        """Delete what is older than `kept_s` and behind every reader; return how many entries.

        Args:
            groups: who must be there; when one is missing, nothing is deleted.
            kept_s: how old an entry gets at least, in seconds on the broker's clock.
        """

    def entries(self, partition: int, *, after: str, count: int) -> list[Entry]:
        """Return what is there, in order, after a position (`0` is before all)."""

    def repair(self, partition: int, *, head: int | None, positions: Sequence[str]) -> None:
        """Lower the head, so that the relay publishes again what came after it.

        From then on nothing counts as vanished.

        Args:
            head: a batch number; None leaves the head where it is.
            positions: entries that will come again. Those that nobody was given yet are deleted,
                or they would be read before the missing ones; the rest stays.
        """

    def drop_reader(self, group: str) -> None:
        """Delete a group that nobody reads under any more, with what is pending for it."""


class Transport(Protocol):
    """Makes publishers, subscriptions and logs for named streams."""

    def publisher(self, stream: Stream) -> Publisher:
        """Return a publisher for a stream."""

    def subscription(self, stream: Stream, group: str, start: str) -> Subscription:
        """Return a subscription; `start` is where a new group begins: `0` or `$`."""

    def log(self, stream: Stream) -> Log:
        """Return a stream's log."""


class GroupState(NamedTuple):
    """How far one group of readers has come in one partition.

    `lag` is what it was never given (None when the broker cannot tell), `pending` what it was
    given and did not acknowledge; ages are those of the oldest such entry, in seconds.
    """

    group: str
    lag: int | None
    pending: int
    lag_age_s: float
    pending_age_s: float
    consumers: tuple[str, ...]


class PartitionState(NamedTuple):
    """One partition as the broker sees it: how many entries, and who reads them."""

    partition: int
    length: int
    groups: tuple[GroupState, ...]


class Inspection(Protocol):
    """Looks at streams and changes nothing."""

    def look(self, stream: Stream) -> list[PartitionState]:
        """Return the partitions of a stream that exist.

        Raises:
            BrokerUnavailableError: when the broker did not answer.
        """
