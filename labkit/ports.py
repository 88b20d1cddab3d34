"""What relay and consumer need from a transport, and nothing else.

The fence travels through the ports: a numbered batch is published under an epoch, a partition
is read under an epoch. So relay and consumer know no broker; another transport is one module.
A broker that cannot fence (RabbitMQ) accepts every epoch and says in its docstring what that
costs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Stream(NamedTuple):
    """A context's events: the name of its log, and into how many partitions keys are spread.

    Readers and writers must agree on the number; a transport remembers it and refuses another.
    """

    name: str
    partitions: int = 8

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

    def wait(self, partitions: Sequence[int], timeout_s: float) -> None:
        """Return when a partition may have something new, at the latest after `timeout_s`."""


class Transport(Protocol):
    """Makes publishers and subscriptions for named streams."""

    def publisher(self, stream: Stream) -> Publisher:
        """Return a publisher for a stream."""

    def subscription(self, stream: Stream, group: str, start: str) -> Subscription:
        """Return a subscription; `start` is where a new group begins: `0` or `$`."""


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
