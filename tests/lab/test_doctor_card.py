"""The doctor's card: every check has its words, and a failed one its remedy."""

from __future__ import annotations

from labkit.lab import doctor, doctor_card
from labkit.lab.preconditions import Check
from labkit.lab.servers import Stack


def test_every_check_of_the_doctor_has_spanish_words(running: Stack) -> None:
    names = [check.name for check in doctor.checks(running)]

    assert names == list(doctor_card.WORDS)


def test_on_healthy_servers_all_is_green(running: Stack) -> None:
    assert set(doctor_card.table(running)["verde o remedio"]) == {doctor_card.FINE}


def test_what_fails_shows_its_remedy_and_how_bad_it_is() -> None:
    failed = Check("PostgreSQL fsync", ok=False, detail="off", remedy="set fsync = on")
    narrowed = Check("hiredis", ok=False, detail="no", remedy="pip install", level="warning")

    rows = doctor_card.of([failed, narrowed])

    assert rows["verde o remedio"].tolist() == ["rojo: set fsync = on", "aviso: pip install"]
    assert rows["condición"].tolist() == ["PostgreSQL: fsync", "hiredis"]
