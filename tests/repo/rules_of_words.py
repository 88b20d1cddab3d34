"""Rules for the Spanish that a student reads: one word per thing, and its accents.

They read prose: Markdown cells, Markdown outputs and printed text. Code is exempt: in backticks,
in fences, and names in italics that a first mention brings along, as in `(*relay*)`. What a list
does not hold, it does not find.
"""

from __future__ import annotations

import re

from tests.repo.notebooks import Notebook, prose, without_fences
from tests.repo.rules_of_outputs import Rule

REJECTED = {
    r"payloads?|carga útil": "contenido",
    r"handlers?": "manejador",
    r"relays?|relés?": "repetidor",
    r"timeouts?": "tiempo límite",
    r"deadlines?": "plazo",
    r"retry|retries": "reintento",
    r"fallbacks?|plan b|retroceso": "alternativa",
    r"backoffs?": "espera creciente",
    r"jitter": "variación aleatoria",
    r"redrives?|redirigir": "reprocesar",
    r"outbox(?:es)?": "bandeja de salida",
    r"inbox(?:es)?": "bandeja de entrada",
    r"breakers?|disyuntor(?:es)?": "cortacircuitos",
    r"bulkheads?": "mamparo",
    r"upcasters?": "conversor de versión",
    r"leases?|arrendamientos?": "concesión",
    r"pivotes?": "punto de no retorno",
    r"dead letters?": "mensaje muerto",
    r"commits": "confirmaciones",
    r"existencias": "stock",
}
PROMISE = r"entreg\w+ exactamente una vez"
UNACCENTED = (
    r"\w+[cs]ion|tambien|numeros?|despues|aqui|ahi|alli|asi|ademas|segun|ningun|algun|mas|"
    r"ultim[oa]s?|unic[oa]s?|dias?|paginas?|codigos?|metodos?|graficos?|graficas?|tecnic[oa]s?|"
    r"logic[oa]s?|maquinas?|todavia|habia|podria|tendria|deberia|lineas?|exito|rapid[oa]s?|facil|"
    r"dificil|util|jamas|detras|atras|traves|espanol|pequen[oa]s?|anade|manana|senal|tamano|"
    r"catalogo|almacen|envio|vaci[oa]s?|indices?|categorias?|garantias?|librerias?|proposito|"
    r"parametros?|caidas?"
)
# A wrong belief: quoted, or an option of a prediction.
BELIEF = r"«[^»]*»|^- \*\*[a-z]\)\*\* .*$"
PRESENTED = r"\((\*[^*()\n]+\*(?:, \*[^*()\n]+\*)*)\)"
CODE = (
    r"`[^`\n]*`"  # identifiers
    r"|\b\w+=|['\"]\w+['\"]:"  # fields of a repr, keys of JSON
    r"|\]\([^)\s]*\)"  # the target of a link
    r"|<[^>\n]+>"  # tags of HTML
)


def written(markdown: str) -> str:
    """Return prose without code, links' targets and tags."""
    return re.sub(CODE, " ", without_fences(markdown))


def rejected_in(text: str) -> list[tuple[str, str]]:
    """Return each rejected word in a text without code, with the word to use."""
    return [
        (found[0], better)
        for word, better in REJECTED.items()
        for found in re.finditer(rf"\b(?:{word})\b", text, re.IGNORECASE)
    ]


def unaccented_in(text: str) -> list[str]:
    """Return the words that lack their accent."""
    return re.findall(rf"\b(?:{UNACCENTED})\b", text, re.IGNORECASE)


def the_words_are_the_glossarys(notebook: Notebook) -> list[str]:
    """The English word comes once, beside the Spanish one: **repetidor** (*relay*)."""
    faults, presented = [], set[str]()
    for cell, text in prose(notebook):
        # The title may present its word, and the text present it again.
        told = written(text.partition("\n")[2] if cell.number == 1 else text)
        for found in re.findall(PRESENTED, told):
            if found.lower() in presented:
                faults.append(cell.says(f"presents ({found}) again: the Spanish word alone"))
            presented.add(found.lower())
        faults += [
            cell.says(f"says {word!r}: write {better!r}, or `{word}` where it is a name in code")
            for word, better in rejected_in(re.sub(PRESENTED, "", told))
        ]
    return faults


def dlq_comes_after_its_definition(notebook: Notebook) -> list[str]:
    """ "DLQ" is admitted once "cola de mensajes muertos (*DLQ*)" has presented it."""
    for cell, text in prose(notebook):
        found = re.search(r"(\(\*)?\bDLQ\b", written(text))
        if found and not found[1]:
            return [cell.says("says 'DLQ' first: present it, cola de mensajes muertos (*DLQ*)")]
        if found:
            return []
    return []


def nothing_promises_exactly_one_delivery(notebook: Notebook) -> list[str]:
    """Delivery is at least once; only a wrong belief may say otherwise."""
    return [
        cell.says("promises delivery exactly once: the *effect* is; a wrong belief goes in «»")
        for cell, text in prose(notebook)
        if re.search(PROMISE, _held_true(written(text)), re.IGNORECASE)
    ]


def _held_true(text: str) -> str:
    return re.sub(r"[*_]", "", re.sub(BELIEF, "", text, flags=re.MULTILINE))


def words_have_their_accents(notebook: Notebook) -> list[str]:
    """A list of the usual slips, not a dictionary."""
    return [
        cell.says(f"says {word!r}: it lacks its accent; a name in code goes in backticks")
        for cell, text in prose(notebook)
        for word in unaccented_in(re.sub(PRESENTED, "", written(text)))
    ]


RULES: list[Rule] = [
    the_words_are_the_glossarys,
    dlq_comes_after_its_definition,
    nothing_promises_exactly_one_delivery,
    words_have_their_accents,
]
