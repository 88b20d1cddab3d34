"""The predictions of notebook 01: believable wrong answers, and what they take for granted."""

from __future__ import annotations

from labkit.lab.questions import Option, Question

QUESTIONS = (
    Question(
        "T1",
        "Dentro de pedidos renombras un campo de un evento de dominio. ¿Quién se rompe?",
        {
            "a": Option(
                "Nadie: publicar el mismo objeto ahorra trabajo y no cuesta nada.",
                "Supone que el nombre de un campo es asunto tuyo. Si el objeto sale tal cual, cada "
                "nombre es una promesa a quien lo lee.",
            ),
            "b": Option("Quien lo lee, si publicas ese objeto."),
            "c": Option(
                "Quien lo lee, tanto si publicas ese objeto como si lo traduces.",
                "Supone que la traducción copia los nombres. Los pone ella: el cambio se queda en "
                "su regla, y fuera nadie lo nota.",
            ),
        },
    ),
    Question(
        "T2",
        "Colocar `ORD-1`, `ORD-2` y `ORD-3` deja muchos eventos de dominio. ¿Cuántos mensajes "
        "deben salir de pedidos?",
        {
            "a": Option(
                "Todos: cuantos más eventos publique, más desacoplado.",
                "Supone que publicar desacopla. Cada evento público es una promesa: lo que sale "
                "ya no se puede cambiar a solas.",
            ),
            "b": Option(
                "Cinco, uno por línea: así contesta el inventario.",
                "Supone que la petición tiene la forma de la respuesta. Una petición nombra todas "
                "sus líneas; solo las respuestas van de una en una.",
            ),
            "c": Option("Tres, uno por pedido."),
        },
    ),
    Question(
        "T3",
        "El ERP manda `ART_NR`, cantidades en texto y precios en céntimos. ¿Dónde se convierte?",
        {
            "a": Option("En un solo sitio, al entrar."),
            "b": Option(
                "En cada consumidor, donde le haga falta.",
                "Supone que son conversiones sueltas. Son decisiones, y repartidas acaban siendo "
                "varias: cada consumidor entiende otra cosa.",
            ),
            "c": Option(
                "En el ERP: que mande los mensajes como los necesitamos.",
                "Supone que el ERP obedece. Es un modelo ajeno, con otros clientes y otro ritmo.",
            ),
        },
    ),
    Question(
        "T4",
        "Inventario añade un campo a sus mensajes y deja de enviar otro que era opcional. ¿Qué "
        "hace falta en pedidos?",
        {
            "a": Option(
                "Parar los dos servicios y arrancarlos a la vez con el JSON nuevo.",
                "Supone que quien lee exige el JSON exacto. Quien solo mira lo que usa sigue "
                "leyendo.",
            ),
            "b": Option(
                "Una versión 2: cualquier cambio del contenido pide otra versión.",
                "Supone que todo cambio rompe. Pide otra versión lo que un lector tolerante no "
                "puede leer: quitar algo obligatorio, o que signifique otra cosa.",
            ),
            "c": Option("Nada: los dos cambios se toleran."),
        },
    ),
    Question(
        "T5",
        "`ORD-2` espera dos respuestas con el mismo `correlationId`, y el consumidor descarta lo "
        "que ya vio por `correlationId`. ¿En qué estado acaba?",
        {
            "a": Option(
                "`RESERVED`: la segunda respuesta era una repetición y sobraba.",
                "Supone que el id de la conversación identifica cada mensaje. La segunda respuesta "
                "habla de otra línea.",
            ),
            "b": Option("`PARTIALLY_RESERVED`, para siempre."),
            "c": Option(
                "`RESERVED`, más tarde: la segunda respuesta se entrega otra vez.",
                "Supone que insistir ayuda. Cada entrega encuentra el mismo id ya anotado.",
            ),
        },
    ),
    Question(
        "T6",
        "Un pedido de tres líneas espera A, B y C. C viene rechazada y A llega dos veces. Un "
        "contador da por completado el pedido con la tercera respuesta. ¿En cuántas de las 24 "
        "llegadas se equivoca?",
        {
            "a": Option("En las 6 en que C es la última."),
            "b": Option(
                "En ninguna: tres líneas, tres respuestas, pedido completo.",
                "Supone que cada respuesta habla de otra línea. Con A repetida, la tercera puede "
                "llegar antes que C.",
            ),
            "c": Option(
                "En las 24: con una repetida, contar no sirve nunca.",
                "Supone que una repetición siempre estorba. Si C llega entre las tres primeras, el "
                "contador acierta por casualidad: por eso pasa las pruebas.",
            ),
        },
    ),
    Question(
        "T7",
        "El consumidor guarda las respuestas de `ORD-2` en un diccionario. Atiende la primera, da "
        "su acuse y muere. Otro proceso atiende la segunda. ¿Cuántas respuestas conoce al final?",
        {
            "a": Option(
                "Las dos: la primera se entrega otra vez.",
                "Supone que todo lo perdido vuelve. La primera respuesta ya tenía su acuse: nadie "
                "la entrega otra vez.",
            ),
            "b": Option("Una: la segunda."),
            "c": Option(
                "Las dos: el servicio casi nunca cae, un diccionario basta.",
                "Supone que lo raro no ocurre. Cada despliegue es una caída: el proceso termina y "
                "su memoria con él.",
            ),
        },
    ),
)
