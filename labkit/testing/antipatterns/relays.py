"""How rows of the outbox reach the stream: two ways that fail, none, and labkit's relay.

Each function is one pass and returns whether there may be more.
"""

from __future__ import annotations

from sqlalchemy import text

from labkit.crash import point as may_die_here
from labkit.testing.antipatterns.lab import Lab


def no_relay(_lab: Lab) -> bool:
    """Do nothing: the writer publishes by itself."""
    return False


def relay_by_cursor(lab: Lab) -> bool:
    """Remember the last `seq`: a row that commits late, with a smaller one, is skipped for ever."""
    with lab.source.connect() as connection:
        query = text("select seq, key, body from outbox_messages where seq > :last order by seq")
        rows = connection.execute(query, {"last": lab.cursor()}).all()
    for row in rows:
        lab.publish_body(row.key, row.body)
    may_die_here("relay.after_publish")
    if rows:
        lab.move_cursor(rows[-1].seq)
    return bool(rows)


def relay_without_owner(lab: Lab) -> bool:
    """Share the rows by SKIP LOCKED: who is slow with the first ones is overtaken by the others."""
    with lab.unlimited.begin() as connection:
        claimed = text(
            "select seq, key, body from outbox_messages where published_at is null "
            "order by seq limit 5 for update skip locked"
        )
        rows = connection.execute(claimed).all()
        may_die_here("relay.after_claim")
        for row in rows:
            lab.publish_body(row.key, row.body)
        may_die_here("relay.after_publish")
        mark = text("update outbox_messages set published_at = now() where seq = any(:seqs)")
        connection.execute(mark, {"seqs": [row.seq for row in rows]})
    return bool(rows)


def labkit_relay(lab: Lab) -> bool:
    """Own partitions under an epoch, publish in order, mark."""
    return bool(lab.relay.run_once()) or lab.waits_unpublished()
