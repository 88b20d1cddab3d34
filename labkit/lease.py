"""Leases: each partition has one active owner, and a newcomer can shut the old one out.

The problem: two relays that publish the same key reorder it, and a process that was frozen
(a long pause, a stopped container) wakes up believing that it still owns its work.

How: a row per partition holds owner, `until` and `epoch`. Time is PostgreSQL's, the one clock
that all owners share. Whoever takes an expired partition raises the epoch, first here, then at
the broker; from then on the old owner's publishes, reads and marks are refused. Owners count
each other in `member` and give up what exceeds their fair share.

Guarantee: at most one owner per partition and epoch; a dead owner's partitions are taken within
one lease.
Not guaranteed: that an owner knows at once that it lost; that is what the epoch is for.

An operator may pause a partition (`labkit.partitions`): then nobody renews or takes it. Why not
refuse its checks and marks too: its owner has read a batch, and finishing it is the clean way.

Renewal happens between pieces of work: a heartbeat thread would keep a stuck worker's lease.

Crash windows:
    lease.after_raise   the epoch was raised here and not yet at the broker: the partition rests
                        until the lease ends, then the next owner raises both

Pattern: Gray and Cheriton, "Leases" (1989); Kleppmann, "How to do distributed locking" (fencing).
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from labkit import crash, db, limits
from labkit.clock import Clock, SystemClock
from labkit.errors import ConfigurationError, LeaseLostError
from labkit.messages import uuid7
from labkit.partitions import lease_tables
from labkit.ports import Fence

__all__ = ["Lease", "Leases", "lease_tables", "owner_name"]

log = logging.getLogger(__name__)
# Returns how many partitions there were before: none the first time.
_REGISTER = text("""
    with new as (
        insert into lease (kind, name, partition)
        select :kind, :name, p from generate_series(0, :partitions - 1) as p
        on conflict do nothing
    )
    select count(*) from lease where kind = :kind and name = :name
""")
# Returns the number of members (the others that are alive, and this one) and of what they share.
_JOIN = text("""
    with me as (
        insert into member (kind, name, owner, until)
        values (:kind, :name, :owner, clock_timestamp() + make_interval(secs => :lease_s))
        on conflict (kind, name, owner) do update set until = excluded.until
    )
    select 1 + count(*), (select count(*) from lease
                          where kind = :kind and name = :name and paused_at is null)
    from member
    where kind = :kind and name = :name and owner <> :owner and until > clock_timestamp()
""")
_LEAVE = text("""
    delete from member
    where kind = :kind and name = :name
      and (owner = :owner or until < clock_timestamp() - make_interval(secs => :lease_s))
""")
# An expired lease that nobody took may be renewed: the epoch proves that nobody was in between.
# A paused one is given back instead, so that its row says that it has come to rest.
_RENEW = text("""
    update lease set
        owner = case when paused_at is null then owner end,
        until = case when paused_at is null
                     then clock_timestamp() + make_interval(secs => :lease_s) end
    from unnest(cast(:partitions as int[]), cast(:epochs as bigint[])) as mine(p, e)
    where kind = :kind and name = :name and partition = mine.p and epoch = mine.e
    returning partition, paused_at is null
""")
_GIVE_BACK = text("""
    update lease set owner = null, until = null
    where kind = :kind and name = :name and owner = :owner
      and partition = any(cast(:partitions as int[]))
""")
_FREE = text("""
    select partition from lease
    where kind = :kind and name = :name and (until is null or until < clock_timestamp())
      and paused_at is null
    order by partition
""")
# The epoch is above both sides' (max + 1): a restored backup of either would stall for ever
# if only one of them counted.
_TAKE = text("""
    update lease set owner = :owner, epoch = greatest(epoch, :known) + 1,
                     until = clock_timestamp() + make_interval(secs => :lease_s)
    where kind = :kind and name = :name and partition = :partition
      and (until is null or until < clock_timestamp()) and paused_at is null
    returning epoch
""")
_CHECK = text("""
    select 1 from lease
    where kind = :kind and name = :name and partition = :partition and epoch = :epoch
      and until > clock_timestamp() + make_interval(secs => :needed_s)
""")


class Lease(NamedTuple):
    """A partition that is ours under an epoch; another epoch is another lease."""

    partition: int
    epoch: int


def owner_name() -> str:
    """Return a name for this worker that no other worker has had."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid7()[-8:]}"


