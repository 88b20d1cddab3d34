"""The predictions of notebook 06."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "E1",
        "Un servidor está ocupado la mitad del tiempo, y la espera media es de un servicio. "
        "¿Cuánto se espera al 95 % de ocupación?",
        {
            "a": Option(
                "El doble: casi el doble de trabajo, casi el doble de espera.",
                "Supone que la espera crece como la ocupación. Crece como 1/(1 − ocupación): lo "
                "que cuenta es el tiempo libre que queda.",
            ),
            "b": Option("Unas veinte veces más."),
            "c": Option(
                "Lo mismo: hasta el 100 % nadie sobra.",
                "Supone que las llegadas son regulares. Llegan a ratos juntas, y entonces la cola "
                "necesita tiempo libre para vaciarse.",
            ),
        },
    ),
    Question(
        "E2",
        "Diez servidores al 60 %, y uno se vuelve cinco veces más lento. El balanceador reparte "
        "por turno. ¿Qué nota quien llama?",
        {
            "a": Option(
                "Una de cada diez peticiones tarda cinco veces más, y nada más.",
                "Supone que el lento no acumula cola. Si le llegan más peticiones de las que "
                "puede, su cola crece sin parar.",
            ),
            "b": Option(
                "Nada que se note: por turno es el reparto justo.",
                "Supone que repartir por igual es repartir bien. Lo es si todos son iguales.",
            ),
            "c": Option("La cola del lento crece sin parar."),
        },
    ),
    Question(
        "E3",
        "Diez nodos guardan claves según `hash(clave) % 10`. Se añade el undécimo. ¿Cuántas claves "
        "cambian de nodo?",
        {
            "a": Option("Nueve de cada diez."),
            "b": Option(
                "Una de cada once: las que le tocan al nuevo.",
                "Supone que el resto no cambia. Pero al cambiar el divisor cambia casi todo resto.",
            ),
            "c": Option(
                "La mitad, más o menos.",
                "Supone que un resto nuevo coincide a menudo con el viejo. Coincide una vez de "
                "cada once.",
            ),
        },
    ),
    Question(
        "E4",
        "Cada mensaje tiene 5 ms para sí **la misma fila** de la base de datos. De un proceso "
        "pasas a ocho. ¿Cuánto más hacen entre todos?",
        {
            "a": Option(
                "Ocho veces más, uno por proceso.",
                "Supone que no se esperan unos a otros. La fila la tiene uno cada vez.",
            ),
            "b": Option("Menos del doble."),
            "c": Option(
                "Nada: un consumidor ya ocupa toda la máquina.",
                "Supone que el trabajo es de procesador. Lo que espera a la base de datos deja el "
                "procesador libre.",
            ),
        },
    ),
    Question(
        "E5",
        "De noche no llega nada. Un controlador mira la cola y pide un proceso por cada 50 "
        "mensajes, de cero a doce. Frente a tener doce siempre, ¿qué cuesta?",
        {
            "a": Option(
                "Se pierden los mensajes que llegan cuando hay cero.",
                "Supone que hace falta alguien para recibirlos. Esperan en el stream; lo que "
                "cuesta es el arranque.",
            ),
            "b": Option(
                "Lo mismo: al final se procesa lo mismo.",
                "Supone que se paga por mensaje. Un proceso encendido se paga trabaje o no.",
            ),
            "c": Option("Mucho menos."),
        },
    ),
    Question(
        "E6",
        "Una petición tarda 100 ms con 512 MB. ¿Desde cuántas peticiones por segundo sale más "
        "barato un contenedor pequeño encendido todo el mes?",
        {
            "a": Option("Desde unas pocas por segundo."),
            "b": Option(
                "Desde miles por segundo: sin servidor siempre es barato.",
                "Supone que lo barato por petición lo es también por mes. Un mes tiene 2,6 "
                "millones de segundos.",
            ),
            "c": Option(
                "Nunca: una función siempre es más cara.",
                "Supone que se paga aunque no llegue nada. Una función sin peticiones no cuesta.",
            ),
        },
    ),
    Question(
        "E7",
        "`cluster` de Node arranca cuatro procesos que atienden el mismo puerto. ¿Quién decide "
        "cuál atiende cada conexión?",
        {
            "a": Option(
                "El sistema operativo, siempre.",
                "Supone que los cuatro aceptan del mismo puerto. Eso se puede pedir "
                "(`SCHED_NONE`), y no es lo que hace por omisión.",
            ),
            "b": Option("El padre, por turno."),
            "c": Option(
                "El que esté menos ocupado.",
                "Supone que el padre mide. Solo cuenta: uno, dos, tres, cuatro, uno.",
            ),
        },
    ),
    Question(
        "E8",
        "Un productor añade mensajes a un stream más deprisa de lo que se consumen. ¿Qué pasa con "
        "la espera de cada mensaje?",
        {
            "a": Option("Crece sin parar."),
            "b": Option(
                "Nada: para eso está la cola.",
                "Supone que una cola absorbe cualquier exceso. Absorbe una ráfaga; un exceso que "
                "no para la hace crecer sin límite.",
            ),
            "c": Option(
                "Se pierde lo que no cabe.",
                "Supone que el stream tiene un tope. Solo si alguien lo recorta, y eso es perder a "
                "propósito.",
            ),
        },
    ),
)
