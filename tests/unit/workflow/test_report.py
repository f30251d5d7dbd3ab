"""The report: any subset of stages, nothing from outside, nothing unescaped

It is honest about what was not run; and what is known of published results.
"""

import base64
import json
import os
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from browser_helpers import CHROMIUM, CHROMIUM_OPTIONS
from conftest import ROOT
from PIL import Image

from fairparse.core.runs import InputError, hash_file, write_json
from fairparse.results.claims import claim_tables
from fairparse.results.evidence import Evidence
from fairparse.results.readers import around, merge_intervals, number, p_value, split_constant
from fairparse.workflow.costs import measured_costs
from fairparse.workflow.fingerprints import code_fingerprint
from fairparse.workflow.notebooks import find_notebook
from fairparse.workflow.provenance import codes_behind, made_files, note_code, replace_rows
from fairparse.workflow.publish import (
    check_published,
    claims_for_readme,
    stale_published,
)
from fairparse.workflow.report import embed, finish_run, write_report
from fairparse.workflow.run_facts import stand_ins

ROW = {
    "title": "Linear",
    "objective": "linear",
    "miou": 74.3,
    "miou_low": 70.9,
    "miou_high": 77.5,
    "reported_miou": 74.21,
    "difference": 0.1,
    "difference_low": -0.8,
    "difference_high": 0.6,
    "p_adjusted": 0.8,
    "verdict": "undecided",
    "first": 0.5,
    **{f"dice_{kind}{end}": 84.0 for kind in ("macro", "micro") for end in ("", "_low", "_high")},
    "reported_dice": 94.28,
    "repetitions": 2,
    "images": 140,
}


def make_run(out, stages=("table1", "claims")):
    "A folder with two tables, a figure, a record, a notebook that ran and one that failed"
    for sub in ("tables", "figures", "notebooks", "10_faces", "20_parsers/linear/seed0"):
        (out / sub).mkdir(parents=True)
    pd.DataFrame([ROW, ROW | {"title": "<script>alert(1)</script>"}]).to_csv(
        out / "tables" / "table1_objectives.csv", index=False
    )
    pd.DataFrame(
        {
            "parser": ["single", "linear"],
            "ce": [100, 98.2],
            "ce_low": [100, 96.0],
            "ce_high": [100, 101.3],
        }
    ).to_csv(out / "tables" / "corruption_error.csv", index=False)
    Image.new("RGB", (40, 30), "white").save(out / "figures" / "figure2_schedules.png")
    (out / "notebooks" / "80_table1_objectives.ipynb").write_text(
        json.dumps({"metadata": {"papermill": {"duration": 3.0}}, "cells": []})
    )
    (out / "notebooks" / "80_corruption_error.failed.ipynb").write_text(
        json.dumps({"metadata": {}, "cells": []})
    )
    write_json(
        out / "10_faces" / "faces.json",
        {"sources": ["procedural faces, seed 0, world {}"], "count": 140, "size": 64},
    )
    write_json(
        out / "20_parsers" / "linear" / "seed0" / "run.json",
        {
            "parameters": {"encoder": "small", "encoder_weights": "none"},
            "seed": 0,
            "inputs": {
                str(out / "10_faces" / "faces.json"): "a" * 64,
                "/somewhere/else/secret.npy": "b" * 64,
            },
            "code": {"version": "0.1", "commit": "abc1234", "sources_sha256": "c" * 64},
            "packages": {"torch": "2.0", "lpips": None},
            "python": "3.11",
            "platform": "Linux",
            "started": "2026-01-01T00:00:00Z",
            "seconds": 2.0,
            "device": "cpu",
            "faces": "procedural faces",
        },
    )
    (out / "profile.yaml").write_text(
        f"objectives: [single, linear]\nseeds: [0, 1]\nprepare: {{size: 64}}\n"
        f"stages: {list(stages)}\ndata_folder: /somewhere/else/CelebAMask-HQ\nlatents: {{}}\n"
        "absent: {label: the faces of UTKFace are not there}\n"
    )
    return out


class Page(HTMLParser):
    "Links, pictures and text of a page"

    def __init__(self, path):
        super().__init__()
        self.links, self.pictures, self.ids, self.text, self.source = (
            [],
            [],
            [],
            "",
            path.read_text(),
        )
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.pictures.append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_data(self, text):
        self.text += text


@pytest.fixture
def page(tmp_path):
    return Page(write_report(make_run(tmp_path / "demo")))


