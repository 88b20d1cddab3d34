"""04-E1: how long to wait after a failed attempt, or not to go on.

Attacked by a thousand clients that fail together, each with its own seeded chance; by attempt 60;
by a server that asks to be left alone; by a deadline that comes first. The function is pure.

Guarantee: what is asked for here is how `labkit.retry` waits (tested): the same chance gives the
same pause, up to the longest pause that a server may ask for.
Not guaranteed: how many attempts there are, and a budget over all callers; see `labkit.budget`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from labkit.lab.exercises.chances import Case, ask, clients, longest
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.patience import patience
from labkit.lab.exercises.resilience_pieces import BASE_S, TOPE_S
from labkit.lab.exercises.student import StudentFunction
from labkit.lab.servers import Stack
from labkit.lab.spanish import number

_PATIENCE_S = 5.0
_PLENTY_S = 600.0
_FIRST = (1, 2, 3, 4, 5)
_CAPPED, _LATE = 8, 60
_TOGETHER = 100
_YEAR_S = 365.25 * 24 * 3600
_GROWTH = 16.0  # 2⁴, from the first pause to the fifth


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (_come_back, _last, _obey, _run_out)
    with patience(_PATIENCE_S):
        return [attack(function) for attack in attacks]


def _come_back(function: StudentFunction) -> str:
    """A thousand clients fail together, five times in a row."""
    waits = {attempt: clients(function, attempt, _PLENTY_S) for attempt in _FIRST}
    for attempt in _FIRST:
        _refuse_giving_up(waits[attempt])
    _refuse_milliseconds(waits[_FIRST[0]])
    _refuse_one_instant([waits[attempt] for attempt in _FIRST])
    _refuse_one_second(waits[_FIRST[-1]])
    _refuse_no_growth(waits[_FIRST[0]], waits[_FIRST[-1]])
    return f"{number(len(waits[1]))} clientes que fallan a la vez no vuelven a la vez"


def _refuse_giving_up(cases: Sequence[Case]) -> None:
    for case in cases:
        if case.wait_s is None:
            raise case.flaw(
                f"Te rindes tras el intento {case.attempt} con {number(_PLENTY_S)} s por delante: "
                "`None` es para cuando no queda plazo."
            )


def _refuse_milliseconds(cases: Sequence[Case]) -> None:
    case = max(cases, key=lambda each: each.seconds)
    if case.seconds > TOPE_S:
        raise case.flaw(
            f"Tras el intento {case.attempt} esperas {number(case.seconds)} s y el tope es "
            f"{number(TOPE_S)} s: ¿son milisegundos?"
        )


def _refuse_one_instant(waits: Sequence[Sequence[Case]]) -> None:
    crowded = [cases[0] for cases in waits if _most_at_once(cases) > len(cases) // 2]
    if not crowded:
        return
    if len(crowded) == len(waits):
        raise crowded[0].flaw(
            f"{_TOGETHER} clientes vuelven en el mismo instante {len(crowded)} veces seguidas."
        )
    raise crowded[0].flaw(
        f"Tras el intento {crowded[0].attempt}, {_TOGETHER} clientes vuelven en el mismo instante."
    )


def _most_at_once(cases: Sequence[Case]) -> int:
    return Counter(case.wait_s for case in cases).most_common(1)[0][1]


def _refuse_one_second(cases: Sequence[Case]) -> None:
    """A pinch of chance on a long pause moves the crowd, and keeps it together."""
    [(_, most)] = Counter(int(case.seconds) for case in cases).most_common(1)
    if most > len(cases) // 2:
        raise cases[0].flaw(
            f"Tras el intento {cases[0].attempt}, {number(most)} de {number(len(cases))} clientes "
            "vuelven en el mismo segundo: reparte la espera entera, no solo una pizca al final."
        )


def _refuse_no_growth(first: Sequence[Case], fifth: Sequence[Case]) -> None:
    before_s, after_s = (fmean(case.seconds for case in cases) for cases in (first, fifth))
    if after_s < before_s * _GROWTH / 2:
        raise fifth[0].flaw(
            f"Del intento 1 al 5 tu espera media pasa de {number(before_s)} a {number(after_s)} s: "
            f"doblando en cada intento crece {number(_GROWTH)} veces."
        )


def _last(function: StudentFunction) -> str:
    """The outage lasts; whoever stops here has counted attempts, and may."""
    for attempt in (_LATE, _CAPPED):
        cases = clients(function, attempt, _YEAR_S * 1e12)
        waiting = [case for case in cases if case.wait_s is not None]
        if waiting:
            _refuse_a_long_wait(max(waiting, key=lambda case: case.seconds))
            _refuse_the_cap_for_all(waiting)
    return f"tras el intento {_LATE} nadie espera más de {number(TOPE_S)} s"


def _refuse_a_long_wait(case: Case) -> None:
    if case.seconds > _YEAR_S * 1e6:
        raise case.flaw(f"El intento {case.attempt} esperaría millones de años: falta el tope.")
    if case.seconds > TOPE_S:
        raise case.flaw(
            f"El intento {case.attempt} esperaría {number(case.seconds)} s: el tope es "
            f"{number(TOPE_S)} s."
        )


def _refuse_the_cap_for_all(cases: Sequence[Case]) -> None:
    if _most_at_once(cases) > len(cases) // 2:
        raise cases[0].flaw(
            f"Tras el intento {cases[0].attempt}, casi todos esperan lo mismo y vuelven juntos: "
            "primero el tope, después `azar()`."
        )


def _obey(function: StudentFunction) -> str:
    """The server asks to be left alone, for less and for more than the cap."""
    for asked_s, attempt in ((5.0, 1), (5.0, 4), (TOPE_S * 1.5, 1)):
        cases = clients(function, attempt, _PLENTY_S, asked_s)
        waiting = [case for case in cases if case.wait_s is not None]
        if asked_s < TOPE_S:
            _refuse_giving_up(cases)
        if waiting:
            _refuse_coming_early(min(waiting, key=lambda case: case.seconds), asked_s)
            _refuse_obeying_together(waiting, asked_s)
    return "nadie vuelve antes de lo que pidió el servidor, ni todos a la vez"


def _refuse_coming_early(case: Case, asked_s: float) -> None:
    if case.seconds < asked_s:
        raise case.flaw(
            f"El servidor pidió {number(asked_s)} s. Vuelves a los {number(case.seconds)} s."
        )


def _refuse_obeying_together(cases: Sequence[Case], asked_s: float) -> None:
    if _most_at_once(cases) > len(cases) // 2:
        raise cases[0].flaw(
            f"El servidor pidió {number(asked_s)} s a {_TOGETHER} clientes y vuelven todos en el "
            "mismo instante: suma tu espera a la que pidió."
        )


def _run_out(function: StudentFunction) -> str:
    """What is left of the deadline is less than the pause, or enough for it."""
    enough = ask(function, 1, 3.0, None, longest)
    if enough.wait_s is None:
        raise enough.flaw("Quedan 3 s de plazo y basta con esperar 1 s: aún puedes seguir.")
    for attempt, left_s, asked_s in ((4, 3.0, None), (1, 3.0, 5.0), (1, 0.0, None)):
        _refuse_too_late(ask(function, attempt, left_s, asked_s, longest), left_s)
        for case in clients(function, attempt, left_s, asked_s):
            _refuse_too_late(case, left_s)
    return "si la espera no cabe en el plazo, no se sigue"


def _refuse_too_late(case: Case, left_s: float) -> None:
    if case.wait_s is None or case.wait_s < left_s:
        return
    if case.wait_s == left_s and left_s > 0:
        raise case.flaw(
            f"Recortas la espera a los {number(left_s)} s que quedan: al volver ya no hay plazo. "
            "Devuelve `None`."
        )
    raise case.flaw(
        f"Esperas {number(round(case.wait_s, 1))} s con {number(left_s)} s de plazo: nadie leerá "
        "la respuesta."
    )


WAITING = Exercise(
    id="04-E1",
    signature="espera(intento, restante_s, retry_after_s, azar)",
    hints=(
        (
            f"La espera más larga empieza en `BASE_S` ({number(BASE_S)} s), se dobla con cada "
            f"intento y no pasa de `TOPE_S` ({number(TOPE_S)} s). La tuya es una parte al azar de "
            "esa: `azar()` da un número entre 0 y 1."
        ),
        (
            "En este orden: `min(TOPE_S, BASE_S * 2 ** (intento - 1))`, por `azar()`, más lo que "
            "pidió el servidor (`retry_after_s or 0`). Si el total no es menor que `restante_s`, "
            "`return None`."
        ),
    ),
    attack=_attack,
)
