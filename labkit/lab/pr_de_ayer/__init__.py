"""Yesterday's pull request, the code that session 7 reviews: it joins orders and inventory.

`code` is what was merged, on the shop's real tables and the real streams; `own_tests` is what it
was merged with; `comments` is what the review found. Material of the workbook: the shop itself
does not use it.

    pr_de_ayer.place_order(historia.orders, historia.transport, "ORD-1", [("BOOK-DDD", 2)])
    pr_de_ayer.attend(historia.stock, historia.transport)
    pr_de_ayer.run_tests(historia)
    pr_de_ayer.comments()
"""

from __future__ import annotations

from labkit.lab.pr_de_ayer.code import (
    announce_then_place,
    answer_to,
    attend,
    handle_reservation,
    place_order,
)
from labkit.lab.pr_de_ayer.comments import comments
from labkit.lab.pr_de_ayer.own_tests import run_tests

__all__ = [
    "announce_then_place",
    "answer_to",
    "attend",
    "comments",
    "handle_reservation",
    "place_order",
    "run_tests",
]
