"""What a student sees: JupyterLab as it opens, and every notebook run there from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Page
from tests.browser.conftest import SHOTS
from tests.repo.notebooks import Notebook, stored

pytestmark = pytest.mark.browser

IDLE = "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
CELLS = "[...jupyterapp.shell.currentWidget.content.model.cells]"
NOT_RUN = f"{CELLS}.filter(c => c.type === 'code' && c.executionCount === null).length"
ERRORS = f"""{CELLS}.filter(c => c.type === 'code'
    && !(c.getMetadata('tags') || []).includes('raises-exception')
    && [...Array(c.outputs.length).keys()].some(n => c.outputs.get(n).type === 'error')
).map(c => c.id)"""
PICTURES = """[...jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-RenderedImage img')]
    .filter(img => img.complete && img.naturalWidth > 100).length"""
PANEL = "document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer')"
# Two frames: what was out of sight is laid out only when it comes into view.
SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
RUN_TIMEOUT_S = 120.0
MOST_SHOTS = 40


@pytest.mark.usefixtures("lab")
def test_it_opens_on_notebook_01_in_spanish_with_the_contents_beside_it(page: Page) -> None:
    page.wait_for("jupyterapp.shell.currentWidget.context.path === '01_translation.ipynb'")
    page.wait_for("document.querySelector('.jp-tocItem')")
    page.wait_for(IDLE, 60)

    menus = page.ask("document.querySelector('#jp-MainMenu').innerText")
    contents = page.ask("document.querySelector('.jp-TableOfContents-content').innerText")
    tabs = page.ask("document.querySelector('#jp-main-dock-panel .lm-TabBar').innerText")
    page.shoot(SHOTS / "way_in.png")

    assert "Archivo" in menus
    assert "La PR de ayer" in contents
    assert "00_inicio.md" in tabs


def test_the_start_page_is_rendered_in_the_first_tab(page: Page) -> None:
    show(page, "00_inicio.md")
    page.wait_for("document.querySelector('.jp-MarkdownViewer table')")
    page.size(1500, 1900)
    page.shoot(SHOTS / "start_page.png")
    page.size(1500, 950)

    shown = page.ask("document.querySelector('.jp-MarkdownViewer').innerText")

    assert "Empieza aquí" in shown
    assert "|---|" not in shown


@pytest.mark.parametrize("notebook", stored(), ids=lambda notebook: notebook.name)
def test_a_notebook_runs_whole_and_shows_its_charts(page: Page, notebook: Notebook) -> None:
    pictures = sum("image/png" in each.data for cell in notebook.code for each in cell.outputs)
    show(page, notebook.name)
    page.wait_for(IDLE, 60)
    page.ask("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    assert page.ask(PICTURES) == 0

    page.ask("jupyterapp.commands.execute('notebook:run-all-cells'), 1")
    page.wait_for(f"{NOT_RUN} === 0 && {IDLE} || {ERRORS}.length", RUN_TIMEOUT_S)

    shoot_all(page, notebook.name.removesuffix(".ipynb"))
    assert page.ask(ERRORS) == []
    assert page.ask(PICTURES) == pictures
    page.ask("jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => 1)")


@pytest.mark.usefixtures("page")
def test_nothing_is_written_in_the_users_home(user: Path) -> None:
    assert sorted(user.rglob("*")) == []


def show(page: Page, name: str) -> None:
    """Open a file as a double click on its name does."""
    page.ask(f"jupyterapp.commands.execute('docmanager:open', {{path: '{name}'}}).then(() => 1)")
    page.wait_for(f"jupyterapp.shell.currentWidget.context.path === '{name}'")


def shoot_all(page: Page, name: str) -> None:
    """Save the notebook as it looks, one window after the other."""
    for old in SHOTS.glob(f"{name}_*.png"):
        old.unlink()
    page.size(1500, 2600)
    page.ask(f"{PANEL}.scrollTo(0, 0)")
    number, top, last = 1, 0, -1
    # Why not by the height: what was never in view has only a guessed one.
    while top != last and number <= MOST_SHOTS:
        page.ask(SETTLED)
        page.shoot(SHOTS / f"{name}_{number:02}.png")
        number, last = number + 1, top
        page.ask(f"{PANEL}.scrollBy(0, {PANEL}.clientHeight - 60), {SETTLED}")
        top = page.ask(f"{PANEL}.scrollTop")
    page.size(1500, 950)