def test_values_stand_beside_the_papers(page):
    assert (
        "74.30 (70.90 to 77.50)" in page.text
        and "74.21" in page.text
        and "98.20 (96.00 to 101.30)"
        in page.text.replace("98.2 (96.0 to 101.3)", "98.20 (96.00 to 101.30)")
    )


def test_the_page_is_whole_and_asks_for_nothing(page):
    assert not re.search(r"<script|<link(?![^>]*href=\"data:)|https?://|@import|url\(", page.source)
    assert page.pictures and all(
        p["src"].startswith("data:image/") and p["alt"] and p["width"] for p in page.pictures
    )
    assert len(page.ids) == len(set(page.ids)) and {
        link[1:] for link in page.links if link.startswith("#")
    } <= set(page.ids)
    assert (
        'name="viewport"' in page.source
        and "prefers-color-scheme: dark" in page.source
        and "@media print" in page.source
    )


def test_text_is_escaped(page):
    assert "<script>alert(1)</script>" in page.text and "<script>" not in page.source


def test_stages_that_were_not_run_have_a_reason(page):
    for reason in (
        "it failed: its notebook says why",
        "the faces of UTKFace are not there",
        "this profile has no section 'gan'",
        "it was not asked for",
        "it is not finished",
    ):
        assert reason in page.text, reason


def test_what_is_stand_in(page):
    assert (
        "This run used stand-ins throughout" in page.text
        and "140 of 64 px: procedural faces, seed 0" in page.text
        and "world {}" not in page.text
    )


def test_no_place_of_this_machine_is_told(page, tmp_path):
    assert (
        str(tmp_path) not in page.source
        and str(ROOT) not in page.source
        and "/somewhere" not in page.source
        and "data_folder: CelebAMask-HQ" in page.text
    )
    assert (
        "10_faces/faces.json aaaaaaaaaaaa" in page.text
        and "secret.npy bbbbbbbbbbbb" in page.text
        and "abc1234" in page.text
        and "not installed" in page.text
    )


def test_links_lead_to_what_lies_beside_the_page(tmp_path):
    out = make_run(tmp_path / "demo")
    outside = [link for link in Page(write_report(out)).links if not link.startswith("#")]
    assert (
        outside
        and all((out / link).is_file() for link in outside)
        and "notebooks/80_table1_objectives.ipynb" in outside
    )
    copy = Page(write_report(out, tmp_path / "published" / "report.html"))
    assert not [link for link in copy.links if not link.startswith("#")] and copy.pictures


def test_claims_are_counted_and_told(tmp_path):
    out = make_run(tmp_path / "demo")
    claim_tables(Evidence(out, [], []))[0].to_csv(out / "tables" / "claims.csv", index=False)
    page = Page(write_report(out))
    assert (
        "not testable here" in page.text
        and "claims" in page.ids
        and "Multi-objective training improves resilience" in page.text
    )
    assert "claims about these are tested over faces alone" in page.text


@pytest.mark.parametrize(
    "generator, group, kind",
    [
        ("tiny_stylegan (stand-in)", "White", "stand-in"),
        ("stylegan2_ffhq", "tone_1", "stand-in"),
        ("stylegan2_ffhq", "White", "real"),
        ("progressive_gan", "White", "another"),
    ],
)
def test_page_and_claims_agree_on_what_is_stand_in(tmp_path, generator, group, kind):
    (tmp_path / "tables").mkdir()
    pd.DataFrame(
        {
            "group": [group],
            "share": [68.0],
            "share_low": [67.0],
            "share_high": [69.0],
            "reported_group": ["White"],
            "reported_share": [68.37],
            "faces": 10_000,
            "generator": generator,
        }
    ).to_csv(tmp_path / "tables" / "balance_table2_unguided.csv", index=False)
    assert list(stand_ins(tmp_path, {})["it is"]) == [kind]
    claim = claim_tables(Evidence(tmp_path, [], []))[0].set_index("id").loc["unguided-shares"]
    assert (claim.verdict == "supported") == (kind == "real") and (claim.nuance == "stand-in") == (
        kind != "real"
    )


@pytest.mark.parametrize(
    "name, text, expected",
    [
        (
            "figures/figure2_schedules.png",
            "no picture",
            "Not shown: figures/figure2_schedules.png is no picture",
        ),
        ("tables/corruption_error.csv", "", "Not shown: tables/corruption_error.csv is no table"),
        (
            "tables/table1_objectives.csv",
            "objective,digits\nsingle,2\n",
            "other columns than this version of the code writes",
        ),
    ],
)
def test_what_cannot_be_shown_is_said_in_its_place(tmp_path, name, text, expected):
    out = make_run(tmp_path / "demo")
    (out / name).write_text(text)
    page = Page(write_report(out))
    assert expected in page.text and "figure2_schedules" in page.text


