"""Every notebook keeps the conventions of docs/notebooks.md; each rule is proven to refuse."""

from __future__ import annotations

import pytest

from tests.repo import rules_of_outputs as outputs, rules_of_the_core as core
from tests.repo.notebooks import ROOT, Notebook, stored
from tests.repo.rules_of_outputs import Rule
from tests.repo.sample_notebook import (
    PIXEL,
    READING,
    Edit,
    after,
    code,
    counted,
    failed,
    markdown,
    marked,
    printed,
    sample,
    says,
    shown,
    shows,
    tagged,
    without,
)

RULES = [*outputs.RULES, *core.RULES]
FIGURE = shown(image_png=PIXEL, text_plain=READING)
MOST_IGNORED = [code(f"clock-{n}", "assert True", tags=outputs.IGNORED) for n in range(4)]
AFTER_CLASS = says(
    "card", "**16:40–16:50 · 10 minutos**", "**Sección 4 del temario · para después de clase**"
)
LONG = "\n".join(f"fila_{n} = {n}" for n in range(13))
COPY = "```python\n" + "\n".join((ROOT / "labkit/clock.py").read_text().splitlines()[35:55])
NOTHING_ASKED = says("o1", "**Pregunta.**", "Pregunta:")

BAD: list[tuple[Rule, Edit, str]] = [
    (outputs.cells_are_plain_python, says("open", "historia = ", "%time "), "(open): is no plain"),
    (outputs.ran_once_in_order, counted("o1-run", None), "(o1-run): count None instead of 3"),
    (outputs.ran_once_in_order, counted("open", 7), "(open): count 7 instead of 1"),
    (outputs.errors_are_announced, shows("o1-run", failed("E", "no")), "(o1-run): stored an error"),
    (outputs.errors_are_announced, tagged("o1-run", "raises-exception"), "nothing failed"),
    *[
        (outputs.outputs_are_the_same_every_time, shows("open", printed(text)), f"shows {what}")
        for text, what in [
            ("<Pedido at 0x7f3a2c001d50>", "a memory address"),
            ("0198c0de-0000-7000-8000-000000000001", "a UUID"),
            ("2026-11-24T13:49:55Z", "a date of today"),
            ("2026-11-24 13:49", "a date of today"),
            ("tarda 0.123 s", "a timing"),
            ("tarda 0,123 s", "a timing"),
            ("redis://127.0.0.1:6379/0", "a port"),
            ("pid 4711", "a process id"),
            ("/home/alumna/labkit", "a path of one machine"),
            ("/tmp/labkit-tests-x/.labkit", "a path of one machine"),
        ]
    ],
    (
        outputs.outputs_are_the_same_every_time,
        shows("open", shown(text_html='<table id="T_a1b2c"></table>')),
        "a random id of pandas.Styler",
    ),
    (outputs.outputs_render_untrusted, shows("open", printed("aviso", "stderr")), "to stderr"),
    (
        outputs.outputs_render_untrusted,
        shows("open", shown(**{"image_svg+xml": "<svg/>"})),
        "stores image/svg+xml",
    ),
    (
        outputs.outputs_render_untrusted,
        shows("open", shown(**{"application_vnd.jupyter.widget-view+json": "{}"})),
        "widget-view+json",
    ),
    (outputs.outputs_render_untrusted, shows("open", shown(text_html="<b>1</b>")), "is no table"),
    (
        outputs.outputs_render_untrusted,
        shows("open", shown(text_html="<table></table><script>1</script>")),
        "stores a script",
    ),
    (
        outputs.figures_come_with_their_reading,
        shows("o1-run", shown(image_png=PIXEL, text_plain="<Figure size 640x480>")),
        "no reading",
    ),
    (outputs.figures_come_with_their_reading, shows("o1-run", FIGURE), "not followed by its"),
    (
        outputs.figures_come_with_their_reading,
        shows("o1-run", FIGURE, shown(text_markdown="**Lectura.** Con 200 pedidos se pierden 13.")),
        "not followed by its",
    ),
    (
        outputs.figures_come_with_their_reading,
        says("o1-run", "charts.show", "mostrar"),
        "without charts.show",
    ),
    *[
        (outputs.cells_draw_nothing_themselves, says("o1-run", "charts.show(", line), "matplotlib")
        for line in [
            "import matplotlib.pyplot\n(",
            "from matplotlib import pyplot as p\n(",
            "plt.show(",
            "tabla.plot(",
        ]
    ],
    (
        outputs.ignored_outputs_are_few_and_asserted,
        tagged("open", f"core {outputs.IGNORED}"),
        "(open): nbval-ignore-output without an assert",
    ),
    (
        outputs.ignored_outputs_are_few_and_asserted,
        after("deeper", *MOST_IGNORED),
        "4 cells tagged nbval-ignore-output",
    ),
    (outputs.what_is_displayed_is_stored, shows("open"), "(open): displays something"),
    (outputs.what_is_displayed_is_stored, shows("o1-compare"), "(o1-compare): displays something"),
    (outputs.the_file_is_valid_and_its_ids_unique, after("o1", markdown("o1", "")), "id o1"),
    (
        outputs.the_file_is_valid_and_its_ids_unique,
        lambda node: node.metadata.pop("kernelspec"),
        "no kernelspec",
    ),
    (
        outputs.the_file_is_valid_and_its_ids_unique,
        lambda node: node.cells[0].__setitem__("outputs", []),
        "is no valid notebook",
    ),
    (outputs.no_time_of_execution_is_stored, marked("open", execution={}), "stores when it ran"),
    (outputs.the_comparison_stays_strict, tagged("open", "core nbval-skip"), "the tag nbval-skip"),
    (outputs.the_comparison_stays_strict, tagged("open", "Core"), "the tag Core"),
    (
        outputs.the_comparison_stays_strict,
        says("open", "\n\nhistoria", "\n# NBVAL_SKIP\nhistoria"),
        "comment for nbval",
    ),
    (core.the_card_tells_title_time_and_objectives, says("card", "# 02", "# 03"), "is no card"),
    (core.the_card_tells_title_time_and_objectives, says("card", "10 minutos", "10'"), "time box"),
    (core.the_card_tells_title_time_and_objectives, says("card", "3. **D", "- **D"), "objectives"),
    (
        core.the_card_tells_title_time_and_objectives,
        says("card", "**Guardar** un", "**Guarda** un"),
        "objectives",
    ),
    (
        core.the_card_leads_to_its_neighbours,
        says("card", "(03_saga.ipynb)", "(03_sagas.ipynb)"),
        "`Siguiente:` does not link to 03_saga.ipynb",
    ),
    (
        core.the_card_leads_to_its_neighbours,
        says("card", "01 · Traducción (en preparación)", "[01](01_translation.ipynb)"),
        "`Anterior:` needs",
    ),
    (core.the_card_leads_to_its_neighbours, says("card", "Anterior: ", "Antes: "), "`Anterior:`"),
    (core.minutes_add_up_to_the_box, says("o1", "*(4 min)*", ""), "(o1): `## O1"),
    (core.minutes_add_up_to_the_box, says("o1", "(4 min)", "(9 min)"), "sections 15"),
    (
        core.minutes_add_up_to_the_box,
        says("close", "**En tu", "## Otra *(0 min)*\n\n**En tu"),
        "(close): has two headings",
    ),
    (core.minutes_add_up_to_the_box, says("card", "16:50", "17:10"), "box 30 min, told 10"),
    (core.the_core_ends_before_what_goes_deeper, without("deeper"), "has no heading"),
    (core.the_core_ends_before_what_goes_deeper, tagged("o1-run", ""), "(o1-run): stands in"),
    (
        core.the_core_ends_before_what_goes_deeper,
        tagged("deeper-source", "core"),
        "(deeper-source): is tagged core",
    ),
    (
        core.core_cells_are_few_and_short,
        says("o1-compare", "predictions", LONG),
        "(o1-compare): 13",
    ),
    (
        core.core_cells_are_few_and_short,
        after("open", *[code(f"more-{n}", "x = 1") for n in range(19)]),
        "23 core cells",
    ),
    *[
        (core.a_demonstration_asks_predicts_shows_and_compares, edit, f"(o1): O1 {what}")
        for edit, what in [
            (NOTHING_ASKED, "asks nothing"),
            (says("o1-predict", "'O1'", "'O2'"), "has no open prediction"),
            (says("o1-predict", "None", "'b'"), "has no open prediction"),
            (without("o1-compare"), "is never compared"),
            (shows("o1-run"), "shows neither figure nor table"),
            (says("o1-run", "assert ", ""), "asserts nothing"),
        ]
    ],
    (
        core.a_demonstration_asks_predicts_shows_and_compares,
        says("o1", "## O1 · ", "## "),
        "has no demonstration",
    ),
    (core.an_exercise_has_its_three_cells, marked("e1-stub", labkit={}), "(e1-stub): needs meta"),
    (core.an_exercise_has_its_three_cells, without("e1-solution"), "02-E1 has ['check', 'exer"),
    (
        core.an_exercise_has_its_three_cells,
        says("e1-check", "'02-E1'", "'02-E2'"),
        "02-E1 is not checked",
    ),
    (
        core.an_exercise_has_its_three_cells,
        marked("e1-stub", labkit={"exercise": "03-E1"}),
        "(e1-stub): needs metadata",
    ),
    (
        core.an_exercise_has_its_three_cells,
        lambda node: node.cells.insert(6, node.cells.pop(11)),
        "the core has no exercise 02-E1",
    ),
    (core.a_solution_is_folded, marked("e1-solution", jupyter={}), "(e1-solution): fold it"),
    (core.a_solution_is_folded, says("e1-solution", "# Solución (pulsa", "# (pulsa"), "fold it"),
    (
        core.the_pattern_is_shown_from_its_source,
        says("deeper-source", "inspect.getsource(outbox.add)", "'def add'"),
        "shows no pattern",
    ),
    (core.no_code_of_labkit_is_copied, after("o1", markdown("copy", COPY)), "(copy): copies code"),
]


