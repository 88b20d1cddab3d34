"""The prediction of notebook 05."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "W0",
        "Con los seis huecos llenos pasarán 200 pedidos por tu código, y quince veces morirá un "
        "proceso a mitad de su trabajo. ¿Cuántos pedidos acabarán mal?",
        {
            "a": Option(
                "Unos pocos: alguna muerte caerá en mal momento.",
                "Supone que hay momentos malos. Cada paso es una transacción, y lo que no se "
                "confirmó vuelve: no queda ningún momento malo.",
            ),
            "b": Option("Ninguno."),
            "c": Option(
                "Quince: uno por cada proceso muerto.",
                "Supone que un proceso se lleva consigo lo que tenía entre manos. Lo tenía en una "
                "transacción sin confirmar o en un mensaje sin acuse.",
            ),
        },
    ),
)
