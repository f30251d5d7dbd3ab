"Publishing: what is copied, what the README gets, and what is refused"

import base64
import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from fairparse.core.assets import read_yaml
from fairparse.core.runs import InputError, write_json
from fairparse.results.objectives import table1
from fairparse.workflow import publish as report
from fairparse.workflow import publish_bench
from fairparse.workflow.fingerprints import code_fingerprint
from fairparse.workflow.notebooks import find_notebook
from fairparse.workflow.profiles import load_profile
from fairparse.workflow.provenance import (
    APART,
    codes_behind,
    made_files,
    replace_rows,
    run_time,
    run_times,
    times_in_words,
    write_made_by,
)
from fairparse.workflow.publish import fill_block, markdown_table, publish, stale_published

real_profile = load_profile


@pytest.fixture(autouse=True)
def small_profile(monkeypatch, tmp_path):
    "The demo's profile is taken to be that of the small folder"
    monkeypatch.setattr(
        report,
        "load_profile",
        lambda name: (
            read_yaml(tmp_path / "demo" / "profile.yaml")
            if (tmp_path / "demo" / "profile.yaml").is_file()
            else real_profile(name)
        ),
    )


def record(out, name, rule, inputs=(), code=None, values={}, start=0.0, end=0.0):
    "What Snakemake would record of a file"
    path = out / ".snakemake" / "metadata" / base64.urlsafe_b64encode(name.encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    code = code or code_fingerprint(
        find_notebook(
            {
                "train": "20_train_parser",
                "table1": "80_table1_objectives",
                "figure2": "85_figure2_schedules",
            }[rule]
        )
    )
    write_json(
        path,
        {
            "rule": rule,
            "params": [repr(code), repr(json.dumps(values))],
            "input": list(inputs),
            "starttime": start,
            "endtime": end,
        },
    )


COUNTS = [f"20_parsers/linear/seed{seed}/run.json" for seed in (0, 1)]


def make_recorded(tmp_path):
    "An output folder with Snakemake's records of two trainings, a table and a figure, and a README"
    out, readme = (
        make_output(tmp_path / "demo", ["procedural faces, seed 0"]),
        tmp_path / "README.md",
    )
    (out / "profile.yaml").write_text(
        "objectives: [single, linear]\nseeds: [0, 1]\ntrain: {epochs: 3}\nresources: {gpu: 0}\n"
    )
    for k, name in enumerate(COUNTS):
        record(
            out, name, "train", values={"epochs": 3, "seed": k}, start=1000.0 + k, end=1100.0 + k
        )
    record(
        out,
        "tables/table1_objectives.csv",
        "table1",
        COUNTS,
        values={"objectives": ["single", "linear"], "seeds": [0, 1]},
        start=1101.0,
        end=1130.0,
    )
    record(out, "figures/figure2_schedules.png", "figure2", COUNTS, start=1101.0, end=1125.0)
    readme.write_text(
        "takes <!-- minutes -->@@MINUTES@@<!-- /minutes -->.\n"
        "<!-- table1 -->\nold\n<!-- /table1 -->\n"
    )
    return out, readme


def make_output(folder, sources):
    "An output folder with one table, one figure and sample predictions"
    for sub in ("tables", "figures", "10_faces", "20_parsers/linear/seed0"):
        (folder / sub).mkdir(parents=True)
    counts = {
        "single": np.full((2, 40, 19, 3), (60, 20, 20)),
        "linear": np.full((2, 40, 19, 3), (80, 10, 10)),
    }
    table1(counts, "made-up counts", resamples=20).to_csv(
        folder / "tables" / "table1_objectives.csv", index=False
    )
    for picture in ("figures/figure2_schedules.png", "20_parsers/linear/seed0/predictions.png"):
        Image.new("RGB", (8, 6), "white").save(folder / picture)
    write_json(folder / "10_faces" / "faces.json", {"sources": sources, "count": 40, "size": 8})
    (folder / "profile.yaml").write_text("objectives: [single, linear]\n")
    return folder


def test_tables_pictures_and_readme(tmp_path):
    out, readme = (
        make_output(tmp_path / "demo", ["procedural faces, seed 0"]),
        tmp_path / "README.md",
    )
    readme.write_text("a\n<!-- table1 -->\nold\n<!-- /table1 -->\nb\n")
    publish(out, tmp_path / "published", readme)
    assert (tmp_path / "published" / "predictions.png").read_bytes() == (
        out / "20_parsers/linear/seed0/predictions.png"
    ).read_bytes()
    assert (tmp_path / "published" / "tables" / "table1_objectives.csv").is_file()
    page = readme.read_text()
    assert (
        "old" not in page
        and "| 80.00 (80.00 to 80.00) | 74.21 | 20.00 (20.00 to 20.00) | <0.001 | better | >0.99 |"
        in page
        and page.startswith("a\n")
        and page.endswith("b\n")
    )


def test_paintings_reach_the_readme(tmp_path):
    out, readme = (
        make_output(tmp_path / "demo", ["procedural faces, seed 0"]),
        tmp_path / "README.md",
    )
    ends = {"": 2.0, "_low": 1.0, "_high": 3.0, "_difference": -0.5, "_verdict": "better"}
    ends |= {"_first": 0.4}
    row = {
        "generator": "one GAN for all",
        "title": "Linear",
        "follow_share": 61.2,
        "reported_fid": 99.93,
        "reported_lpips": 0.4269,
        "repetitions": 2,
    }
    pd.DataFrame(
        [
            row
            | {
                f"{metric}{end}": value
                for metric in ("fd128_classifier_test", "kd128_classifier_test", "stlpips_alex")
                for end, value in ends.items()
            }
        ]
    ).to_csv(out / "tables" / "table4_synthesis.csv", index=False)
    (out / "profile.yaml").write_text("gan: {}\n")
    readme.write_text("<!-- table1 -->\n<!-- /table1 -->\n<!-- table4 -->\nold\n<!-- /table4 -->\n")
    publish(out, tmp_path / "published", readme)
    page = readme.read_text()
    assert (
        "fd128_classifier_test" in page
        and "| one GAN for all | Linear | 2 (1 to 3) | -0.50 | better |" in page
        and "| 61 |" in page
        and "old" not in page
    )


def test_real_faces_are_not_published(tmp_path):
    out = make_output(tmp_path / "sample", ["CelebAMask-HQ"])
    with pytest.raises(InputError, match="CelebAMask-HQ.*procedural"):
        publish(out, tmp_path / "published", tmp_path / "README.md")
    assert not (tmp_path / "published").exists()


def test_missing_block_is_named():
    with pytest.raises(InputError, match="table9"):
        fill_block("no blocks", "table9", "x")


def test_markdown_leaves_missing_values_empty():
    assert (
        markdown_table(pd.DataFrame({"a": [1.234], "b": [None]})).splitlines()[-1] == "| 1.23 |  |"
    )


def test_unfinished_output_is_named(tmp_path):
    out = make_output(tmp_path / "demo", ["procedural faces, seed 0"])
    (out / "20_parsers/linear/seed0/predictions.png").unlink()
    with pytest.raises(InputError, match="predictions.png is missing"):
        publish(out, tmp_path / "published", tmp_path / "README.md")


@pytest.mark.parametrize("name", ["table1_objectives", "table4_synthesis"])
def test_a_missing_table_is_named(tmp_path, name):
    out, readme = (
        make_output(tmp_path / "demo", ["procedural faces, seed 0"]),
        tmp_path / "README.md",
    )
    (out / "profile.yaml").write_text("gan: {}\n")
    (out / "tables" / f"{name}.csv").unlink(missing_ok=True)
    readme.write_text("<!-- table1 -->\n<!-- /table1 -->\n<!-- table4 -->\n<!-- /table4 -->\n")
    with pytest.raises(InputError, match=f"{name}.csv is missing"):
        publish(out, tmp_path / "published", readme)


def test_a_published_run_is_current_and_says_how_long_it_took(tmp_path):
    out, readme = make_recorded(tmp_path)
    (out / ".snakemake" / "log").mkdir()
    (out / ".snakemake" / "log" / "a.snakemake.log").write_text("Provided cores: 2\n")
    publish(out, tmp_path / "published", readme)
    assert stale_published(tmp_path / "published", readme) == {}
    assert "takes <!-- minutes -->2 minutes on 2 CPU cores<!-- /minutes -->." in readme.read_text()
    made = json.loads((tmp_path / "published" / "made_by.json").read_text())
    assert set(made) == {
        "tables/table1_objectives.csv",
        "figures/figure2_schedules.png",
        "predictions.png",
        "report.html",
        "times.csv",
    }
    assert set(made["report.html"]["code"]) == {
        "20_train_parser",
        "80_table1_objectives",
        "85_figure2_schedules",
        report.MADE_OF_ALL["report.html"],
    }
    before = {
        path: path.read_bytes() for path in tmp_path.rglob("published/**/*") if path.is_file()
    }
    publish(out, tmp_path / "published", readme)
    assert {path for path, text in before.items() if path.read_bytes() != text} <= {
        tmp_path / "published" / "report.html",
        tmp_path / "published" / "made_by.json",
    }


@pytest.mark.parametrize(
    "damage, words",
    [
        ("rerun", "linear/seed1/run.json was rerun since tables/table1_objectives.csv"),
        ("values", "made with another epochs"),
        ("seeds", "made with another seeds"),
        ("missing block", "no block"),
        ("picture", "predictions.png is missing"),
    ],
)
def test_old_results_are_refused_before_anything_is_written(tmp_path, damage, words):
    out, readme = make_recorded(tmp_path)
    if damage == "rerun":
        record(out, COUNTS[1], "train", values={"epochs": 3}, start=2000.0, end=2100.0)
    if damage == "values":
        record(out, COUNTS[0], "train", values={"epochs": 2}, start=1000.0, end=1100.0)
    if damage == "seeds":
        (out / "profile.yaml").write_text(
            "objectives: [single, linear]\nseeds: [0, 1, 2]\ntrain: {epochs: 3}\n"
        )
    if damage == "missing block":
        readme.write_text("<!-- minutes -->x<!-- /minutes -->\n")
    if damage == "picture":
        (out / "20_parsers/linear/seed0/predictions.png").unlink()
    page = readme.read_text()
    with pytest.raises(InputError, match=words):
        publish(out, tmp_path / "published", readme)
    assert not (tmp_path / "published").exists() and readme.read_text() == page


def test_no_fingerprint_is_lost(tmp_path):
    out, readme = make_recorded(tmp_path)
    record(out, COUNTS[1], "train", code="1" * 16, values={"epochs": 3}, start=1000.0, end=1100.0)
    today = code_fingerprint(find_notebook("20_train_parser"))
    assert codes_behind("tables/table1_objectives.csv", made_files(out))[
        "20_train_parser"
    ] == " ".join(sorted([today, "1" * 16]))
    publish(out, tmp_path / "published", readme)
    assert (
        "changed since: 20_train_parser"
        == stale_published(tmp_path / "published")["tables/table1_objectives.csv"]
    )


@pytest.mark.parametrize(
    "change, stale",
    [
        ("train: {epochs: 4}", True),
        ("train: {epochs: 3}\nseeds: [0]", True),
        ("train: {epochs: 3}\nresources: {gpu: 1}", False),
        ("train: {epochs: 3}\ngan: {epochs: 9}", False),
    ],
)
def test_changed_parameters_make_results_old(tmp_path, change, stale):
    out, readme = make_recorded(tmp_path)
    publish(out, tmp_path / "published", readme)
    (out / "profile.yaml").write_text(
        "objectives: [single, linear]\n"
        + ("" if "seeds" in change else "seeds: [0, 1]\n")
        + change
        + "\n"
    )  # today's
    found = stale_published(tmp_path / "published", readme)
    assert (
        "parameters changed since: " in found.get("tables/table1_objectives.csv", "")
    ) == stale and ("train" in found.get("report.html", "")) == stale


def test_readme_and_report_are_checked(tmp_path):
    out, readme = make_recorded(tmp_path)
    publish(out, tmp_path / "published", readme)
    readme.write_text(readme.read_text().replace("80.00", "81.00").replace("2 minutes", "1 minute"))
    (tmp_path / "published" / "report.html").write_text("other")
    (tmp_path / "published" / "costs.csv").write_text("profile,stage\n")
    assert list(stale_published(tmp_path / "published", readme)) == [
        "costs.csv",
        "report.html",
        "README.md, block table1",
        "README.md, block minutes",
    ]


def test_what_a_run_no_longer_makes_is_forgotten(tmp_path):
    out, readme = make_recorded(tmp_path)
    published = tmp_path / "published"
    publish(out, published, readme)
    made = json.loads((published / "made_by.json").read_text())
    made |= {
        "tables/renamed.csv": made["predictions.png"],
        "tables/gone.csv": made["predictions.png"],
        "study/changes.png": made["predictions.png"],
    }
    write_json(published / "made_by.json", made)
    (published / "study").mkdir()
    for name in (
        "tables/renamed.csv",
        "tables/not_ours.csv",
        "study/changes.png",
        "strong_held_out.csv",
    ):
        (published / name).write_text("a\n")
    publish(out, published, readme)
    assert not (published / "tables/renamed.csv").exists() and all(
        (published / name).is_file()
        for name in ("tables/not_ours.csv", "study/changes.png", "strong_held_out.csv")
    )
    known = json.loads((published / "made_by.json").read_text())
    assert "study/changes.png" in known and not {"tables/renamed.csv", "tables/gone.csv"} & set(
        known
    )


@pytest.mark.parametrize(
    "faces, source, refused",
    [
        ("procedural faces, seed 1", "procedural", False),
        ("drawn masks", "/x/demo/10_faces", False),
        ("drawn masks", "/data/faces", True),
        ("CelebA", "/data/faces", True),
        (None, "", True),
    ],
)
def test_classifiers_of_real_faces_are_refused(tmp_path, faces, source, refused):
    out, readme = make_recorded(tmp_path)
    (out / "60_classifiers" / "smile").mkdir(parents=True)
    write_json(
        out / "60_classifiers" / "smile" / "run.json",
        {"faces": faces, "parameters": {"source": source}},
    )
    if not refused:
        return report.check_source(out)
    with pytest.raises(InputError, match="smile.*only results from procedural"):
        publish(out, tmp_path / "published", readme)


def test_other_generators_and_profiles_are_refused(tmp_path, monkeypatch):
    out, readme = make_recorded(tmp_path)
    (out / "61_latents").mkdir()
    write_json(out / "61_latents" / "run.json", {"generator": "ffhq.pkl"})
    with pytest.raises(InputError, match="ffhq.pkl.*stand-in"):
        publish(out, tmp_path / "published", readme)
    write_json(out / "61_latents" / "run.json", {"generator": "tiny_stylegan (stand-in)"})
    report.check_source(out)
    monkeypatch.setattr(report, "load_profile", real_profile)
    with pytest.raises(InputError, match="no run of the profile 'demo'.*train"):
        publish(out, tmp_path / "published", readme)
    import yaml

    for name, refused in (("demo", False), ("ci", True)):
        (out / "profile.yaml").write_text(
            yaml.safe_dump(
                {
                    **real_profile(name),
                    "data_folder": "",
                    "extra": [],
                    "absent": {},
                    "stages": ["train"],
                }
            )
        )
        if not refused:
            report.check_source(out)
        else:
            with pytest.raises(InputError, match="no run of the profile 'demo'"):
                report.check_source(out)
    assert not (tmp_path / "published").exists()


def test_interruptions_are_no_part_of_the_minutes(tmp_path):
    for k, (start, end) in enumerate(
        [(0.5, 300.0), (10.0, 290.0), (320.0, 600.0), (90000.0, 90120.0)]
    ):
        record(tmp_path, f"20_parsers/linear/seed{k}/run.json", "train", start=start, end=end)
    assert run_time(tmp_path)[0] == pytest.approx(12, abs=0.1)
    assert run_times(tmp_path / "nowhere").empty


def timed_run(folder, minutes, units):
    "A run of the demo whose jobs ran on one kind of processor"
    record(folder, "20_parsers/linear/seed0/run.json", "train", start=1.0, end=1 + 60 * minutes)
    job = folder / "20_parsers" / "linear" / "seed0" / "run.json"
    job.parent.mkdir(parents=True, exist_ok=True)
    job.write_text(json.dumps({"processor": {"model": "A chip", "bf16": units}}))
    return folder


def test_a_published_time_says_which_kind_of_processor_took_it(tmp_path):
    path = tmp_path / "times.csv"
    for where, minutes, units in (("a", 37, False), ("b", 16, True), ("c", 15, True)):
        run = timed_run(tmp_path / where / "demo", minutes, units)
        times = replace_rows(path, run_times(run))
        times.to_csv(path, index=False)
    assert times_in_words(pd.read_csv(path)) == (
        "15 minutes with bfloat16 matrix units and 37 minutes without bfloat16 matrix units"
    )
    mixed = timed_run(tmp_path / "d" / "demo", 20, True)
    other = mixed / "10_faces" / "run.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"processor": {"model": "A chip", "bf16": False}}))
    assert times_in_words(run_times(mixed)) == "20 minutes", "two kinds: neither is said"


def test_an_inline_block_stays_inline():
    assert (
        fill_block("a <!-- m -->x<!-- /m --> b", "m", "5 minutes")
        == "a <!-- m -->5 minutes<!-- /m --> b"
    )


def test_what_is_published_by_itself_survives_what_is_published_beside_it(tmp_path):
    "Every folder of the repository's own published results, and every benchmark's"
    here = {path.name for path in (ROOT / "outputs" / "published").iterdir() if path.is_dir()}
    benches = {folder for _, folder, _ in publish_bench._benches.values()}
    assert here | benches <= {"tables", "figures", *(name.rstrip("/") for name in APART)}
    path = tmp_path / "made_by.json"
    known = {"tables/old.csv": {}, **{f"{name}findings.csv": {} for name in APART}}
    for name in known:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    write_made_by(path, dict(known), {"tables/new.csv": {}}, "")
    assert not (tmp_path / "tables" / "old.csv").exists()
    assert all((tmp_path / f"{name}findings.csv").is_file() for name in APART)
    assert set(json.loads(path.read_text())) == {*known, "tables/new.csv"} - {"tables/old.csv"}