class Leases:
    """Takes, renews and gives back partitions for one worker.

    Args:
        engine: the database, from `labkit.db.connect` with the same lease.
        fence: the broker's side of the epoch.
        kind: the role, such as `relay`.
        name: what is divided, such as the stream's name.
        partitions: how many there are.
        owner: this worker's name, unique; restarted under it, it resumes without waiting.
        lease_s: how long a silent owner keeps its partitions, in seconds from 0.1.
        tables: what the worker needs besides ours; looked for once.
        clock: for the pace of renewals; the leases themselves are on PostgreSQL's clock.
    """

    def __init__(
        self,
        engine: Engine,
        fence: Fence,
        *,
        kind: str,
        name: str,
        partitions: int,
        owner: str | None = None,
        lease_s: float = db.DEFAULT_LEASE_S,
        tables: Sequence[Table] = (),
        clock: Clock | None = None,
    ) -> None:
        self.owner = owner or owner_name()
        limits.lease(lease_s, self.owner)
        self.owned: dict[int, Lease] = {}
        self.lease_s = lease_s
        self.id = {"kind": kind, "name": name}
        self._me = {**self.id, "owner": self.owner, "lease_s": lease_s}
        self._engine = engine
        self._fence = fence
        self._tables = [*lease_tables(MetaData()), *tables]
        self._partitions = partitions
        self._clock = clock or SystemClock()
        self._next_tick_s = float("-inf")
        self._registered = False

    def tick(self) -> None:
        """Renew, balance and take partitions, whenever a quarter of the lease has passed.

        Raises:
            BrokerUnavailableError: when the epoch cannot be raised at the broker.
            ConfigurationError: when transactions of this engine may outlive the lease.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_tick_s:
            return
        if not self._registered:
            self._register()
        with self._engine.begin() as connection:
            missing = self._renew_and_balance(connection)
        self._take(missing)
        self._next_tick_s = now_s + self.lease_s / 4

    def hurry(self) -> None:
        """Let the next `tick` work at once."""
        self._next_tick_s = float("-inf")

    def lose(self, partition: int) -> None:
        """Let go of a partition that turned out not to be ours alone.

        If PostgreSQL says that it is, anybody may take it now, with a higher epoch.
        """
        self._forget(partition)
        with self._engine.begin() as connection:
            self._give_back(connection, [partition])

    def release(self) -> None:
        """Give everything back, so that others need not wait for the lease to end."""
        given_back = list(self.owned)
        self.owned.clear()
        self.hurry()
        try:
            with self._engine.begin() as connection:
                self._give_back(connection, given_back)
                connection.execute(_LEAVE, self._me)
        except DBAPIError as error:
            log.warning("%s %s: the leases end by themselves: %s", *self.id.values(), error)

    def check(self, connection: Connection, lease: Lease) -> None:
        """Make sure that a transaction can end before the lease does.

        Args:
            connection: the transaction that is about to work on the partition.
            lease: ours.

        Raises:
            LeaseLostError: when another epoch is in force, or too little time is left.
        """
        claim = lease._asdict() | {"needed_s": db.transaction_limit_s(self.lease_s)}
        if connection.execute(_CHECK, self.id | claim).scalar() is None:
            raise LeaseLostError(lease.partition)

    def _forget(self, partition: int) -> None:
        log.warning("%s %s: partition %d was lost or paused", *self.id.values(), partition)
        self.owned.pop(partition, None)
        self.hurry()

    def _register(self) -> None:
        db.check_worker(self._engine, self.lease_s, *self._tables)
        with self._engine.begin() as connection:
            # Whoever was killed did not leave; without this its row would stay for ever. What an
            # earlier life under our own name had is free at once: we are here in its place.
            connection.execute(_LEAVE, self._me)
            self._give_back(connection, range(self._partitions))
            wanted = self.id | {"partitions": self._partitions}
            known = connection.execute(_REGISTER, wanted).scalar_one()
            if known not in {0, self._partitions}:
                raise ConfigurationError(
                    f"{self.id['name']} has {known} partitions on record, not {self._partitions}: "
                    "keys would move; drain it and delete its rows in lease to change the number"
                )
        self._registered = True

    def _renew_and_balance(self, connection: Connection) -> int:
        """Return how many partitions this worker should take in addition."""
        members, shared = map(int, connection.execute(_JOIN, self._me).one())
        epochs = [lease.epoch for lease in self.owned.values()]
        mine = {"partitions": list(self.owned), "epochs": epochs}
        found = connection.execute(_RENEW, self._me | mine)
        for partition in self.owned.keys() - {p for p, renewed in found if renewed}:
            self._forget(partition)
        fair_share = math.ceil(shared / members)
        excess = list(self.owned)[fair_share:]
        self._give_back(connection, excess)
        for partition in excess:
            del self.owned[partition]
        return fair_share - len(self.owned)

    def _give_back(self, connection: Connection, partitions: Sequence[int]) -> None:
        if partitions:
            connection.execute(_GIVE_BACK, self._me | {"partitions": list(partitions)})

    def _take(self, missing: int) -> None:
        if missing <= 0:
            return
        with self._engine.connect() as connection:
            free = connection.execute(_FREE, self.id).scalars().all()
        for partition in free:
            if missing > 0 and self._take_one(partition):
                missing -= 1

    def _take_one(self, partition: int) -> bool:
        wanted = {"partition": partition, "known": self._fence.epoch(partition)}
        with self._engine.begin() as connection:
            epoch = connection.execute(_TAKE, self._me | wanted).scalar()
        if epoch is None:
            return False
        # Crash window: our epoch counts in PostgreSQL and not yet at the broker, where the old
        # owner may still publish; nobody works on the partition until this lease ends.
        crash.point("lease.after_raise")
        try:
            self._fence.raise_epoch(partition, epoch)
        except LeaseLostError:
            return False
        self.owned[partition] = Lease(partition, epoch)
        return True