@pytest.mark.parametrize("notebook", stored(), ids=lambda notebook: notebook.name)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_notebook_keeps_the_rule(rule: Rule, notebook: Notebook) -> None:
    faults = rule(notebook)

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_sample_keeps_the_rule(rule: Rule) -> None:
    assert rule(sample()) == []


@pytest.mark.parametrize(("rule", "spoil", "said"), BAD)
def test_a_rule_refuses_what_breaks_it(rule: Rule, spoil: Edit, said: str) -> None:
    faults = rule(sample(spoil))

    assert any(said in fault for fault in faults), faults
    assert all(fault.startswith("02_outbox.ipynb") for fault in faults)


def test_every_rule_is_proven_to_refuse() -> None:
    assert {rule.__name__ for rule in RULES} - {rule.__name__ for rule, *_ in BAD} == set()


def after_class() -> list[Edit]:
    """Return what makes the sample a notebook outside of the agenda."""
    names = [cell.id for cell in sample().cells if "core" in cell.tags]
    exercise = [without(name) for name in ("e1-stub", "e1-solution", "e1-check", "deeper")]
    plain = [tagged(name, "") for name in names]
    minutes = [says("o1", " *(4 min)*", ""), says("e1", " *(5 min)*", "")]
    return [AFTER_CLASS, *plain, *exercise, *minutes, says("close", " *(1 min)*", "")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_notebook_after_class_keeps_the_rules_without_minutes_or_core(rule: Rule) -> None:
    again = [counted(cell.id, n) for n, cell in enumerate(sample(*after_class()).code, 1)]

    assert rule(sample(*after_class(), *again)) == []


@pytest.mark.parametrize(
    ("rule", "spoil", "said"),
    [
        (core.minutes_add_up_to_the_box, says("o1", "escritura", "escritura *(4 min)*"), "minutes"),
        (core.the_core_ends_before_what_goes_deeper, tagged("o1-run", "core"), "marks a core"),
        (
            core.core_cells_are_few_and_short,
            says("o1-run", "charts.show", LONG + "\ncharts.show"),
            "12 at",
        ),
        (
            core.a_demonstration_asks_predicts_shows_and_compares,
            says("o1-run", "assert ", ""),
            "asserts nothing",
        ),
    ],
)
def test_a_notebook_after_class_is_still_refused(rule: Rule, spoil: Edit, said: str) -> None:
    assert any(said in fault for fault in rule(sample(*after_class(), spoil)))


def test_a_measured_time_may_stand_where_outputs_are_not_compared() -> None:
    measured = [shows("o1-run", printed("0.123 s")), tagged("o1-run", f"core {outputs.IGNORED}")]

    assert outputs.outputs_are_the_same_every_time(sample(*measured)) == []


@pytest.mark.parametrize("place", ["Makefile", ".ci/run", "pyproject.toml"])
def test_nbval_runs_strictly(place: str) -> None:
    text = (ROOT / place).read_text()

    assert "--nbval-lax" not in text
    assert "sanitize" not in text


def test_make_notebooks_compares_the_whole_folder() -> None:
    assert "-n auto --maxprocesses=2 --dist loadfile notebooks," in (ROOT / "Makefile").read_text()
