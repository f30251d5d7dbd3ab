"A paper notebook in JupyterLab: opened, one parameter changed, run, in a real Chromium"

import json
import shutil

import pytest
from browser_helpers import CHROMIUM, CHROMIUM_OPTIONS, PATIENCE, TOKEN, Notebook, serve_lab
from conftest import ROOT

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright for Python is not installed"
)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)")
def test_change_one_parameter_and_run_all(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "nbs" / "paper" / "85_figure2_schedules.ipynb", work)
    wanted = tmp_path / "figure.png"
    parameters = (
        f'out = "{wanted}"\nparsers = ""\nschedules = ["linear", "piecewise"]\nseed = 0\n'
        f"epochs = 12"
    )
    with serve_lab(tmp_path, work) as address, playwright.sync_playwright() as p:
        page = p.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS).new_page(
            viewport={"width": 1100, "height": 1000}
        )
        page.set_default_timeout(PATIENCE)
        notebook = Notebook(page)
        notebook.open(f"{address}/lab/tree/85_figure2_schedules.ipynb?token={TOKEN}&reset")
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(parameters)
        notebook.menu("Run", "Run All Cells")
        page.wait_for_selector(".jp-OutputArea-output img")
        notebook.menu("File", "Save Notebook")
        page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
        page.screenshot(path=tmp_path / "lab.png")
    assert wanted.stat().st_size > 5_000
    cells = [
        cell
        for cell in json.loads((work / "85_figure2_schedules.ipynb").read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    assert "".join(cells[0]["source"]) == parameters and any(
        "image/png" in output.get("data", {}) for output in cells[-1]["outputs"]
    )
