"""Sagas as a table of numbers to look at, for notebooks."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import Engine, MetaData, bindparam, text

from labkit import db, unit_of_work
from labkit.clock import SystemClock
from labkit.saga.state import ENDED
from labkit.saga.store import saga_tables

_COLUMNS = ("saga", "status", "sagas", "oldest_s", "median_s", "p99_s", "asked", "asked_again")


def saga_frame(engine: Engine) -> pd.DataFrame:
    """Return the numbers of all sagas of a database, by saga and status.

    Args:
        engine: the database of the service that orchestrates them.

    Returns:
        The columns `saga`, `status` and `sagas` (how many); `oldest_s`, the age of the oldest that
        is under way; `median_s` and `p99_s`, from beginning to end, of those that ended (all in
        seconds, empty where they have no meaning); `asked`, the commands sent, and `asked_again`,
        how many of them were not the first attempt.
    """
    table, history = map(db.quoted_in_text, saga_tables(MetaData()))
    query = text(f"""
        with facts as (
            select id, saga, max(at) filter (where what in ('completed', 'compensated')) as ended,
                   count(*) filter (where what = 'asked') as asked,
                   count(*) filter (where what = 'asked' and detail <> '') as again
            from {history} group by saga, id
        ), timed as (
            select s.saga, s.status, facts.asked, facts.again,
                   case when s.status not in :ended
                        then extract(epoch from :now - s.started_at) end as age_s,
                   case when s.status in :ended
                        then extract(epoch from facts.ended - s.started_at) end as took_s
            from {table} as s left join facts on facts.saga = s.saga and facts.id = s.id
        )
        select saga, status, count(*), cast(max(age_s) as float8),
               percentile_cont(0.5) within group (order by took_s),
               percentile_cont(0.99) within group (order by took_s),
               cast(coalesce(sum(asked), 0) as int), cast(coalesce(sum(again), 0) as int)
        from timed group by saga, status order by saga, status
    """).bindparams(bindparam("ended", expanding=True))
    with engine.connect() as connection:
        now = unit_of_work.carried(connection, "labkit_clock", SystemClock()).now()
        values = {"now": now, "ended": [str(status) for status in sorted(ENDED)]}
        rows = connection.execute(query, values).all()
    return pd.DataFrame([tuple(row) for row in rows], columns=list(_COLUMNS))
