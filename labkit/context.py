"""Context: what the services of one bounded context share, their stream and their tables.

A context has one outbox and one stream, whose relay and cleaner run once. Several services may
work in it (`Service(beside=)`), each a consumer with handlers of its own.

Guarantee: no two consumers of a context have one name; they would share the messages, so that
each of them missed some.
Not guaranteed: names in other processes: a consumer is what it is called.

Pattern: Evans, *Domain-Driven Design*, ch. 14 ("Bounded Context").
"""

from __future__ import annotations

from sqlalchemy import MetaData

from labkit import limits
from labkit.dead_letters import DeadLetters
from labkit.errors import ConfigurationError
from labkit.held import Held
from labkit.inbox import Inbox
from labkit.outbox import Outbox
from labkit.partitions import lease_tables
from labkit.ports import Stream
from labkit.readers import reader_table
from labkit.retention import Retention


class Context:
    """The tables of one bounded context, and the names of who works in it.

    Args:
        name: names its database, unless whoever runs it says otherwise.
        stream: where its own events go; `<name>.events` by default.
        notify: see `labkit.outbox.Outbox`.
        retention: how long its tables and its stream keep what; two weeks by default.
    """

    def __init__(
        self, name: str, *, stream: Stream | None, notify: bool, retention: Retention | None
    ) -> None:
        limits.name("the service's name", name)
        self.name = name
        self.stream = stream or Stream(f"{name}.events")
        self.retention = retention or Retention()
        self.metadata = MetaData()
        self.outbox = Outbox(self.metadata, self.stream, notify=notify)
        self.inbox = Inbox(self.metadata)
        self.held = Held(self.metadata)
        self.dead_letters = DeadLetters(
            self.metadata, self.held, self.inbox, window_s=self.retention.dead_letters_s
        )
        lease_tables(self.metadata)
        reader_table(self.metadata)
        self._consumers: set[str] = set()

    def take_name(self, what: str, consumer: str) -> None:
        """Give a name to a consumer.

        Args:
            what: what is to be named otherwise, for the error.
            consumer: its name.

        Raises:
            ConfigurationError: when another consumer of this context has it.
        """
        if consumer in self._consumers:
            raise ConfigurationError(
                f"{consumer} is taken: name the {what} otherwise, for two consumers of one name "
                "share the messages, and each would miss some"
            )
        self._consumers.add(consumer)
