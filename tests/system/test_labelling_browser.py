"The labelling widget as a person meets it: JupyterLab in a real Chromium, labelled by the keyboard"

import json
import time

import numpy as np
import pytest
from browser_helpers import CHROMIUM, CHROMIUM_OPTIONS, PATIENCE, TOKEN, Notebook, serve_lab
from PIL import Image

from fairparse.balancing.annotate import agreement, labels_of, read_annotations

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright for Python is not installed"
)
NOTEBOOK = (
    """
from pathlib import Path
import numpy as np
from IPython.display import display
from fairparse.balancing.annotate import model_labels, queue
from fairparse.balancing.widget import LabellingSession, LabellingWidget
ids, choices = sorted(p.stem for p in Path("faces").glob("*.png")), ["none", "smile", "laugh"]
doubt = np.linspace(0.55, 0.95, len(ids))
shares = np.stack([doubt, 0.9 * (1 - doubt), 0.1 * (1 - doubt)], 1)
labels = model_labels(ids, "smile", choices, shares)
items = queue(labels, "smile")
""",
    """
def picture(id):
    return Path("faces") / f"{id}.png"


for annotator in ("ann", "bob"):
    guess = annotator == "bob"
    session = LabellingSession(items, choices, picture, "annotations", annotator, show_guess=guess)
    display(LabellingWidget(session, size=256))
""",
)


@pytest.fixture
def lab(tmp_path):
    """JupyterLab with settings of its own, serving a folder with a notebook and twelve small faces

    Its address and the folder."""
    if not CHROMIUM:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    work = tmp_path / "work"
    (work / "faces").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(12):
        draw_face(rng).save(work / "faces" / f"face{k:02d}.png")
    cells = [
        {
            "cell_type": "code",
            "id": f"c{k}",
            "metadata": {},
            "source": source.strip(),
            "outputs": [],
            "execution_count": None,
        }
        for k, source in enumerate(NOTEBOOK)
    ]
    (work / "label.ipynb").write_text(
        json.dumps(
            {
                "cells": cells,
                "metadata": {
                    "kernelspec": {
                        "display_name": "python3",
                        "language": "python",
                        "name": "python3",
                    }
                },
                "nbformat": 4,
                "nbformat_minor": 5,
            }
        )
    )
    with serve_lab(tmp_path, work) as address:
        yield address, work


def draw_face(rng):
    "16 x 16 pixels that look like a face from afar"
    face = np.full((16, 16, 3), rng.integers(60, 200, 3), np.uint8)
    face[2:15, 3:13] = rng.integers(120, 230, 3)
    face[6, [5, 10]], face[11, 6:10] = 30, (180, 40, 60)
    return Image.fromarray(face)


class Person(Notebook):
    "What somebody does in front of the labelling window"

    def __init__(self, page, work):
        super().__init__(page)
        self.journals = work / "annotations"

    def window(self, annotator):
        return self.page.locator(".fairparse-labelling").filter(
            has=self.page.locator(f'.fl-count:text-matches("· {annotator}$")')
        )

    def wait_done(self, annotator, done):
        self.window(annotator).locator(f'.fl-count:text-is("{done} of 12 · {annotator}")').wait_for(
            timeout=PATIENCE
        )

    def click_picture(self, annotator):
        self.window(annotator).locator(".fl-stage").click()

    def press(self, annotator, keys, done):
        "Press keys one by one, each after the count that the one before it leads to"
        for key in keys:
            self.page.keyboard.press(key)
            done += -1 if key == "u" else 1
            self.wait_done(annotator, done)
        return done

    def cells(self):
        "Code cells of the notebook, once it is sure that no key has turned one into something else"
        assert self.page.locator(".jp-Notebook .jp-Cell").count() == (
            count := self.page.locator(".jp-Notebook .jp-CodeCell").count()
        )
        return count

    def wait_saved(self, path, words):
        "The text of the notebook, once `words` are in it"
        deadline = time.monotonic() + PATIENCE / 1000
        while words not in (text := path.read_text()) and time.monotonic() < deadline:
            self.page.wait_for_timeout(100)
        assert words in text
        return text

    def lines(self, annotator):
        return [
            json.loads(line)
            for line in (self.journals / f"{annotator}.jsonl").read_text().splitlines()
        ]


def test_label_ten_reload_and_go_on(lab, tmp_path):
    address, work = lab
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1100, "height": 1300})
        page.set_default_timeout(PATIENCE)
        person = Person(page, work)
        person.open(f"{address}/lab/tree/label.ipynb?token={TOKEN}&reset")

        # ten keys, one of them taken back; the journal has each of them at once
        person.menu("Run", "Run All Cells")
        person.wait_done("ann", 0)
        person.click_picture("ann")
        assert person.press("ann", "1212312", 0) == 7
        assert len(person.lines("ann")) == 7
        assert person.press("ann", "2u1s3", 7) == 10
        assert [e["action"] for e in person.lines("ann")[-4:]] == ["undo", "label", "skip", "label"]
        for key in "9madd":
            page.keyboard.press(
                key
            )  # no such choice; JupyterLab's own keys for Markdown, a new cell and "delete"
        assert person.cells() == 2 and len(person.lines("ann")) == 12
        assert (
            person.window("bob").locator(".fl-guess").inner_text() == "the model says: none (55%)"
        )
        assert person.window("ann").locator(".fl-guess").inner_text() == ""
        page.screenshot(path=tmp_path / "light.png")

        # the page is reloaded while the kernel lives on
        page.reload()
        person.wait_idle()
        person.menu("Run", "Run All Cells")
        person.wait_done("ann", 10)
        assert (
            person.window("ann").locator("img").get_attribute("alt") == "picture to label: face10"
        )
        person.click_picture("ann")
        person.press("ann", "2", 10)

        # the kernel is restarted
        person.menu("Kernel", "Restart Kernel and Run All Cells…")
        page.click('.jp-Dialog button:has-text("Restart")')
        page.wait_for_selector('#jp-main-statusbar:not(:has-text("| Idle"))')
        person.wait_idle()
        person.wait_done("ann", 11)
        person.click_picture("ann")
        person.press("ann", "1", 11)
        assert person.window("ann").locator(".fl-ended").inner_text() == "All done. Thank you."

        # a second annotator, by buttons that are reached and pressed without a mouse
        first = person.window("bob").get_by_role("button", name="none")
        first.focus()
        for k in range(6):
            page.keyboard.press("Enter")
            person.wait_done("bob", k + 1)
        person.press("bob", "232211", 6)
        page.screenshot(path=tmp_path / "done.png")
        assert person.cells() == 2

        # the notebook as it is saved, with the state of its widgets: no picture is in it
        person.menu("File", "Save Notebook")
        saved = person.wait_saved(work / "label.ipynb", "application/vnd.jupyter.widget-state+json")
        assert "fairparse-labelling" in saved and "data:image" not in saved and "face0" not in saved
        browser.close()

    annotations = read_annotations(work / "annotations")
    ann, bob = (labels_of(annotations, "smile", name) for name in ("ann", "bob"))
    names = {"1": "none", "2": "smile", "3": "laugh"}
    assert ann.to_dict() == {
        f"face{k:02d}": names[key] for k, key in enumerate("12123121s321") if key != "s"
    }
    assert bob.to_dict() == {f"face{k:02d}": names[key] for k, key in enumerate("111111232211")}
    assert annotations.shown.eq(annotations.annotator == "bob").all()
    found = agreement(ann, bob)
    assert found.n == 11 and found.share == pytest.approx(5 / 11)
