"""Steps: what a function does to its database, one after the other, and where it may be stopped.

Guarantee: every statement and every COMMIT on a watched engine is noted in the order in which it
was asked for, whoever opened the session, and `after` is called when it has happened.
Not guaranteed: what does not pass through a watched engine, except what tells us by `done`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

_WRITE = re.compile(
    r'\b(insert)\s+into\s+"?(\w+)|^\s*(update|delete)\s+(?:from\s+)?"?(\w+)', re.IGNORECASE
)
_READ = re.compile(r'^\s*(select)\b.*?\bfrom\s+"?(\w+)', re.IGNORECASE | re.DOTALL)


def label_of(statement: str) -> str:
    """Name a statement: what it does, and to which table.

    >>> label_of("insert into orders (order_id) values (%s)")
    'INSERT orders'
    """
    found = _READ.search(statement) or _WRITE.search(statement)
    words = [word for word in found.groups() if word] if found else statement.split()[:1]
    return " ".join([words[0].upper(), *words[1:]])


class Steps:
    """A record of steps.

    Args:
        who: begins every label; tells two deliveries apart.
        taken: where labels go; a list of its own by default.
        after: called with the number of the step that has just been done, from 1.
        before_commit: called before each COMMIT is sent.
    """

    def __init__(
        self,
        who: str = "",
        *,
        taken: list[str] | None = None,
        after: Callable[[int], None] = lambda _number: None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.taken: list[str] = [] if taken is None else taken
        self._who = who
        self._after = after
        self._before_commit = before_commit
        self._done = 0

    def __str__(self) -> str:
        return " → ".join(f"`{label}`" for label in self.taken)

    def watch(self, engine: Engine) -> Engine:
        """Note what happens on this engine; return it."""
        event.listen(engine, "before_cursor_execute", self._statement_asked)
        event.listen(engine, "after_cursor_execute", lambda *_: self._happened())
        event.listen(engine, "rollback", lambda _connection: self._asked("ROLLBACK"))
        self._wrap_commit(engine)
        return engine

    def done(self, label: str) -> None:
        """Note a step that no engine sees."""
        self._asked(label)
        self._happened()

    def _wrap_commit(self, engine: Engine) -> None:
        # Why not the event "commit": it is over before COMMIT is sent, and a process must also die
        # between COMMIT and whatever else waits for it (a hook of the session, for one).
        dialect: Any = engine.dialect
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            self._before_commit()
            self._asked("COMMIT")
            commit(connection)
            self._happened()

        dialect.do_commit = do_commit

    def _statement_asked(self, *arguments: Any) -> None:
        self._asked(label_of(arguments[2]))

    def _asked(self, label: str) -> None:
        self.taken.append(f"{self._who} {label}".strip())

    def _happened(self) -> None:
        self._done += 1
        self._after(self._done)

    @property
    def count(self) -> int:
        """Return how many steps were done."""
        return self._done
