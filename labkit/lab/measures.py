"""Measures as a table to look at, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from labkit.observe import Measure


def frame(measures: Iterable[Measure]) -> pd.DataFrame:
    """Return measures as a table: one row each, one column per label.

    Args:
        measures: from `labkit.observe`.

    Returns:
        The columns `measure`, every label that occurs, `value` and `unit`; a label that a
        measure does not have is empty.
    """
    found = list(measures)
    labels = dict.fromkeys(label for each in found for label in each.labels)
    rows = [
        {"measure": each.name}
        | {label: each.labels.get(label, "") for label in labels}
        | {"value": float(each.value), "unit": each.unit}
        for each in found
    ]
    return pd.DataFrame(rows, columns=["measure", *labels, "value", "unit"])