def test_a_damaged_profile_is_named_and_nothing_is_written(tmp_path):
    out = make_run(tmp_path / "demo")
    (out / "profile.yaml").write_text("[1")
    with pytest.raises(InputError, match="profile.yaml"):
        write_report(out)
    assert not (out / "report.html").exists()


def test_the_end_of_a_run(tmp_path):
    out = make_run(tmp_path / "demo")
    pd.DataFrame(
        {
            "model": ["a"] * 3,
            "fd128_classifier_test_verdict": ["baseline", "better", "no difference shown"],
        }
    ).to_csv(out / "tables" / "table4_synthesis.csv", index=False)
    claim_tables(Evidence(out, [], []))[0].to_csv(out / "tables" / "claims.csv", index=False)
    summary = finish_run(out)
    assert (
        "74.30 (70.90 to 77.50)" in summary
        and "Table IV: painted faces: 1 better, 1 no difference shown in fd128_classifier_test"
        in summary
        and "0 supported" in summary
    )
    assert summary.endswith(f"report: {out}/report.html") and (out / "report.html").is_file()
    (out / "tables" / "table1_objectives.csv").write_text("objective,digits\nsingle,2\n")
    assert "other columns" in finish_run(out)


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)


def test_a_run_that_only_began(tmp_path):
    (tmp_path / "profile.yaml").write_text("objectives: [single]\nseeds: [0]\n")
    assert "Nothing was run yet" in write_report(tmp_path).read_text()


def test_pictures_stay_small(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 2400, 3), np.uint8)).save(
        tmp_path / "faces.png"
    )
    Image.new("RGB", (100, 50), "red").save(tmp_path / "chart.png")
    faces, chart = embed(tmp_path / "faces.png"), embed(tmp_path / "chart.png")
    assert faces["picture"].startswith("data:image/webp") and (faces["width"], faces["height"]) == (
        1600,
        200,
    )
    assert chart["picture"].startswith("data:image/png") and (chart["width"], chart["height"]) == (
        100,
        50,
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(tmp_path, width):
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright for Python is not installed"
    )
    if not CHROMIUM:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    path, messages = write_report(make_run(tmp_path / "demo")), []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("console", lambda message: messages.append(message.text))
        page.on(
            "request",
            lambda request: (
                messages.append(request.url)
                if not request.url.startswith(("file:", "data:"))
                else None
            ),
        )
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (
            "the page scrolls sideways"
        )
        assert (
            page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            and not messages
        )
        browser.close()


