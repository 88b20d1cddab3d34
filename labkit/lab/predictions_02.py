"""The predictions of notebook 02: believable wrong answers, and what they take for granted."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "O1",
        "Guardas 120 pedidos y, justo después de confirmar cada uno, publicas su evento. "
        "Los procesos mueren de vez en cuando. ¿Se pierde algún evento?",
        {
            "a": Option(
                "No: son dos líneas seguidas, y la ventana es de microsegundos.",
                "Supone que una ventana corta no llega a ocurrir. Basta con que ocurra una vez: "
                "nadie sabrá que ese evento falta.",
            ),
            "b": Option("Sí; y si publicas primero, se inventan."),
            "c": Option(
                "Sí, pero basta con publicar primero y confirmar después.",
                "Supone que el orden de las dos escrituras lo arregla. Cambia perder por inventar: "
                "sale un evento de un pedido que no existe.",
            ),
        },
    ),
    Question(
        "O2",
        "El pedido y su evento se escriben en la misma transacción, y la transacción se deshace. "
        "¿Qué queda en la bandeja de salida?",
        {
            "a": Option(
                "El evento: queda escrito aunque el pedido falle.",
                "Supone que la bandeja de salida es un sitio aparte. Es otra tabla de la misma "
                "base de datos, y la transacción es una.",
            ),
            "b": Option(
                "El evento, marcado como anulado para que nadie lo publique.",
                "Supone que alguien tiene que limpiar después. Deshacer no deja nada que limpiar.",
            ),
            "c": Option("Nada: ni pedido ni evento."),
        },
    ),
    Question(
        "O3",
        "El repetidor muere después de publicar un mensaje y antes de marcarlo. Otro repetidor "
        "toma el relevo. ¿Cuántas veces está el mensaje en el stream?",
        {
            "a": Option("Dos, con el mismo `messageId`."),
            "b": Option(
                "Una: si marca justo después, sale una sola vez.",
                "Supone que publicar y marcar son un solo paso. Son dos sistemas, y entre ambos "
                "siempre cabe una caída.",
            ),
            "c": Option(
                "Dos, con un `messageId` distinto cada vez.",
                "Supone que el id del mensaje se pone al publicar. Se fija al escribir la fila, y "
                "por eso se puede reconocer la repetición.",
            ),
        },
    ),
    Question(
        "O4",
        "Para que el efecto de un mensaje ocurra una sola vez, ¿cuándo debe anotar su id el "
        "consumidor?",
        {
            "a": Option(
                "Antes del efecto: así seguro que no se repite.",
                "Supone que después de anotar el efecto llega siempre. Si el proceso cae entre "
                "ambos, la repetición se descarta y el efecto no ocurre nunca.",
            ),
            "b": Option("A la vez, en la misma transacción."),
            "c": Option(
                "Después del efecto: así seguro que no se pierde.",
                "Supone que después del efecto siempre da tiempo a anotar. Si el proceso cae entre "
                "ambos, el mensaje vuelve y el efecto se repite.",
            ),
        },
    ),
    Question(
        "O5",
        "De las nueve combinaciones de quien envía y quien recibe, ¿con cuáles no se pierde ni se "
        "repite nada, aunque mueran procesos?",
        {
            "a": Option(
                "Con cualquiera, si el broker entrega exactamente una vez.",
                "Supone que el broker ve tu base de datos. Lo que se pierde o se repite aquí está "
                "a los dos lados del broker, no dentro.",
            ),
            "b": Option(
                "Con las tres que usan la bandeja de salida, se reciba como se reciba.",
                "Supone que basta con enviar bien. La bandeja de salida entrega al menos una vez: "
                "la repetición llega, y alguien tiene que reconocerla.",
            ),
            "c": Option("Con una: cada bandeja, en la transacción de su cambio."),
        },
    ),
    Question(
        "O6",
        "El inventario acaba de reservar el stock de `ORD-1`. ¿Qué dice en ese momento "
        "`order_status_view`?",
        {
            "a": Option("Todavía `RESERVATION_PENDING`."),
            "b": Option(
                "`RESERVED`: la vista se actualiza en la misma transacción que el inventario.",
                "Supone una transacción sobre dos bases de datos. La vista está en la de pedidos, "
                "y la respuesta aún tiene que viajar.",
            ),
            "c": Option(
                "Nada: la fila aparece cuando el viaje termina.",
                "Supone que la vista solo cuenta finales. Su primera fila se escribe al colocar el "
                "pedido.",
            ),
        },
    ),
)
