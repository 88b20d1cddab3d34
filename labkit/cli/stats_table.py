"""Measures as tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from labkit.observe import Measure

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def summary(service: str, measures: Sequence[Measure]) -> Table:
    """Return one service's numbers, partitions summed up.

    Args:
        service: its name.
        measures: from `labkit.observe.measure`.
    """
    seen = _Seen(measures)
    table = Table(title=service, title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("now", overflow="fold")
    table.add_column("oldest", justify="right")
    busy = sum(each.value > 0 for each in seen.of("outbox_pending"))
    where = f" in {busy} of {len(seen.of('outbox_pending'))} partitions" if busy else ""
    pending_s = seen.most("outbox_oldest_pending_age")
    table.add_row("outbox pending", f"{seen.sum('outbox_pending')}{where}", _age(pending_s))
    refused = f"{seen.sum('outbox_refused')} (keys behind: {seen.sum('outbox_keys_waiting')})"
    table.add_row("outbox refused", refused, "")
    for each in seen.of("outbox_last_published_age"):
        table.add_row("last published", f"{_age(each.value)} ago", "")
    for each in seen.of("inbox_rows_estimate"):
        table.add_row("inbox", f"about {each.value:,.0f} rows", "")
    for each in seen.of("held"):
        age_s = seen.most("held_oldest_age", **each.labels)
        name = f"held · {each.labels['consumer']} · {each.labels['state']}"
        table.add_row(escape(name), f"{each.value:.0f}", _age(age_s))
    for each in seen.of("dead_letters"):
        table.add_row(escape(f"dead letters · {each.labels['consumer']}"), f"{each.value:.0f}", "")
    for each in seen.of("lease_owners"):
        idle = seen.sum("lease_idle_partitions", **each.labels)
        name = f"{each.labels['kind']} · {each.labels['name']}"
        table.add_row(escape(name), f"owners {each.value:.0f}, idle partitions {idle}", "")
    if seen.of("stream_length"):
        table.add_row("stream", f"{seen.sum('stream_length')} entries", "")
    for group in dict.fromkeys(each.labels["group"] for each in seen.of("group_pending")):
        lag = seen.sum("group_lag", group=group)
        pending = seen.sum("group_pending", group=group)
        age_s = max(
            seen.most("group_oldest_lag_age", group=group),
            seen.most("group_oldest_pending_age", group=group),
        )
        table.add_row(escape(f"group · {group}"), f"lag {lag}, pending {pending}", _age(age_s))
    return table


def by_partition(measures: Sequence[Measure]) -> Table:
    """Return the numbers of every partition.

    Args:
        measures: from `labkit.observe.measure`.
    """
    seen = _Seen(measures)
    table = Table()
    for column in ("partition", "pending", "oldest", "entries", "groups"):
        table.add_column(column, justify="left" if column == "groups" else "right", overflow="fold")
    for each in seen.of("outbox_pending"):
        here = {"partition": each.labels["partition"]}
        groups = [
            f"{escape(one.labels['group'])}: lag {seen.sum('group_lag', **one.labels)}, "
            f"pending {one.value:.0f}"
            for one in seen.of("group_pending", **here)
        ]
        table.add_row(
            here["partition"],
            f"{each.value:.0f}",
            _age(seen.most("outbox_oldest_pending_age", **here)),
            str(seen.sum("stream_length", **here)),
            "\n".join(groups),
        )
    return table


class _Seen:
    """Measures by name and label."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._by_name: dict[str, list[Measure]] = defaultdict(list)
        for each in measures:
            self._by_name[each.name].append(each)

    def of(self, name: str, /, **labels: str) -> list[Measure]:
        return [each for each in self._by_name[name] if labels.items() <= each.labels.items()]

    def sum(self, name: str, /, **labels: str) -> int:
        return round(sum(each.value for each in self.of(name, **labels)))

    def most(self, name: str, /, **labels: str) -> float:
        return max((each.value for each in self.of(name, **labels)), default=0.0)


def _age(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s" if seconds else ""
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.1f} min"
    return f"{seconds / _HOUR_S:.1f} h" if seconds < _DAY_S else f"{seconds / _DAY_S:.1f} d"
