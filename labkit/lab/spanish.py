"""Numbers as a Spanish text writes them, for figures and tables."""

from __future__ import annotations

from decimal import Decimal

_EXACT_FROM = 1_000


def number(value: float) -> str:
    """Return a number with decimal comma, at most three digits after rounding, groups from 10 000.

    >>> number(0.4567), number(12345), number(3.0)
    ('0,457', '12\u202f345', '3')
    """
    if isinstance(value, int) or abs(value) >= _EXACT_FROM:
        grouped = f"{round(value):,}"
        # Spanish does not group four digits.
        wide = len(grouped.lstrip("-")) > len("1,000")
        return grouped.replace(",", "\N{NARROW NO-BREAK SPACE}" if wide else "")
    # Why not :g alone: it would write small numbers as 1e-05.
    return f"{Decimal(f'{value:.3g}'):f}".replace(".", ",")


def counted(count: int, plural: str) -> str:
    """Return a count and what is counted, for words whose plural only adds an s.

    >>> counted(1, "perdidos"), counted(2, "perdidos")
    ('1 perdido', '2 perdidos')
    """
    return f"{number(count)} {plural.removesuffix('s') if count == 1 else plural}"
