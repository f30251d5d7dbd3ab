"What is known of a stage: records that are read or refused, and whether the rules do as they say"

import json

import pytest
import yaml
from conftest import ROOT

from fairparse.core.runs import InputError
from fairparse.workflow.costs import WORK, plan
from fairparse.workflow.engine import workflow_command
from fairparse.workflow.needs import DATA, WEIGHTS
from fairparse.workflow.notebooks import find_notebook, read_parameters
from fairparse.workflow.operations import OPERATIONS
from fairparse.workflow.plan import plan_run
from fairparse.workflow.profiles import THREADED, load_profile
from fairparse.workflow.report import READERS
from fairparse.workflow.space import DISK, GPU_MEMORY
from fairparse.workflow.stages import (
    load_stages,
    result_paths,
    section_stages,
    shown_results,
    stage_files,
    stage_jobs,
    stages_behind,
    swept_objectives,
    trained_objectives,
)


def test_every_stage_has_a_rule_and_reads_and_writes_what_its_record_says(tmp_path):
    "The demo with everything that a profile may ask for, as Snakemake plans it"
    settings = ["study.even=outputs/none", "controlnet_maps=[single,truth]"]
    settings += ["audit_parser.world=faces", "trials.trials=10"]
    record, _ = plan_run("demo", settings=settings)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(record))
    jobs = plan(workflow_command(tmp_path, 2, None, True))
    maker = {output: job.stage for job in jobs for output in job.outputs}
    assert {job.stage for job in jobs} == set(load_stages())
    for name, stage in load_stages().items():
        own = [job for job in jobs if job.stage == name]
        made = {output for job in own for output in job.outputs}
        expected = {r.format(**job) for job in stage_jobs(name, record) for r in stage.results}
        assert made == expected, f"{name}: the rule makes other files than the record says"
        read = {maker[path] for job in own for path in job.inputs if path}
        assert set(stage.reads) <= read <= {*stage.reads, *stage.may_read}, name


def test_what_a_record_reads_is_made():
    profile = load_profile("demo", ["study.even=outputs/none"])
    for name, stage in load_stages().items():
        for other, file in {**stage.reads, **stage.may_read}.items():
            assert stage_files(other, profile, file), (name, other)


def test_stages_that_a_run_stands_on():
    asked = {"objectives": ["single"], "seeds": [0], "latents": {}, "stages": ["claims"]}
    behind = stages_behind(asked)
    assert {"prepare", "train", "sweep", "guide", "label", "claims"} <= {*behind}
    assert not {"gan", "score", "study", "figure3"} & {*behind}
    absent = dict.fromkeys(section_stages("latents"), "no weights")
    assert "guide" not in stages_behind({**asked, "absent": absent})
    assert stages_behind({**asked, "stages": ["prepare"]}) == ["prepare"]


def test_a_file_that_a_stage_does_not_make_is_refused():
    assert result_paths("gan", ["run.json", "generator.json"])[1].endswith("/generator.json")
    with pytest.raises(InputError, match="stage 'gan' makes no 'model.json'"):
        result_paths("gan", ["run.json", "model.json"])


def test_parameters_of_a_record_are_those_of_its_notebook():
    for name, stage in load_stages().items():
        known = read_parameters(find_notebook(stage.notebook))
        assert {"out", *stage.folders, *stage.given} <= set(known), name
        if stage.threads:
            assert stage.threads in THREADED and {"threads", "workers"} & set(known), name


@pytest.mark.parametrize(
    "text, word",
    [
        ("mine: {notebook: x, resluts: [a/b]}", "entry 'resluts' .did you mean 'results'"),
        ("mine: {notebook: x}", "has no results"),
        ("mine: {notebook: x, results: a/b}", "results is 'a/b': it must be a list"),
        ("mine:", "is None: it must hold `notebook"),
        ("mine: {notebook: x, results: [a/b], reads: {tain: c}}", "reads 'tain'"),
        ("mine: {notebook: x, results: [a/b], jobs: each_face}", "jobs is 'each_face'"),
    ],
)
def test_records_that_are_wrong_are_refused(tmp_path, text, word):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=f"mine.yaml: stage 'mine'.*{word}"):
        load_stages(tmp_path)


def test_two_stages_of_one_name_are_refused(tmp_path):
    for file in ("a", "b"):
        (tmp_path / f"{file}.yaml").write_text("mine: {notebook: x, results: [a/b]}")
    with pytest.raises(InputError, match="b.yaml: there are two stages 'mine'"):
        load_stages(tmp_path)


def test_the_index_names_every_stage_beside_its_notebook():
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = "".join("".join(cell["source"]) + "\n" for cell in cells).splitlines()
    for name, stage in load_stages().items():
        rows = [line for line in lines if f"(paper/{stage.notebook}.ipynb)" in line]
        assert any(f"`{name}`" in row or name == "study" for row in rows), name


def test_formulas_and_needs_of_the_records_are_those_that_there_are():
    stages = load_stages().values()
    for key, there in {
        "work": WORK,
        "operations": OPERATIONS,
        "gpu_memory": GPU_MEMORY,
        "disk": DISK,
    }.items():
        named = [stage.cost[key] for stage in stages if key in stage.cost]
        assert {name for name in named if isinstance(name, str)} == set(there), key
    assert {need for stage in stages for need in stage.needs} == {*DATA, *WEIGHTS}
    shown = [*shown_results("tables"), *shown_results("figures")]
    assert {one.readers for one in shown} == set(READERS)
    assert all(one.caption for one in shown if one.paper)
    assert all(one.alt for one in shown_results("figures") if one.paper)


def test_objectives_beyond_the_papers_are_trained_and_only_named_ones_swept():
    profile = {"objectives": ["single"], "beyond": ["fair", "cleaned"], "seeds": [0, 1], "gan": {}}
    assert trained_objectives(profile) == ["single", "fair", "cleaned"]
    assert swept_objectives({**profile, "beyond_swept": ["fair"]}) == ["single", "fair"]
    assert swept_objectives({**profile, "swept": ["cleaned"]}) == ["cleaned"]
    assert len(stage_jobs("train", profile)) == 6 and len(stage_jobs("sweep", profile)) == 2
    assert {job["maps"] for job in stage_jobs("gan", profile)} == {"single", "truth"}


@pytest.mark.parametrize(
    "text, said",
    [
        ("beyond: [single]", r"\['single'\] of `beyond` are there twice"),
        ("beyond: [fair, fair]", r"\['fair', 'fair'\] of `beyond` are there twice"),
        (
            "beyond: [fair]\nbeyond_swept: [linear]",
            r"beyond_swept \['linear'\] are not in `beyond`",
        ),
        ("beyond: [fair]\nswept: [single, linear]", r"swept \['linear'\] are trained by nobody"),
    ],
)
def test_objectives_named_twice_or_swept_untrained_are_refused(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(f"objectives: [single]\n{text}\n")
    with pytest.raises(InputError, match=said):
        load_profile(str(path))
