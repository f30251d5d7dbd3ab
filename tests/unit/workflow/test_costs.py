"""Expected costs: Snakemake's plan, measured times, formulas, bounds."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from fairparse.core.runs import InputError
from fairparse.workflow import costs
from fairparse.workflow.costs import (
    Job,
    bound_time,
    expected_seconds,
    job_work,
    measured_costs,
    plan,
    print_plan,
    profile_costs,
    read_plan,
    stage_work,
)
from fairparse.workflow.operations import (
    CARDS,
    GFLOP,
    find_card,
    gpu_hours,
    job_count,
    known_card,
    list_gpus,
    stage_operations,
)
from fairparse.workflow.profiles import count_faces, face_count, load_profile
from fairparse.workflow.space import PARSER_WEIGHTS, expected_disk, gpu_memory
from fairparse.workflow.stages import workflow_stages

SNAKEFILE = """
rule all:
    input: "table.csv", expand("a{seed}/run.json", seed=[0, 1])
rule train:
    output: "a{seed}/run.json", "a{seed}/counts.parquet"
    threads: 2
    shell: "touch {output}"
rule table1:
    input: expand("a{seed}/counts.parquet", seed=[0, 1])
    output: "table.csv"
    shell: "touch {output}"
"""


def executed(folder, notebook, seconds, parameters=None, device=None, exception=False):
    "An executed notebook of a made-up run"
    folder.mkdir(parents=True, exist_ok=True)
    timing = {"duration": seconds, "parameters": parameters or {}} | (
        {"exception": True} if exception else {}
    )
    (folder / f"{notebook}.ipynb").write_text(
        json.dumps({"metadata": {"papermill": timing}, "cells": []})
    )
    if device:
        (folder / "run.json").write_text(json.dumps({"device": device}))


@pytest.fixture
def run(tmp_path):
    "A made-up demo run: two trainings, a table"
    out = tmp_path / "demo"
    (out / "10_faces").mkdir(parents=True)
    (out / "10_faces" / "faces.json").write_text(json.dumps({"count": 560, "size": 64}))
    for seed, seconds in enumerate((100, 140)):
        executed(
            out / f"20_parsers/linear/seed{seed}", "20_train_parser", seconds, {"epochs": 18}, "cpu"
        )
    executed(out / "notebooks", "80_table1_objectives", 3.5)
    return out


# Snakemake's plan


def snakemake(folder, *options):
    (folder / "Snakefile").write_text(SNAKEFILE)
    return [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(folder / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        "2",
        *options,
    ]


def test_plan_of_the_installed_snakemake_is_read(tmp_path):
    jobs = plan(snakemake(tmp_path, "--dry-run"))
    assert sorted(job.stage for job in jobs) == ["table1", "train", "train"]
    table = next(job for job in jobs if job.stage == "table1")
    assert (
        table.inputs == ["a0/counts.parquet", "a1/counts.parquet"]
        and table.outputs == ["table.csv"]
        and table.reasons[0] == "Missing output files"
    )
    assert {job.threads for job in jobs if job.stage == "train"} == {2}
    subprocess.run(snakemake(tmp_path, "--quiet", "all"), check=True, cwd=tmp_path)
    assert plan(snakemake(tmp_path, "--dry-run")) == []
    (tmp_path / "a1" / "run.json").unlink()
    again = plan(snakemake(tmp_path, "--dry-run"))
    assert sorted(job.stage for job in again) == ["table1", "train"] and again[
        [j.stage for j in again].index("table1")
    ].reasons == ["Input files updated by another job"]


def test_plan_says_what_snakemake_says(tmp_path):
    command = snakemake(tmp_path, "--dry-run", "no_such_rule")
    with pytest.raises(InputError, match="no_such_rule"):
        plan(command)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace("rule train:\n", "regla train:\n", 1),
        lambda t: t.replace("train         2", "train         3"),
        lambda t: t.replace("Job stats:", "Jobs:"),
    ],
)
def test_an_output_that_is_not_understood_is_refused(damage):
    text = (
        "Job stats:\njob       count\n------  -------\n"
        "all           1\ntrain         2\ntotal         3\n\n"
        + "rule train:\n    output: a\n" * 2
        + "rule all:\n    input: a\n"
    )
    assert len(read_plan(text)) == 2
    with pytest.raises(InputError, match="not understood"):
        read_plan(damage(text))


def test_functions_in_reasons_and_annotations_are_left_out():
    text = (
        "Job stats:\njob count\n--- -----\ntrain 1\ntotal 1\n\n"
        "localrule train:\n    input: a (retrieve from storage), b\n    output: c\n"
        "    reason: Missing output files: c; Set of input files has changed since last execution; "
        "Input files updated by another job: a, b\n    threads: 4\n    resources: tmpdir=/tmp\n"
    )
    (job,) = read_plan(text)
    assert job.inputs == ["a", "b"] and job.threads == 4
    assert job.reasons == [
        "Missing output files",
        "Set of input files has changed since last execution",
        "Input files updated by another job",
    ]


# what was measured


def test_measured_times_are_gathered_by_stage(run):
    table = measured_costs(run).set_index("stage")
    assert list(table.index) == ["train", "table1"]
    assert (
        table.loc["train", ["jobs", "seconds_median", "seconds_total"]].tolist() == [2, 120, 240]
        and table.loc["train", "device"] == "cpu"
    )
    assert (
        table.loc["train", "work"] == 18 * 560 * 64**2
        and table.loc["table1", "work"] == 1
        and set(table.profile) == {"demo"}
    )


def test_failed_and_foreign_notebooks_do_not_count(run):
    executed(run / "20_parsers/single/seed0", "20_train_parser", 1, exception=True)
    executed(run / "20_parsers/single/seed1", "20_train_parser.running", 1)
    executed(run / "mine", "my_notebook", 1)
    assert measured_costs(run).jobs.tolist() == [2, 1]


def test_without_notebooks_or_with_a_broken_one(tmp_path, run):
    assert measured_costs(tmp_path / "nothing").empty and "stage" in measured_costs(
        tmp_path / "nothing"
    )
    (tmp_path / "empty").mkdir()
    assert "train" not in {
        stage
        for stage, row in expected_seconds(
            ["train"], load_profile("demo"), "demo", tmp_path / "empty"
        ).items()
        if row[2] == "this folder"
    }
    (run / "notebooks" / "mine.ipynb").write_text("{")
    assert len(measured_costs(run)) == 2, "a notebook that is no stage's may be anything"
    (run / "notebooks" / "80_table3_class_iou.ipynb").write_text("{")
    with pytest.raises(InputError, match="80_table3_class_iou.ipynb is no notebook"):
        measured_costs(run)
    with pytest.raises(InputError, match="80_table3_class_iou.ipynb is no notebook"):
        expected_seconds(["train"], load_profile("demo"), "demo", run)


def on_processor(folder, units):
    "Note in a run with which kind of processor it was made"
    for notebook in list((folder / "20_parsers").rglob("*.ipynb")):
        record = {"processor": {"model": "A chip", "bf16": units}}
        (notebook.parent / "run.json").write_text(json.dumps(record))


@pytest.fixture
def published(run, monkeypatch):
    on_processor(run, units=True)
    table = measured_costs(run)
    assert set(table.bf16_units) == {"with"}
    monkeypatch.setattr(costs, "published_costs", lambda: table)
    monkeypatch.setattr(costs, "processor", lambda: {"model": "A chip", "bf16": True})
    return table


def test_a_time_of_another_kind_of_processor_is_a_rough_one(published, monkeypatch):
    def seconds():
        return expected_seconds(["train"], load_profile("demo"), "demo")["train"]

    low, high, source = seconds()
    monkeypatch.setattr(costs, "processor", lambda: {"model": "Another", "bf16": False})
    lower, higher, other = seconds()
    assert (source, other) == ("published", "published, another kind of processor")
    assert lower < low and higher > high


def test_time_grows_with_the_work(published):
    def seconds(*settings):
        return expected_seconds(
            ["train"],
            load_profile(
                "demo", ["train.epochs=18", "prepare.count=560", "prepare.size=64", *settings]
            ),
            "demo",
        )["train"]

    low, high, source = seconds()
    assert low < 120 + costs.START < high and source == "published"
    for setting, factor in (
        ("train.epochs=36", 2),
        ("prepare.count=1120", 2),
        ("prepare.size=128", 4),
    ):
        assert (seconds(setting)[0] - costs.MARGINS["published"][0] * costs.START) / (
            low - costs.MARGINS["published"][0] * costs.START
        ) == pytest.approx(factor)


def test_the_nearest_witness_is_asked_first(published, run, tmp_path):
    own = tmp_path / "mine"
    executed(own / "20_parsers/linear/seed0", "20_train_parser", 50, {"epochs": 18})
    (own / "10_faces").mkdir()
    shutil.copy(run / "10_faces" / "faces.json", own / "10_faces")
    found = expected_seconds(
        ["train", "table1", "gan"], load_profile("demo", ["train.epochs=18"]), "demo", own
    )
    assert (
        found["train"][2] == "this folder"
        and found["train"][1] < 100
        and found["table1"][2] == "published"
        and "gan" not in found
    )
    other = expected_seconds(["train"], load_profile("ci"), "ci")["train"]
    assert other[2] == "published, another profile" and other[1] / other[0] > 10


def test_own_run_keeps_the_work_it_was_measured_with(run):
    "the profile of a folder is written anew before a dry run, so it cannot say what was run"
    doubled = expected_seconds(["train"], load_profile("demo", ["train.epochs=36"]), "demo", run)[
        "train"
    ]
    assert doubled[0] < 2 * 120 + costs.START < doubled[1] and doubled[0] > 120


@pytest.mark.parametrize("name", ["ci", "demo", "sample", "paper", "study"])
def test_every_stage_of_every_profile_has_a_cost(name):
    profile = load_profile(name)
    for stage in workflow_stages():
        assert stage_work(stage, profile) > 0
        low, high = gpu_hours(stage, profile)
        assert 0 <= low <= high and math.isfinite(high)
    rows = expected_disk(profile)
    assert all(
        0 <= row["gb_low"] <= row["gb_high"] and row["stage"] in workflow_stages() for row in rows
    )


def test_published_costs_are_what_was_measured(run, tmp_path, monkeypatch):
    from fairparse.core.records import write_csv

    on_processor(run, units=costs.processor()["bf16"])
    write_csv(measured_costs(run), tmp_path / "outputs" / "published" / "costs.csv")
    monkeypatch.setattr(costs, "find_root", lambda: tmp_path)
    again = costs.published_costs()
    assert again.stage.tolist() == ["train", "table1"] and again.work.tolist() == pytest.approx(
        measured_costs(run).work.tolist(), rel=1e-3
    )
    assert expected_seconds(["train"], load_profile("demo"), "demo")["train"][2] == "published"


# the formulas


def test_operations_of_the_parser_are_those_that_pytorch_counts():
    torch, smp = pytest.importorskip("torch"), pytest.importorskip("segmentation_models_pytorch")
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net, x = (
            smp.Unet(
                "resnet34",
                encoder_weights=None,
                classes=19,
                decoder_channels=(256, 128, 64, 32, 16),
            ).eval(),
            torch.empty(1, 3, 256, 256),
        )
    counted = []
    for step in (lambda: net(x), lambda: net(x).sum().backward()):
        with FlopCounterMode(display=False) as counter:
            step()
        counted.append(counter.get_total_flops() / 1e9)
    assert counted == pytest.approx([GFLOP["unet"], GFLOP["unet_step"]], rel=0.01)
    assert 4 * sum(p.numel() for p in net.parameters()) == pytest.approx(
        4 * PARSER_WEIGHTS["resnet34"], rel=0.01
    )
    one = load_profile("paper", ["train.epochs=1"])
    train, valid, test = 24_183, 2_993, 2_824
    assert stage_operations("train", one)["convolutions"][0] == pytest.approx(
        (train * counted[1] + (valid + test) * counted[0]) / 1e6, rel=0.01
    )


def counted(call, backward=False):
    "GFLOP of a call on the meta device"
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def total(found):
        return sum(map(total, found)) if isinstance(found, list) else found.sum()

    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
        total(call()).backward() if backward else call()
    return counter.get_total_flops() / 1e9


def test_operations_of_pix2pixhd_are_those_that_pytorch_counts():
    torch = pytest.importorskip("torch")
    from fairparse.gan.pix2pixhd import GlobalGenerator, MultiScaleDiscriminator

    with torch.device("meta"):
        net, judges, planes, image = (
            GlobalGenerator(19, 64, 4, 9, 7),
            MultiScaleDiscriminator(19),
            torch.empty(1, 19, 256, 256),
            torch.empty(1, 3, 256, 256),
        )
    found = [
        counted(lambda: net(planes)),
        counted(lambda: net(planes), backward=True),
        counted(lambda: judges(planes, image), backward=True),
    ]
    assert found == pytest.approx(
        [GFLOP["generator"], GFLOP["generator_step"], GFLOP["discriminators_step"]], rel=0.01
    )


def test_operations_of_stable_diffusion_are_those_that_pytorch_counts():
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    from fairparse.diffusion.memory import build_meta

    unet, control = build_meta()
    with torch.device("meta"):
        latent, time, words, image = (
            torch.empty(1, 4, 64, 64),
            torch.empty(1),
            torch.empty(1, 77, 768),
            torch.empty(1, 3, 512, 512),
        )
        coder = diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
        )

    def step():
        down, middle = control(latent, time, words, image, return_dict=False)
        return unet(
            latent,
            time,
            words,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample

    found = {
        "diffusion": counted(step),
        "diffusion_step": counted(step, backward=True),
        "encoder": counted(lambda: coder.encode(image)),
        "decoder": counted(lambda: coder.decode(latent)),
    }
    for net in (unet, control):
        net.train().enable_gradient_checkpointing()
    assert found | {"diffusion_step_checkpointing": counted(step, backward=True)} == pytest.approx(
        {name: GFLOP[name] for name in (*found, "diffusion_step_checkpointing")}, rel=0.01
    )


def test_operations_of_the_other_networks_are_those_that_pytorch_counts():
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision").models
    from fairparse.balancing.stylegan import GeneratorConfig, StyleGAN2Generator

    with torch.device("meta"):
        inception, face = (
            models.inception_v3(weights=None, init_weights=False).eval(),
            torch.empty(1, 3, 299, 299),
        )
        stylegan, z = (
            StyleGAN2Generator(
                GeneratorConfig(channels=[512, 512, 512, 512, 512, 256, 128, 64, 32])
            )
            .eval()
            .requires_grad_(False),
            torch.empty(1, 512),
        )
        alexnet, pair = models.alexnet(weights=None).features, torch.empty(2, 3, 256, 256)
    assert [counted(lambda: inception(face)), counted(lambda: stylegan(z))] == pytest.approx(
        [GFLOP["inception"], GFLOP["stylegan"]], rel=0.02
    )
    assert counted(lambda: alexnet(pair)) == pytest.approx(GFLOP["lpips"], rel=0.15)


@pytest.mark.parametrize("name", ["vgg16", "resnet34"])
def test_operations_of_the_classifiers_are_those_that_pytorch_counts(name):
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision").models
    with torch.device("meta"):
        net, x = getattr(models, name)(weights=None).eval(), torch.empty(1, 3, 224, 224)
    assert [counted(lambda: net(x)), counted(lambda: net(x), backward=True)] == pytest.approx(
        [GFLOP[name], GFLOP[f"{name}_step"]], rel=0.01
    )


def test_gpu_hours_scale_as_they_should():
    paper = load_profile("paper")
    low, high = gpu_hours("train", paper)
    assert 0.05 < low < high < 3, "a parser of the paper trains within hours on one card"
    assert gpu_hours("train", load_profile("paper", ["train.epochs=60"]))[0] == pytest.approx(
        2 * low, rel=0.05
    )
    assert gpu_hours("train", load_profile("paper", ["prepare.size=512"]))[0] == pytest.approx(
        4 * low
    )
    assert gpu_hours("train", paper, faces=3_000)[0] == pytest.approx(low / 10)
    assert gpu_hours("train", paper, card="H100")[0] == pytest.approx(
        low * CARDS["A100"] / CARDS["H100"]
    )
    assert gpu_hours("table1", paper) == (0, 0)


def test_checkpointing_costs_time_and_saves_memory():
    plain, saving = (
        load_profile("paper", [f"controlnet.training={{checkpointing: {flag}}}"])
        for flag in ("false", "true")
    )
    assert (
        gpu_hours("controlnet", plain)[0] < gpu_hours("controlnet", saving)[0]
        and gpu_memory(plain)["controlnet"] > gpu_memory(saving)["controlnet"]
    )


def test_face_set_bytes_are_exact(tmp_path):
    rows = {row["stage"]: row for row in expected_disk(load_profile("paper"))}
    assert (
        rows["prepare"]["gb_low"] == rows["prepare"]["gb_high"] == 30_000 * (3 + 1) * 256**2 / 1e9
    )
    assert (
        face_count(load_profile("sample"), 187) == 187
        and face_count(load_profile("demo"), 187) == 560
    )


def test_faces_are_counted_in_either_layout(tmp_path):
    for sub, n in (("a/CelebA-HQ-img", 3), ("b/images", 2), ("b/labels", 2)):
        (tmp_path / sub).mkdir(parents=True)
        for i in range(n):
            (tmp_path / sub / f"{i}.jpg").touch()
    assert count_faces([tmp_path / "a", tmp_path / "b"]) == 5 and count_faces([]) is None


def smi(folder, monkeypatch, script):
    "A made-up nvidia-smi"
    (folder / "nvidia-smi").write_text("#!/bin/sh\n" + script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    list_gpus.cache_clear()


@pytest.mark.parametrize(
    "script, gpus, card",
    [
        ("echo 'NVIDIA H100 80GB HBM3, 81559'; echo 'NVIDIA H100 80GB HBM3, 81559'", 2, "H100"),
        ("echo 'Quadro, 8192'", 1, "A100"),
        ("echo 'no driver' >&2; exit 9", 0, "A100"),
        ("echo 'broken, [N/A]'", 0, "A100"),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(tmp_path, monkeypatch, script, gpus, card):
    smi(tmp_path, monkeypatch, script)
    found = list_gpus()
    known, words = known_card()
    assert (
        len(found) == gpus
        and known == card
        and ("not in the table" in words) is ("Quadro" in script)
        and all(8 < memory < 90 for _, memory in found)
    )
    list_gpus.cache_clear()


@pytest.mark.parametrize(
    "name, card",
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400 4GB", None),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name, card):
    assert find_card(name) == card


def test_jobs_are_as_many_as_snakemake_counts(tmp_path):
    from collections import Counter

    import yaml

    from fairparse.workflow.engine import workflow_command
    from fairparse.workflow.plan import plan_run
    from fairparse.workflow.profiles import computing_stages

    record, _ = plan_run("ci")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(record))
    counted = Counter(job.stage for job in plan(workflow_command(tmp_path, 2, None, True)))
    assert {stage: n for stage, n in counted.items() if stage in computing_stages()} == {
        stage: job_count(stage, record) for stage in computing_stages() if stage in record["stages"]
    }


def test_costs_of_a_whole_run():
    paper, sample = load_profile("paper"), load_profile("sample")
    rows = {row["stage"]: row for row in profile_costs(paper, list(workflow_stages()))}
    assert rows["train"]["jobs"] == 15 and rows["train"]["gpu_hours_low"] == pytest.approx(
        15 * gpu_hours("train", paper)[0]
    )
    assert (
        rows["controlnet"]["ram_gb"] == 64
        and rows["train"]["ram_gb"] == 32
        and rows["prepare"]["gpu_gb"] == 0
        and "table1" not in rows
    )
    tenth = {row["stage"]: row for row in profile_costs(paper, list(workflow_stages()), 3000)}
    assert tenth["prepare"]["disk_gb_high"] == pytest.approx(rows["prepare"]["disk_gb_high"] / 10)
    assert [row["stage"] for row in profile_costs(sample, ["prepare", "table1"])] == ["prepare"]


# bounds and the page in the terminal


def test_bounds_hold_for_known_schedules():
    def jobs(*edges):
        return [Job("train", list(i), [o]) for i, o in edges]

    chain = jobs(((), "a"), (("a",), "b"), (("b",), "c"))
    assert bound_time(chain, {"train": 10}, 4) == (30, 7.5 + 22.5), (
        "a chain gains nothing from cores"
    )
    wide = jobs(*(((), str(k)) for k in range(8)))
    assert bound_time(wide, {"train": 10}, 4)[0] == 20 and bound_time(wide, {"train": 10}, 1) == (
        80,
        80,
    )
    assert bound_time([], {}, 2) == (0, 0)


def test_page_of_a_demo_run(published, run, capsys):
    jobs = [
        Job(
            "train",
            [],
            [f"20_parsers/linear/seed{k}/20_train_parser.ipynb"],
            ["Code has changed since last execution"],
        )
        for k in (0, 1, 2)
    ] + [
        Job("table1", ["x"], ["t.csv"], ["Input files updated by another job"]),
        Job("gan", [], ["g"], ["Missing output files"]),
    ]
    print_plan(jobs, load_profile("demo"), "demo", run, cores=2)
    printed = capsys.readouterr().out
    assert (
        "5 jobs would run" in printed
        and "estimates" in printed
        and "on 2 cores, from times measured in: this folder; "
        "not counted, because nobody measured them: gan"
        in printed
    )
    assert (
        "code has changed since last execution: train (2 of 3 there now)" in printed
        and "follows from what it reads: table1" in printed
        and "GB" in printed
    )


def test_page_of_the_paper_profile(capsys):
    print_plan(
        [Job("train", [], ["a"], ["Missing output files"]), Job("table1", ["a"], ["b"], [])],
        load_profile("paper"),
        "paper",
        "outputs/nowhere",
        cores=8,
    )
    printed = capsys.readouterr().out
    assert (
        "of GPU time on" in printed
        and "from a formula" in printed
        and "11_space" in printed
        and "memory: 32 GB for a job" in printed
    )
    named = re.findall(r"\w+\.ipynb", printed)
    assert len(named) >= 2
    assert not set(named) - {path.name for path in (ROOT / "nbs").rglob("*.ipynb")}
    print_plan(
        [Job("train", [], ["a"], []), Job("controlnet", [], ["b"], [])],
        load_profile("paper"),
        "paper",
        "outputs/nowhere",
        cores=8,
    )
    assert "memory: 64 GB for the largest job (controlnet)" in capsys.readouterr().out


def test_page_when_nothing_is_known_or_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(costs, "published_costs", lambda: None)
    print_plan([Job("train", [], ["a"], [])], load_profile("demo"), "demo", tmp_path, cores=2)
    print_plan([], load_profile("demo"), "demo", tmp_path, cores=2)
    printed = capsys.readouterr().out
    assert "nobody measured it" in printed and "nothing to do" in printed


def test_work_is_positive_and_monotone():
    own = {"epochs": 2, "count": 10, "size": 8}
    assert (
        job_work("classifier", own, 5, 4) * 2 == job_work("classifier", {**own, "epochs": 4}, 5, 4)
        and job_work("table1", {}, 5, 4) == 1
    )
