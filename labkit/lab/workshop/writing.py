"""Writing: the student's functions as a file that any process can import.

A function takes with it what it uses: pieces and other imports as imports, functions and plain
values of the notebook as they are written there.

Guarantee: the same functions give the same file; what cannot be carried is refused by its name,
and nothing is written then.
Not guaranteed: what a function reaches by `globals()`, `eval` or an attribute of a module that the
notebook changed.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Collection, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from labkit.errors import LabkitError
from labkit.lab.workshop import pieces

_HEAD = '''"""Mi checkout de la sesión 7: seis huecos, y dos servicios de labkit hechos con ellos.

Cada servicio en su terminal, y un pedido en la tercera:

    labkit run entrega.mi_checkout:service --role all \\
      --database cuaderno_05_fulfillment --prefix cuaderno_05:
    labkit run entrega.mi_checkout:inventario --role all \\
      --database cuaderno_05_inventory --prefix cuaderno_05:
    python -m entrega.mi_checkout ORD-21 BOOK-DDD=2 BOOK-HEX=1
"""

from __future__ import annotations

from typing import Any

from labkit.lab.workshop.assembly import assemble
from labkit.lab.workshop.demo import place
'''
_FOOT = """
partes = assemble({names})
service, inventario = partes.service, partes.inventario

if __name__ == "__main__":
    place(partes)
"""


def text_of(functions: Mapping[str, Any], mine: Collection[str]) -> str:
    """Return the file.

    Args:
        functions: what fills the gaps, by name.
        mine: the names of those that are the student's; the others are marked `# solución`.

    Raises:
        LabkitError: when a function uses what cannot be carried, or its source is gone.
    """
    carried = _Carried()
    bodies = [
        _marked(name, function, carried, own=name in mine) for name, function in functions.items()
    ]
    imports = sorted(carried.imports - {"from typing import Any"})
    names = ", ".join(f'"{name}": {name}' for name in functions)
    above = "\n".join([_pieces(carried.pieces), *imports])
    definitions = "\n\n\n".join([*carried.definitions.values(), *bodies])
    return f"{_HEAD}{above}\n\n\n{definitions}\n{_FOOT.format(names='{' + names + '}')}"


def _marked(name: str, function: Any, carried: _Carried, *, own: bool) -> str:
    carried.take(function)
    head = "# tu función" if own else "# solución"
    alias = "" if function.__name__ == name else f"\n\n\n{name} = {function.__name__}"
    return f"{head}\n{_source(function)}{alias}"


def _pieces(names: Collection[str]) -> str:
    listed = "".join(f"    {name},\n" for name in sorted(names))
    return f"from labkit.lab.workshop.pieces import (\n{listed})" if names else ""


class _Carried:
    """What functions need besides themselves."""

    def __init__(self) -> None:
        self.pieces: set[str] = set()
        self.imports: set[str] = set()
        self.definitions: dict[str, str] = {}
        self._seen: set[FunctionType] = set()

    def take(self, function: FunctionType) -> None:
        """Take what a function uses."""
        if function in self._seen:
            return
        self._seen.add(function)
        if function.__closure__:
            raise LabkitError(
                f"`{function.__name__}` usa una variable de otra función: defínela fuera."
            )
        for name in dict.fromkeys(_globals_in(function.__code__)):
            if name in function.__globals__:
                self._take_value(name, function.__globals__[name], function)

    def _take_value(self, name: str, value: Any, user: FunctionType) -> None:
        module, own_name = getattr(value, "__module__", None), getattr(value, "__name__", None)
        if name in pieces.__all__ and getattr(pieces, name) is value:
            self.pieces.add(name)
        elif isinstance(value, ModuleType):
            self.imports.add(f"import {value.__name__} as {name}")
        elif isinstance(value, FunctionType) and module == user.__module__:
            self.take(value)
            self.definitions[name] = _source(value)
        elif module and own_name and module != "__main__":
            self.imports.add(f"from {module} import {_as(own_name, name)}")
        elif _is_plain(value):
            self.definitions[name] = f"{name} = {value!r}"
        else:
            raise LabkitError(
                f"`{user.__name__}` usa `{name}`, que no se puede llevar a un fichero: créalo "
                "dentro de la función o impórtalo."
            )


def _as(own_name: str, name: str) -> str:
    return name if name == own_name else f"{own_name} as {name}"


def _is_plain(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _globals_in(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_in(constant)


def _source(function: FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function)).rstrip()
    except (OSError, TypeError):
        raise LabkitError(
            f"No encuentro el texto de `{function.__name__}`: ejecuta otra vez su celda."
        ) from None