@pytest.mark.parametrize(
    "value, text",
    [
        (74.391, "74.39"),
        (0.0645, "0.065"),
        (140, "140"),
        (140.0, "140"),
        (330.123, "330.1"),
        (0.00001, "1.0e-05"),
        (None, ""),
        (float("nan"), ""),
        ("text", "text"),
        (True, "True"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_intervals():
    assert (
        around(1.5, 0.25, 2) == "1.50 (0.25 to 2.00)"
        and around(0, 0, 0) == "0 (0 to 0)"
        and around(2, None, 3) == "2"
        and around(None, 1, 2) == ""
    )
    assert p_value(0.0001) == "<0.001" and p_value(0.04999) == "0.050" and p_value(None) == ""
    table = merge_intervals(
        pd.DataFrame(
            {"a": ["x"], "difference": [1.0], "low": [0.0], "high": [2.0], "p": [0.2]}, index=[7]
        )
    )
    assert list(table) == ["a", "difference", "p"] and table.difference[7] == "1.00 (0.00 to 2.00)"
    varies, same = split_constant(pd.DataFrame({"a": [1, 2], "b": [3, 3], "c": [None, None]}))
    assert list(varies) == ["a"] and same == {"b": 3}


# what made the published results


def record(out, name, rule, code, inputs=()):
    path = out / ".snakemake" / "metadata" / base64.urlsafe_b64encode(name.encode()).decode()
    write_json(path, {"rule": rule, "params": [f"'{code}'", "'{}'"], "input": list(inputs)})


@pytest.fixture
def published(tmp_path):
    "A published table with the fingerprints of today's code"
    out, target = tmp_path / "demo", tmp_path / "published"
    for folder in (out / "tables", target / "tables"):
        folder.mkdir(parents=True)
        (folder / "table1_objectives.csv").write_text("a\n1\n")
    codes = {
        name: code_fingerprint(find_notebook(name))
        for name in ("20_train_parser", "80_table1_objectives")
    }
    record(out, "20_parsers/linear/seed0/counts.parquet", "train", codes["20_train_parser"])
    record(
        out,
        "tables/table1_objectives.csv",
        "table1",
        codes["80_table1_objectives"],
        ["20_parsers/linear/seed0/counts.parquet", "of/nobody"],
    )
    note_code(
        out,
        [(out / "tables/table1_objectives.csv", target / "tables/table1_objectives.csv")],
        target,
    )
    return target


def test_todays_results_are_current(published, capsys):
    assert stale_published(published) == {} and check_published(True, published) == 0
    entry = json.loads((published / "made_by.json").read_text())["tables/table1_objectives.csv"]
    assert set(entry["code"]) == {"20_train_parser", "80_table1_objectives"} and entry[
        "sha256"
    ] == hash_file(published / "tables/table1_objectives.csv")


@pytest.mark.parametrize(
    "damage, why",
    [
        ("code", "changed since: 20_train_parser"),
        ("file", "changed after it was published"),
        ("gone", "it is gone"),
        ("unknown", "nothing is known"),
    ],
)
def test_old_results_are_named(published, damage, why, capsys):
    path, made = (
        published / "tables" / "table1_objectives.csv",
        json.loads((published / "made_by.json").read_text()),
    )
    if damage == "code":
        made["tables/table1_objectives.csv"]["code"]["20_train_parser"] = "0" * 16
    if damage == "unknown":
        made = {}
    write_json(published / "made_by.json", made)
    if damage == "file":
        path.write_text("a\n2\n")
    if damage == "gone":
        path.unlink()
    assert (
        list(stale_published(published)) == ["tables/table1_objectives.csv"]
        and why in stale_published(published)["tables/table1_objectives.csv"]
    )
    assert check_published(False, published) == 0 and check_published(True, published) == 1
    assert "1 published files" in capsys.readouterr().out


def test_files_that_no_rule_declares_take_the_record_beside_them(tmp_path):
    record(tmp_path, "figures/figure6_gan.png", "figure6", "1" * 16)
    record(tmp_path, "20_parsers/linear/seed0/run.json", "train", "2" * 16)
    (tmp_path / ".snakemake" / "metadata" / "%%%").write_text("{}")
    made = made_files(tmp_path)
    assert codes_behind("figures/figure6_gan_shared.png", made) == {"85_figure6_gan": "1" * 16}
    assert codes_behind("20_parsers/linear/seed0/predictions.png", made) == {
        "20_train_parser": "2" * 16
    }
    assert (
        codes_behind("figures/figure9.png", made) == {}
        and codes_behind("x", made_files(tmp_path / "nowhere")) == {}
    )


def test_costs_of_other_profiles_and_of_other_processors_stay(tmp_path):
    out, path = make_run(tmp_path / "demo"), tmp_path / "costs.csv"
    new = measured_costs(out)
    assert set(new.bf16_units) == {""}, "its records are older than the question"
    rows = [("sample", ""), ("demo", ""), ("demo", "with")]
    old = [
        {"profile": profile, "stage": "train", "seconds_total": 9.0, "bf16_units": units}
        for profile, units in rows
    ]
    pd.DataFrame(old).to_csv(path, index=False)
    costs = replace_rows(path, new)
    assert list(zip(costs.profile, costs.stage, costs.bf16_units)) == [
        ("sample", "train", ""),
        ("demo", "train", "with"),
        ("demo", "table1", ""),
    ]


def test_claims_in_the_readme():
    table = claim_tables(Evidence("nowhere", [], []))[0]
    assert claims_for_readme(table).endswith("not testable here.")
    table.loc[0, ["verdict", "nuance", "difference", "low", "high"]] = [
        "supported",
        "shown",
        1.0,
        0.5,
        1.5,
    ]
    assert claims_for_readme(table).count(
        "\n| "
    ) == 3 and "1.00 (0.50 to 1.50)" in claims_for_readme(table)


def test_published_results_are_of_todays_code():
    "A warning while work goes on, an error for a release (FAIRPARSE_RELEASE=1)"
    stale = stale_published()
    if stale:
        warnings.warn(
            f"{len(stale)} published results are older than the code that makes them, "
            f"for instance {next(iter(stale.items()))}"
        )
    assert not (stale and os.environ.get("FAIRPARSE_RELEASE")), stale
