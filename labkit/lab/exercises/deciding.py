"""04-E2: what to do about a fault: try again, set aside, answer no, or refuse at once.

Attacked by faults as they come about (`failing`): connections that break, answers that are slow or
never come, an inventory that says no, a message that cannot be read, a breaker that is open, a
database that is full or away, charges with and without an idempotency key.

Guarantee: what is asked for here is what labkit's consumer, retry and breaker do (tested).
Not guaranteed: the answers that need more than the fault: waiting, and an alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from labkit.lab.exercises import failing
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.patience import patience
from labkit.lab.exercises.resilience_pieces import Fallo
from labkit.lab.exercises.student import FlawError, StudentFunction, telling
from labkit.lab.servers import Stack
from labkit.lab.spanish import number
from labkit.shop.contracts import OUT_OF_STOCK, UNKNOWN_SKU

RETRY, ASIDE, NO, REFUSE = _VERDICTS = ("reintentar", "apartar", "responder_no", "rechazar_ya")
_PATIENCE_S = 5.0
_CROWD = 20
_F3 = "Rechazaste ORD-17 con 22 unidades en el almacén."


def _attack(function: StudentFunction, _servers: Callable[[], Stack]) -> list[str]:
    attacks = (
        _break_connections,
        _be_slow,
        _lose_the_database,
        _say_no,
        _send_rubbish,
        _open_the_breaker,
        _lose_charges,
    )
    with patience(_PATIENCE_S):
        return [attack(function) for attack in attacks]


def _ask(function: StudentFunction, fault: Fallo) -> str:
    """Ask twice: who remembers the first time answers otherwise."""
    first, again = (_answer(function, fault) for _ in range(2))
    if first != again:
        raise FlawError(
            "Con el mismo fallo, la segunda vez decides otra cosa: tu función recuerda algo.",
            _told(fault, again),
        )
    return first


def _answer(function: StudentFunction, fault: Fallo) -> str:
    with telling(function):
        verdict = function(fault)
    if verdict is None:
        raise FlawError(
            "Tu función no devuelve nada: ¿falta un `return` en algún camino?", _told(fault, None)
        )
    if not isinstance(verdict, str) or verdict not in _VERDICTS:
        raise FlawError(
            f"Devolviste `{verdict!r:.40}`: se espera una de "
            f"{', '.join(f'`{each}`' for each in _VERDICTS)}.",
            _told(fault, verdict),
        )
    return verdict


def _told(fault: Fallo, verdict: object) -> str:
    repeatable = "" if fault.idempotente else ", no idempotente"
    return f"{fault.de}, `{type(fault.causa).__name__}`{repeatable} → `{verdict!s:.40}`"


def _expect(
    function: StudentFunction, fault: Fallo, expected: str, sentences: Mapping[str, str]
) -> None:
    """Ask, and say what the wrong decision does to whom."""
    verdict = _ask(function, fault)
    if verdict != expected:
        raise FlawError(sentences[verdict], _told(fault, verdict))


def _break_connections(function: StudentFunction) -> str:
    """The broker is away for two seconds, with healthy messages under way."""
    faults = failing.broken_connections(_CROWD)
    verdicts = {fault: _ask(function, fault) for fault in faults}
    for fault, verdict in verdicts.items():
        if verdict == NO:
            raise FlawError(_F3, _told(fault, verdict))
    _refuse_healthy_dead(_of(verdicts, ASIDE))
    for fault in _of(verdicts, REFUSE):
        raise FlawError(
            f"Rechazas {fault.de} por una conexión rota que vuelve en 2 s: reintenta, nadie la ha "
            "dado por caída todavía.",
            _told(fault, REFUSE),
        )
    return f"{_CROWD} conexiones rotas se reintentan"


def _of(verdicts: Mapping[Fallo, str], wanted: str) -> list[Fallo]:
    return [fault for fault, verdict in verdicts.items() if verdict == wanted]


def _refuse_healthy_dead(dead: list[Fallo]) -> None:
    if not dead:
        return
    count = "Veinte" if len(dead) == _CROWD else number(len(dead))
    raise FlawError(
        f"{count} mensajes sanos murieron por una caída de 2 s.",
        f"de {dead[0].de} a {dead[-1].de}, {_kinds(dead)} → `{ASIDE}`",
    )


def _kinds(faults: Iterable[Fallo]) -> str:
    return ", ".join(dict.fromkeys(f"`{type(fault.causa).__name__}`" for fault in faults))


def _be_slow(function: StudentFunction) -> str:
    sentences = {
        NO: _F3,
        ASIDE: "ORD-17 tardó más de 2 s y apartas su mensaje, que está sano: ya lo hará otra vez.",
        REFUSE: "ORD-17 tardó más de 2 s, una vez: un caso no es una avería. Reintenta.",
    }
    _expect(function, failing.slow(), RETRY, sentences)
    return "lo lento se reintenta"


def _lose_the_database(function: StudentFunction) -> str:
    for fault, what in (
        (failing.database_full(), "está llena"),
        (failing.database_away(), "no contesta"),
    ):
        sentences = {
            NO: _F3,
            ASIDE: f"La base de datos {what} y apartas ORD-17: su mensaje no tiene culpa.",
            REFUSE: (
                f"La base de datos {what} y rechazas ORD-17: su mensaje ya es tuyo y nadie más lo "
                "hará. Espera y reintenta."
            ),
        }
        _expect(function, fault, RETRY, sentences)
    return "una base de datos llena o caída se reintenta, sin tocar el mensaje"


def _say_no(function: StudentFunction) -> str:
    for reason in (OUT_OF_STOCK, UNKNOWN_SKU):
        sentences = {
            RETRY: f"Reintentas `{reason}`: la respuesta era un no, no un fallo.",
            ASIDE: f"Apartas `{reason}` de RES-3: se entendió todo, y ORD-3 espera su no.",
            REFUSE: f"`{reason}` no es una avería: el almacén miró y dijo que no a RES-3.",
        }
        _expect(function, failing.no_stock(reason), NO, sentences)
    return "un no de negocio se responde"


def _send_rubbish(function: StudentFunction) -> str:
    sentences = {
        RETRY: ('Reintentas RES-18 con `qty: "dos"`: no cambiará, y bloquea lo que venga detrás.'),
        NO: "El almacén no ha dicho que no a RES-18; tú no supiste leer.",
        REFUSE: "Rechazas RES-18 y se pierde: apártalo, y se reprocesa cuando se corrija.",
    }
    _expect(function, failing.unreadable(), ASIDE, sentences)
    return "lo ilegible se aparta"


def _open_the_breaker(function: StudentFunction) -> str:
    sentences = {
        RETRY: (
            "El cortacircuitos del inventario está abierto y lo reintentas con ORD-17: es la carga "
            "de la que lo protege."
        ),
        ASIDE: "Apartas ORD-17 porque el cortacircuitos está abierto: su mensaje está sano.",
        NO: _F3,
    }
    _expect(function, failing.open_breaker("ORD-17", idempotente=True), REFUSE, sentences)
    unsent = "El cobro de ORD-19 no llegó a salir: con el cortacircuitos abierto no hay nada que "
    sentences = {
        RETRY: f"{unsent}repetir todavía.",
        ASIDE: f"{unsent}averiguar.",
        NO: "Dices a ORD-19 que su pago fue rechazado, y nadie lo ha intentado.",
    }
    _expect(function, failing.open_breaker("ORD-19", idempotente=False), REFUSE, sentences)
    return "con el cortacircuitos abierto se rechaza ya"


def _lose_charges(function: StudentFunction) -> str:
    sentences = {
        RETRY: (
            "Reintentas el cobro de ORD-19 sin clave de idempotencia: si el primero llegó, paga "
            "dos veces."
        ),
        NO: "Dices que no a ORD-19 y quizá ya pagó: sin respuesta no es sin efecto.",
        REFUSE: "Rechazas ORD-19 y quizá ya pagó: nadie mirará si se cobró.",
    }
    _expect(function, failing.lost_charge("ORD-19", idempotente=False), ASIDE, sentences)
    sentences = {
        ASIDE: "El cobro de ORD-20 lleva clave de idempotencia: repetirlo no cobra dos veces.",
        NO: "Dices que no a ORD-20 y quizá ya pagó: repite con la misma clave y lo sabrás.",
        REFUSE: "Rechazas ORD-20 y quizá ya pagó: repite con la misma clave y lo sabrás.",
    }
    _expect(function, failing.lost_charge("ORD-20", idempotente=True), RETRY, sentences)
    return "un cobro de resultado desconocido se repite con clave, y sin ella se aparta"


DECIDING = Exercise(
    id="04-E2",
    signature="decidir(fallo)",
    hints=(
        (
            "Mira `fallo.causa` con `isinstance`. Pregunta por este orden: ¿es un no? ¿Llegó a "
            "salir? ¿Se entiende? Y lo último: ¿hace daño repetirlo (`fallo.idempotente`)?"
        ),
        (
            "`StockReservationRejected` es una respuesta: `responder_no`. `BreakerOpenError`, "
            "`rechazar_ya`. `InvalidMessageError`, o no idempotente, `apartar`. Lo demás es "
            "técnico y pasa: `reintentar`."
        ),
    ),
    attack=_attack,
)
