"""The prose of notebooks and glossary uses one Spanish word per thing, with its accents."""

from __future__ import annotations

import re

import pytest

from tests.repo.notebooks import ROOT, Notebook, stored
from tests.repo.rules_of_outputs import Rule
from tests.repo.rules_of_words import (
    RULES,
    dlq_comes_after_its_definition as dlq,
    nothing_promises_exactly_one_delivery as promises,
    rejected_in,
    the_words_are_the_glossarys as words,
    unaccented_in,
    words_have_their_accents as accents,
    written,
)
from tests.repo.sample_notebook import after, markdown, printed, sample, shown, shows

GLOSSARY = [
    line.split("|")[1].strip()
    for line in (ROOT / "docs/glossary.md").read_text().splitlines()
    if re.match(r"\| (?!español|---)", line)
]


@pytest.mark.parametrize("notebook", stored(), ids=lambda notebook: notebook.name)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_notebook_keeps_the_rule(rule: Rule, notebook: Notebook) -> None:
    faults = rule(notebook)

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_sample_keeps_the_rule(rule: Rule) -> None:
    assert rule(sample()) == []


@pytest.mark.parametrize(
    ("rule", "text", "said"),
    [
        (words, "El handler reserva.", "says 'handler': write 'manejador'"),
        (words, "Vence el Timeout.", "says 'Timeout': write 'tiempo límite'"),
        (words, "Dos retries bastan.", "says 'retries': write 'reintento'"),
        (words, "La carga útil del evento.", "says 'carga útil': write 'contenido'"),
        (words, "El **repetidor** (*relay*) otra vez.", "presents (*relay*) again"),
        (words, "- «el payload viaja»", "says 'payload': write 'contenido'"),
        (dlq, "Acaba en la DLQ.", "says 'DLQ' first"),
        (promises, "El broker entrega exactamente una vez.", "promises delivery exactly once"),
        (promises, "Una *entrega* exactamente una vez.", "promises delivery exactly once"),
        (accents, "La transaccion termina.", "says 'transaccion': it lacks its accent"),
        (accents, "Despues, aqui mismo.", "says 'Despues': it lacks its accent"),
    ],
)
def test_a_text_is_refused(rule: Rule, text: str, said: str) -> None:
    [fault, *_] = rule(sample(after("o1", markdown("added", text))))

    assert fault.startswith("02_outbox.ipynb, cell 4 (added): ")
    assert said in fault


@pytest.mark.parametrize("output", [shown(text_markdown="El relay."), printed("El relay.")])
def test_outputs_are_prose_too(output: object) -> None:
    [fault] = words(sample(shows("o1-predict", output)))

    assert "cell 4 (o1-predict): says 'relay'" in fault


def test_a_warning_is_no_prose() -> None:
    assert words(sample(shows("o1-predict", printed("relay: lost", "stderr")))) == []


@pytest.mark.parametrize(
    "text",
    [
        "El manejador (`handler`) lee `payload` y `version`.",
        "Event(payload={'version': 1})",
        "```python\nhandler(payload)\n```",
        "El **plazo** (*deadline*) vence.",
        "Ve a [la demostración](02_outbox.ipynb#relay).",
        "Va a la cola de mensajes muertos (*DLQ*). La DLQ se vacía a mano.",
        "**Pregunta.** «Con el broker adecuado se entrega exactamente una vez.»",
        "- **a)** Con cualquiera, si el broker entrega exactamente una vez.",
        "El *efecto* ocurre exactamente una vez; la entrega, al menos una vez.",
    ],
)
def test_a_text_is_admitted(text: str) -> None:
    changed = sample(after("o1", markdown("added", text)))

    assert [fault for rule in RULES for fault in rule(changed)] == []


@pytest.mark.parametrize("term", GLOSSARY)
def test_the_glossary_recommends_no_rejected_word(term: str) -> None:
    assert rejected_in(written(term)) == []
    assert unaccented_in(written(term)) == []


def test_every_rule_has_a_text_that_breaks_it() -> None:
    assert {words, dlq, promises, accents} == set(RULES)
