"""The journey of an order as a picture: solid as far as messages are on record, dashed beyond.

Guarantee: a leg is solid if, and only if, the workshop's databases and streams hold its messages.
Not guaranteed: that a solid leg was travelled without fault; the attacks look at that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.lab.charts_style import COLOURS, FAINT, GREY, INK, MARGIN_IN, TEXT, TITLE_IN, paper
from labkit.lab.observations import requests
from labkit.lab.workshop.shop import Workshop

LANES = ("cliente", "fulfillment", "streams", "inventory", "vista")
_LANE_IN, _ROW_IN, _LEFT_IN = 2.45, 0.62, 1.2


class Leg(NamedTuple):
    """One arrow of the journey; `gap` is the number of who is to draw it, 0 for the customer."""

    gap: str
    source: str
    target: str
    label: str


LEGS = (
    Leg("–", "cliente", "fulfillment", "place_order"),
    Leg("1", "fulfillment", "fulfillment", "pedido y ReserveStockRequested, guardados"),
    Leg("2", "fulfillment", "streams", "ReserveStockRequested"),
    Leg("3", "streams", "inventory", "consumir y reservar"),
    Leg("4", "inventory", "streams", "una respuesta por línea"),
    Leg("5", "streams", "vista", "OrderStatusChanged"),
    Leg("6", "fulfillment", "inventory", "ReleaseReservationRequested"),
)


def done(shop: Workshop) -> list[bool]:
    """Return which legs have left their messages."""
    types = shop.recorded()
    noted = shop.table(shop.stock, "select 1 from inbox_messages where consumer = 'inventory'")
    shown = shop.table(shop.orders, "select 1 from order_status_view where version > 1")
    return [
        True,
        "ReserveStockRequested" in types,
        bool(requests(shop)),
        len(noted) > 0,
        "StockReserved" in types,
        len(shown) > 0,
        "ReleaseReservationRequested" in types,
    ]


def reading(done: Sequence[bool]) -> str:
    """Say how far the journey goes."""
    gaps = [leg.gap for leg, there in zip(LEGS, done, strict=True) if leg.gap != "–" and not there]
    if not gaps:
        return "El viaje está entero: los seis huecos han dejado sus mensajes."
    until = next(n for n, there in enumerate(done) if not there)
    last = LEGS[until - 1].label
    return (
        f"Hay {len(LEGS) - 1} huecos y faltan {len(gaps)}: el viaje acaba en «{last}». Lo que va "
        "en línea discontinua no ha dejado ningún mensaje."
    )


def draw(done: Sequence[bool], *, title: str = "El viaje de un pedido, y lo que falta") -> Figure:
    """Draw it.

    Args:
        done: from `done`, one for each of `LEGS`.
        title: stands above.
    """
    height = TITLE_IN + 0.6 + _ROW_IN * (len(LEGS) + 0.6)
    width = _LEFT_IN + _LANE_IN * (len(LANES) - 1) + 1.2
    figure, axes = paper(width, height, title)
    places = {name: _LEFT_IN + _LANE_IN * n for n, name in enumerate(LANES)}
    _draw_lanes(axes, places, height)
    for row, (leg, there) in enumerate(zip(LEGS, done, strict=True)):
        _draw_leg(axes, leg, places, TITLE_IN + 1.0 + _ROW_IN * row, there=there)
    return figure


def _draw_lanes(axes: Axes, places: Mapping[str, float], height: float) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": INK}
    for name, x in places.items():
        axes.plot((x, x), (TITLE_IN + 0.3, height - MARGIN_IN), color=FAINT, linewidth=1)
        axes.text(
            x, TITLE_IN + 0.2, name, size=TEXT, weight="bold", ha="center", va="center", bbox=box
        )


def _draw_leg(axes: Axes, leg: Leg, places: Mapping[str, float], y: float, *, there: bool) -> None:
    colour = COLOURS[0] if there else GREY
    style = "-" if there else (0, (4, 3))
    label = leg.label if there else f"{leg.label} (falta)"
    start, end = places[leg.source], places[leg.target]
    words: dict[str, Any] = {
        "size": 12,
        "color": colour,
        "va": "center",
        "weight": "bold" if there else "normal",
    }
    back = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    if start == end:
        axes.plot(start, y, marker="o" if there else "$○$", markersize=9, color=colour)
        axes.text(start + 0.2, y, f"{leg.gap} · {label}", ha="left", bbox=back, **words)
        return
    arrow = {"arrowstyle": "-|>", "color": colour, "linestyle": style, "linewidth": 1.8,
             "mutation_scale": 16}  # fmt: skip
    axes.annotate("", (end, y + 0.1), (start, y + 0.1), arrowprops=arrow)
    axes.text((start + end) / 2, y - 0.12, f"{leg.gap} · {label}", ha="center", bbox=back, **words)
