"""The predictions of notebook 04."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "D0",
        "Ocho fallos y seis respuestas posibles. ¿En cuántos de los ocho es *reintentar* la "
        "respuesta?",
        {
            "a": Option(
                "En siete: ante la duda, reintentar.",
                "Supone que un fallo se pasa solo. Un *no* del negocio, un mensaje ilegible o un "
                "plazo vencido dan lo mismo la segunda vez.",
            ),
            "b": Option("En dos."),
            "c": Option(
                "En ninguno: reintentar solo añade carga.",
                "Supone que todo reintento estorba. Una conexión que se rompe o una respuesta que "
                "no llega suelen arreglarse con otro intento, si repetir no hace daño.",
            ),
        },
    ),
    Question(
        "D1",
        "Cuatro servicios en cadena, y cada uno intenta tres veces llamar al siguiente. El último "
        "está caído. ¿Cuántas llamadas le llegan por cada petición?",
        {
            "a": Option(
                "Tres más: los reintentos se suman.",
                "Supone que solo reintenta quien está fuera. Reintentan todas las capas, y cada "
                "una repite los reintentos de la de dentro.",
            ),
            "b": Option(
                "Doce: tres por cada capa.",
                "Supone que las capas se suman. Se multiplican: 3 × 3 × 3 × 3.",
            ),
            "c": Option("Ochenta y una."),
        },
    ),
    Question(
        "D2",
        "Cien clientes quieren la misma fila y fallan a la vez. Esperan 10, 20, 40, 80 ms…, todos "
        "lo mismo. ¿Cuánto tardan en acabar todos, comparado con esperar un rato al azar?",
        {
            "a": Option(
                "Lo mismo: la espera exponencial ya reparte los clientes.",
                "Supone que doblar la espera separa. Quienes fallaron juntos esperan lo mismo y "
                "vuelven juntos.",
            ),
            "b": Option("Más de diez veces más."),
            "c": Option(
                "Menos: sin azar no se pierde tiempo esperando de más.",
                "Supone que la espera es lo que cuesta. Lo que cuesta es volver a chocar.",
            ),
        },
    ),
    Question(
        "D3",
        "Un servidor va lento diez segundos y se recupera. Los clientes reintentan tres veces, con "
        "variación aleatoria. ¿Qué pasa después?",
        {
            "a": Option("No vuelve: la causa ha pasado y el fallo sigue."),
            "b": Option(
                "Vuelve, aunque tarda unos minutos en vaciar la cola.",
                "Supone que la cola se vacía. Con cuatro intentos por petición entra más de lo que "
                "sale, también cuando ya no hay causa.",
            ),
            "c": Option(
                "Vuelve a la normalidad: la variación aleatoria reduce la carga.",
                "Supone que repartir es reducir. Los reintentos son los mismos, solo que a otra "
                "hora.",
            ),
        },
    ),
    Question(
        "D4",
        "Cien cobros, y de ninguno llega respuesta antes del tiempo límite. ¿Cuántos se cobraron?",
        {
            "a": Option("Algunos, y no se sabe cuáles."),
            "b": Option(
                "Los cien: el proveedor acaba lo que empieza.",
                "Supone que la petición llegó siempre. También se pierden a la ida.",
            ),
            "c": Option(
                "Ninguno: si vence el tiempo, no se hizo.",
                "Supone que quien no contesta no trabaja. La petición pudo llegar, y perderse la "
                "respuesta.",
            ),
        },
    ),
    Question(
        "D5",
        "Ocho procesos llaman al mismo servicio, que cae. Cada uno tiene su cortacircuitos. Cada "
        "vez que toca probar si ha vuelto, ¿cuántas pruebas le llegan?",
        {
            "a": Option(
                "Una: un cortacircuitos por proceso protege igual.",
                "Supone que los procesos se enteran unos de otros. Cada uno cuenta sus fallos y "
                "hace su prueba.",
            ),
            "b": Option("Ocho, o una si es de todos."),
            "c": Option(
                "Ninguna: mientras esté abierto no pasa nada.",
                "Supone que abierto es para siempre. Alguien tiene que probar, o no se cierra "
                "nunca.",
            ),
        },
    ),
    Question(
        "D6",
        "El inventario está caído, quedan cinco unidades y llegan diez clientes. La tienda "
        "contesta *reservado* a los diez. ¿Cuántos se llevan una promesa que nadie puede cumplir?",
        {
            "a": Option("Cinco."),
            "b": Option(
                "Ninguno: responder algo siempre es mejor que un error.",
                "Supone que una respuesta inventada no cuesta nada. Cuesta lo que prometió.",
            ),
            "c": Option(
                "Los diez.",
                "Supone que no quedaba nada. Había cinco unidades: la mentira acierta a veces, y "
                "por eso tarda en verse.",
            ),
        },
    ),
    Question(
        "D7",
        'La petición de `ORD-18` llega con `qty: "dos"`. ¿Qué pasa con ella?',
        {
            "a": Option(
                "Se reintenta, y acabará entrando.",
                "Supone que el fallo se pasa con el tiempo. Los mismos bytes dan el mismo error "
                "las mil veces.",
            ),
            "b": Option(
                "Se salta y ya está: es una petición entre muchas.",
                "Supone que nadie la echará de menos. Es el pedido de alguien, y lo que viene "
                "detrás de la misma clave la necesita hecha.",
            ),
            "c": Option("Se aparta, y su clave espera."),
        },
    ),
)
