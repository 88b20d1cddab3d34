"""A reading says what its data say: other data, another sentence."""

from __future__ import annotations

from labkit.lab import readings
from labkit.lab.timeline import DATABASE, STREAM, Mark, died


def fates(lost: int, invented: int) -> dict[str, dict[str, int]]:
    return {"así": {"llegaron": 10, "perdidos": lost, "inventados": invented}}


def test_fates_name_what_was_lost_and_invented_and_nothing_else() -> None:
    lost, invented = (
        "(pedido guardado, evento que no sale)",
        "(evento de un pedido que no existe)",
    )

    assert readings.of_fates(fates(2, 0)) == f"«así»: 12 pedidos en firme; 2 perdidos {lost}."
    assert readings.of_fates(fates(0, 3)) == f"«así»: 10 pedidos en firme; 3 inventados {invented}."
    assert readings.of_fates(fates(1, 1)).endswith(f"1 perdido {lost} y 1 inventado {invented}.")
    assert readings.of_fates(fates(0, 0)).endswith("; ningún evento perdido ni inventado.")


def test_a_way_that_is_not_measured_yet_is_not_read() -> None:
    assert readings.of_fates({"así": {}, **fates(0, 0)}) == readings.of_fates(fates(0, 0))


def test_effects_name_each_wrong_case_and_who_is_always_right() -> None:
    found = {"antes": {"caída": 0, "repetición": 1}, "a la vez": {"caída": 1, "repetición": 1}}

    assert readings.of_effects(found) == (
        "«antes» produce 0 efectos tras una caída. Siempre un efecto: «a la vez»."
    )
    assert readings.of_effects({"antes": found["antes"]}).endswith("Ninguna acierta siempre.")


def test_a_crossing_counts_the_right_pairs() -> None:
    verdicts = {"uno": {"otro": "bien", "tercero": "mal"}}

    assert readings.of_crossing(verdicts, "bien") == (
        "De 2 combinaciones acierta 1: «uno» con «otro»."
    )
    assert readings.of_crossing(verdicts, "ninguna así").endswith("aciertan 0: ninguna.")


def test_a_life_counts_publications_and_deaths() -> None:
    marks = [Mark(DATABASE, "escrito"), Mark(STREAM, "publicado"), died()]

    assert readings.of_life(marks) == (
        "El mensaje pasa por 3 momentos: escrito, publicado, proceso muerto. "
        "Procesos muertos: 1; veces que se publica: 1."
    )


def test_order_names_the_relays_that_break_it() -> None:
    found = {
        "uno": {"en orden": 4, "perdidos": 2, "desordenados": 1},
        "otro": {"en orden": 7, "perdidos": 0, "desordenados": 0},
    }

    assert readings.of_order(found) == (
        "«uno»: 1 desordenado y 2 perdidos; «otro»: todos en su orden."
    )


def test_speeds_are_read_from_their_points() -> None:
    assert readings.of_latencies({"sondeo": [1.0, 30.0, 31.0]}).endswith("«sondeo» 30 ms.")
    assert readings.of_drain([(1, 100.0), (1000, 2500.0)]).startswith(
        "Pasar de lotes de 1 a lotes de 1000 multiplica por 25"
    )
