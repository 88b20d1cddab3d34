"""Flows: what the code itself says of a process over two services, read from its source.

Which module asks for the next step, how a definition reads, what labkit says when a step is moved,
and what sets choreography, saga and process manager apart.

Guarantee: every cell comes from the modules that run, by parsing them or by building from them.
Not guaranteed: that a name which is called in a module is called in every run.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pandas as pd

from labkit.errors import ConfigurationError
from labkit.lab import branching
from labkit.lab.charts import Cell, bad, good, plain
from labkit.lab.spanish import number
from labkit.process_manager import ProcessManager
from labkit.saga import Saga, Sagas
from labkit.service import Service
from labkit.shop import (
    backorder,
    checkout,
    choreography,
    contracts,
    fulfillment,
    inventory,
    payments,
)
from labkit.shop.checkout import Checkout
from labkit.shop.contracts import (
    ReleaseReservationRequested,
    ReservationReleased,
    ReserveStockRequested,
)
from labkit.shop.payments import AuthorizePaymentRequested

# Whose reactions make up the flow, by style. Inventory and payments answer in both.
STYLES: Mapping[str, tuple[ModuleType, ...]] = {
    "coreografía": (fulfillment, choreography),
    "orquestación": (checkout,),
}
_STEPS: Mapping[str, str] = {
    "reservar stock": ReserveStockRequested.__name__,
    "cobrar": AuthorizePaymentRequested.__name__,
    "decidir que se libera": fulfillment.ask_for_release.__name__,
    "liberar stock": ReleaseReservationRequested.__name__,
}
# The messages of a step and the verb that asks for it: whoever names one has to do with the step.
_OF_THE_RELEASE = frozenset(
    {
        ReleaseReservationRequested.__name__,
        ReservationReleased.__name__,
        fulfillment.ask_for_release.__name__,
    }
)
_IN_BOTH: tuple[ModuleType, ...] = (inventory, payments, contracts)
REFUSED, ACCEPTED = "rechazado", "aceptado"


def definition(module: ModuleType, name: str) -> str:
    """Return the assignment of a name, cut out of its module.

    Args:
        module: where it is.
        name: what is assigned.

    Raises:
        LookupError: when the module assigns no such name.
    """
    source = inspect.getsource(module)
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and name in {ast.unparse(each) for each in node.targets}:
            return ast.get_source_segment(source, node) or ""
    raise LookupError(f"{module.__name__} assigns no {name}")


def who_asks() -> pd.DataFrame:
    """Return for each step the modules that ask for it, by style."""
    rows = [
        {"paso": step} | {style: _asking(name, style) for style in STYLES}
        for step, name in _STEPS.items()
    ]
    return pd.DataFrame(rows)


def files_of_a_step() -> pd.DataFrame:
    """Return the files that name the step which S2 added, the release of stock, by style.

    Whoever adds a step like it touches as many: participant and contract are among them.
    """
    touched = {
        style: [module for module in (*modules, *_IN_BOTH) if _named(module) & _OF_THE_RELEASE]
        for style, modules in STYLES.items()
    }
    files = dict.fromkeys(module for modules in touched.values() for module in modules)
    rows: list[dict[str, Any]] = [
        {"fichero": f"{_short(module).replace('.', '/')}.py"}
        | {style: module in modules for style, modules in touched.items()}
        for module in files
    ]
    total = {style: len(modules) for style, modules in touched.items()}
    return pd.DataFrame([*rows, {"fichero": "en total"} | total])


def who_knows() -> dict[str, list[str]]:
    """Return for each style the modules that one must read to know the whole flow."""
    return {
        style: [_short(each) for each in modules if _called(each) & {*_STEPS.values()}]
        for style, modules in STYLES.items()
    }


def _asking(name: str, style: str) -> str:
    found = [_short(each) for each in STYLES[style] if name in _called(each)]
    return ", ".join(found) or "–"


def _short(module: ModuleType) -> str:
    return module.__name__.removeprefix("labkit.")


def _called(module: ModuleType) -> set[str]:
    """Return the names that a module calls, whatever they are attributes of."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module)))
             if isinstance(node, ast.Call)]  # fmt: skip
    return {ast.unparse(call.func).rpartition(".")[2] for call in calls}


def _named(module: ModuleType) -> set[str]:
    """Return all names that a module writes: of variables, attributes, classes and functions."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return names | {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def moved(saga: Saga, step: str, place: int) -> Saga:
    """Return the same definition with a step at another place.

    Args:
        saga: the definition.
        step: which step.
        place: its new place, from 1.

    Raises:
        ConfigurationError: when labkit refuses that order.
    """
    rest = [each for each in saga.steps.values() if each.name != step]
    steps = [*rest[: place - 1], saga.steps[step], *rest[place - 1 :]]
    return Saga(saga.name, *steps, data=saga.data, version=saga.version, at_end=saga.at_end)


def refusal(saga: Saga, step: str, place: int) -> str | None:
    """Return why labkit refuses a step at another place, None when it does not; see `moved`."""
    try:
        moved(saga, step, place)
    except ConfigurationError as error:
        return str(error)
    return None


def moves(saga: Saga) -> dict[str, dict[str, Cell]]:
    """Try every step at every place, and return what labkit says.

    Args:
        saga: the definition.
    """
    names = list(saga.steps)
    return {
        step: {f"{place}.º": _move(saga, step, place) for place in range(1, len(names) + 1)}
        for step in names
    }


def _move(saga: Saga, step: str, place: int) -> Cell:
    if list(saga.steps)[place - 1] == step:
        return plain("su sitio")
    return bad(REFUSED) if refusal(saga, step, place) else good(ACCEPTED)


def reading_of_moves(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """Read which moves are accepted.

    Args:
        cells: from `moves`.
    """
    tried = [
        (step, place, cell.text)
        for step, row in cells.items()
        for place, cell in row.items()
        if cell.verdict != "plain"
    ]
    accepted = [f"{step} al {place}" for step, place, said in tried if said == ACCEPTED]
    count = f"De {number(len(tried))} cambios de sitio se rechazan"
    return f"{count} {number(len(tried) - len(accepted))}; se aceptan: {', '.join(accepted)}."


def three_flows(order: Checkout) -> pd.DataFrame:
    """Return what sets choreography, saga and process manager apart, from what each is made of.

    Args:
        order: what a checkout is made from.
    """
    saga, process = branching.of_saga(checkout.CHECKOUT, order), branching.of_backorder()
    return pd.DataFrame(
        [
            _flow("coreografía", choreography.service, None),
            _flow("saga `checkout`", checkout.sagas, saga),
            _flow("gestor de procesos `backorder`", backorder.manager, process),
        ]
    )


def _flow(
    name: str, flow: Service | Sagas | ProcessManager[Any], ways: branching.Ways | None
) -> dict[str, Any]:
    table = flow.store.table.name if isinstance(flow, Sagas | ProcessManager) else None
    return {
        "flujo": name.replace("`", ""),
        "inicio explícito": hasattr(flow, "start"),
        "estado propio": table or "–",
        "caminos desde un estado": ways.most if ways else None,
        "finales distintos": len(ways.ends) if ways else None,
    }
