"""The predictions of notebook 03."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "S1",
        "`ORD-3` acaba de pasar a `REJECTED`. ¿Qué ha sido de la unidad de `BOOK-HEX` que el "
        "inventario le había reservado?",
        {
            "a": Option(
                "La base de datos deshace la reserva al rechazar el pedido.",
                "Supone una transacción sobre dos bases de datos. La reserva se confirmó en la del "
                "inventario, y lo confirmado ya no se deshace.",
            ),
            "b": Option(
                "El inventario la libera por sí mismo cuando rechaza la otra línea.",
                "Supone que el inventario sabe qué líneas van juntas para el cliente. Él contesta "
                "línea por línea; que el pedido es todo o nada lo sabe pedidos.",
            ),
            "c": Option("Sigue retenida, y nadie vendrá a buscarla."),
        },
    ),
    Question(
        "S2",
        "Coreografía: nadie dirige. ¿Quién pide que se libere la unidad de `ORD-3`?",
        {
            "a": Option("Una regla que reacciona al rechazo, con un mensaje más."),
            "b": Option(
                "Nadie: en coreografía no hay compensaciones, porque no hay jefe.",
                "Supone que compensar necesita a alguien que dirija. Basta con que alguien "
                "reaccione a un hecho: «el pedido está rechazado».",
            ),
            "c": Option(
                "El inventario, que lee el estado del pedido cuando le conviene.",
                "Supone que el inventario conoce los pedidos. Solo conoce reservas, y se le pide "
                "por mensaje.",
            ),
        },
    ),
    Question(
        "S3",
        "Para saber qué viene después de cada paso, ¿cuántos módulos hay que leer?",
        {
            "a": Option(
                "Uno en cada estilo: el del servicio que empieza.",
                "Supone que quien empieza conoce el final. En coreografía cada uno conoce solo su "
                "reacción.",
            ),
            "b": Option("Dos en coreografía, uno en orquestación."),
            "c": Option(
                "Más en orquestación: orquestar es acoplar.",
                "Supone que conocer el flujo en un sitio une más que conocerlo a trozos en varios. "
                "Los participantes no saben quién les pregunta en ninguno de los dos estilos.",
            ),
        },
    ),
    Question(
        "S4",
        "Una clienta llama: «¿dónde está mi pedido?». El inventario no contesta. ¿Cuántas "
        "consultas hacen falta para decirle quién tiene que contestar, y desde cuándo?",
        {
            "a": Option(
                "Una en los dos estilos: lo dice `order_status_view`.",
                "Supone que la vista sabe por qué. Dice «pendiente»: ni quién falta, ni hasta "
                "cuándo se espera.",
            ),
            "b": Option(
                "Ninguna que valga: con el inventario caído no se puede saber.",
                "Supone que solo el inventario lo sabe. Quien pregunta apuntó a quién, cuándo y "
                "hasta cuándo espera.",
            ),
            "c": Option("Varias, en dos bases de datos, o una si hay saga."),
        },
    ),
    Question(
        "S5",
        "`ORD-6`: se reserva, se crea el pedido y el pago se rechaza. Al liberar, el inventario no "
        "contesta tres veces. ¿Qué hace la saga?",
        {
            "a": Option(
                "Nada más: liberar solo suma uno, no puede fallar.",
                "Supone que una compensación es una suma. Es un mensaje a otro servicio, que puede "
                "no estar.",
            ),
            "b": Option("Lo pide otra vez, y acaba."),
            "c": Option(
                "Deshace la transacción de la reserva.",
                "Supone que compensar es deshacer. La reserva se confirmó; lo que hay es un "
                "movimiento nuevo en sentido contrario, y quedan los dos.",
            ),
        },
    ),
    Question(
        "S6",
        "`ORD-7`: como `ORD-6`, pero el inventario no contesta a ninguno de los cinco intentos. "
        "Después vuelve. ¿Cómo está la saga?",
        {
            "a": Option("`STUCK`, hasta que decida una persona."),
            "b": Option(
                "`COMPENSATING`: se reintentará hasta que funcione.",
                "Supone que insistir siempre ayuda. Sin un final, un fallo que dura se confunde "
                "con uno que pasa, y nadie lo mira.",
            ),
            "c": Option(
                "`COMPENSATED`: el pedido está cancelado y se da por hecho.",
                "Supone que el pedido es todo lo que importa. Nadie ha confirmado que la unidad "
                "haya vuelto.",
            ),
        },
    ),
    Question(
        "S7",
        "Todos los pasos tienen su sitio en la lista. ¿En cuántos de los doce cambios de sitio "
        "dice labkit que no?",
        {
            "a": Option(
                "En ninguno: el orden da igual si todos los pasos tienen compensación.",
                "Supone que siempre se puede volver. Detrás del punto de no retorno nadie "
                "compensa, así que lo compensable va delante.",
            ),
            "b": Option(
                "Solo en los tres que mueven el pago.",
                "Supone que solo cuenta el paso que se mueve. También cuenta de qué lado del pago "
                "acaban los demás.",
            ),
            "c": Option("En diez."),
        },
    ),
    Question(
        "S8",
        "Venció el plazo de `ORD-11` y el pedido se canceló. Ahora llega su `StockReserved`. "
        "¿Qué pasa si se ignora por tardío?",
        {
            "a": Option("Queda una unidad para nadie."),
            "b": Option(
                "Nada: llega tarde, y el inventario lo da por caducado.",
                "Supone que el plazo de quien espera caduca también la reserva. El inventario no "
                "conoce ese plazo: para él está reservada.",
            ),
            "c": Option(
                "El pedido pasa a `RESERVED` y se sirve igualmente.",
                "Supone que la respuesta manda sobre lo decidido. El pedido ya está cancelado, y "
                "un estado final no se mueve.",
            ),
        },
    ),
    Question(
        "S9",
        "Si en el almacén A falta stock se prueba en B, y si solo hay una parte se ofrece. ¿Es "
        "una saga o un gestor de procesos?",
        {
            "a": Option(
                "Da igual: son dos nombres de lo mismo.",
                "Supone que tener estado propio es toda la diferencia. Una saga recorre una lista; "
                "un gestor de procesos elige camino.",
            ),
            "b": Option("Un gestor de procesos."),
            "c": Option(
                "Una saga con más pasos y más compensaciones.",
                "Supone que elegir es añadir pasos. En una saga, tras cada paso va uno, el mismo "
                "siempre.",
            ),
        },
    ),
    Question(
        "S10",
        "Un pago rechazado: seis mensajes, y cada uno pasa por cinco ventanas de caída. Un proceso "
        "muere en cada una: 30 muertes, 30 pedidos. ¿En cuántos se pierde o se repite un efecto?",
        {
            "a": Option(
                "En los doce de los consumidores: lo que hacían se pierde con ellos.",
                "Supone que el trabajo vive en el proceso. Vive en la base de datos: o se confirmó "
                "entero, o el mensaje sigue sin acuse y vuelve.",
            ),
            "b": Option("En ninguno."),
            "c": Option(
                "En los seis de «publicado, sin marcar»: ese mensaje sale dos veces.",
                "Supone que dos copias son dos efectos. La bandeja de entrada reconoce la segunda.",
            ),
        },
    ),
    Question(
        "S11",
        "`ORD-9` tiene la última unidad y su saga espera el pago. Sin preguntar a la saga, una "
        "transacción lo cancela y pide liberar su stock. ¿Cómo acaba `ORD-9`?",
        {
            "a": Option("Cancelado y cobrado."),
            "b": Option(
                "Cancelado y sin cobro: la saga mira el pedido antes de pedir el pago.",
                "Supone que la saga vuelve a leer. El pago ya estaba pedido, y nadie le ha dicho "
                "que el pedido ya no existe.",
            ),
            "c": Option(
                "Confirmado: la saga escribe la última, y lo suyo es lo que vale.",
                "Supone que escribir el último basta. Lo que estaba reservado ya es de otro.",
            ),
        },
    ),
    Question(
        "S12",
        "Una saga va por la mitad cuando se despliega la versión 2, con un paso más. ¿Con qué "
        "pasos acaba?",
        {
            "a": Option(
                "Con los cinco de la versión 2: el código nuevo es el que hay.",
                "Supone que el código de hoy vale para lo empezado ayer. Si los pasos cambian bajo "
                "sus pies, puede repetir uno o saltárselo.",
            ),
            "b": Option(
                "Con ninguno: antes de desplegar hay que esperar a que acaben todas.",
                "Supone que no caben dos versiones a la vez. Cada saga apunta la suya, y las dos "
                "definiciones están registradas.",
            ),
            "c": Option("Con los cuatro de la suya."),
        },
    ),
)
