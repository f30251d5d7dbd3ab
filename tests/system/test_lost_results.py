"""Every file that a run leaves is missed when it is lost, and made again, it and what stands on it

A small run of the real notebooks, from which files are taken away one kind after the other."""

import re
import shutil
import subprocess

import pytest
import yaml
from conftest import ROOT, command_line, fairparse, write_notebook

from fairparse.core.runs import hash_file
from fairparse.workflow.costs import plan
from fairparse.workflow.engine import lost_files, workflow_command

RUN = (
    *("--profile", "ci", "--cores", 2, "--set", "objectives=[single,linear]"),
    *("--set", "beyond_swept=[]", "--set", "beyond=[]"),
    *("--set", "sweep.perturbations=[blur]", "--set", "sweep.severities=[0.5]"),
    *("--stages", "prepare", "train", "sweep", "gaps", "figure3", "figure4"),
)
# what is not missed: what a job goes on from, the engine's own, logs, and what each run writes anew
KEPT = re.compile(r"(.*/)?(\..*|checkpoint/.*|samples/.*|[^/]*\.ipynb)|profile.yaml|report.html")


def command(out, *options):
    return command_line("reproduce", *RUN, "--out", out, *options)


def run(out):
    done = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("lost") / "run"
    run(out)
    return out


@pytest.fixture
def out(finished, tmp_path):
    "A copy of the finished run, at the place where it was made: Snakemake knows it by its path"
    kept = tmp_path / "kept"
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    shutil.move(kept, finished)


def files(out):
    "All files of a run that are its results, below its folder"
    found = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return sorted(name for name in found if not KEPT.fullmatch(name))


def hashes(out):
    return {name: hash_file(out / name) for name in files(out)}


def planned(out):
    "stage -> jobs that the same command would run now"
    record = yaml.safe_load((out / "profile.yaml").read_text())
    (out / "plan.yaml").write_text(yaml.safe_dump(record))
    jobs = plan(workflow_command(out, 2, None, True))
    (out / "plan.yaml").unlink()
    return {job.stage: sum(other.stage == job.stage for other in jobs) for job in jobs}


def test_every_file_is_declared_or_named_in_a_record(out):
    "So that none of them can be lost without being missed, whichever it is"
    record = yaml.safe_load((out / "profile.yaml").read_text())
    (out / "plan.yaml").write_text(yaml.safe_dump(record))
    jobs = plan([*workflow_command(out, 2, None, True), "--forceall"])
    (out / "plan.yaml").unlink()
    declared = {output for job in jobs for output in job.outputs}
    assert "20_parsers/single/seed0/model.safetensors" in declared
    assert declared <= {*files(out)}

    others = [name for name in files(out) if name not in declared]
    assert "30_sweep/single/seed0/settings/blur_0.5.parquet" in others
    for name in others:
        (out / name).rename(out / "aside")
        assert [name] in lost_files(out, record).values(), f"nobody would miss {name}"
        (out / "aside").rename(out / name)
    assert lost_files(out, record) == {} and planned(out) == {}


AFTER_TRAINING = {"train": 1, "sweep": 1, "gaps": 1, "figure3": 1, "figure4": 1}
LOST = {
    "figures/figure4_fairness.csv": {"figure4": 1},
    "tables/fairness_disparity.csv": {"gaps": 1},
    "20_parsers/single/seed0/model.safetensors": AFTER_TRAINING,
    "20_parsers/linear/seed0/best.safetensors": AFTER_TRAINING,
    "30_sweep/single/seed0/settings/blur_0.5.parquet": {"sweep": 1, "figure3": 1},
    "30_sweep/single/seed0/sweep.json": {"sweep": 1, "figure3": 1},
    "10_faces/images.npy": {
        **{"prepare": 1, "train": 2, "sweep": 2},
        **{"gaps": 1, "figure3": 1, "figure4": 1},
    },
}


def test_a_lost_file_runs_its_stage_and_those_after_it(out):
    for name, jobs in LOST.items():
        (out / name).rename(out / "aside")
        assert planned(out) == jobs, name
        (out / "aside").rename(out / name)
    assert planned(out) == {}


@pytest.mark.parametrize(
    "names",
    [
        ["figures/figure4_fairness.csv", "tables/fairness_disparity.csv"],
        [name for name in LOST if name.startswith(("20_", "30_"))],
        ["10_faces/images.npy", "10_faces/index.parquet"],
    ],
    ids=["tables", "weights and settings", "faces"],
)
def test_what_is_lost_is_made_again_as_it_was(out, names):
    "The same command, once; nothing is trained a second time"
    before = hashes(out)
    checkpoints = {path: path.stat().st_mtime_ns for path in out.rglob("state.pt")}
    for name in names:
        (out / name).unlink()
    done = run(out)
    if any("sweep.json" in name for name in names):
        assert "missing, to be made again: 30_sweep/single/seed0/" in done.stdout
    after = hashes(out)
    same = re.compile(r".*\.(npy|safetensors|csv)|.*/(counts|index|blur_0\.5)\.parquet")
    differs = [name for name in before if before[name] != after.get(name)]
    assert after.keys() == before.keys()
    assert not [name for name in differs if same.fullmatch(name)], differs
    assert checkpoints == {path: path.stat().st_mtime_ns for path in out.rglob("state.pt")}
    assert planned(out) == {}


def test_a_failed_training_keeps_what_it_goes_on_from(out):
    "Snakemake deletes the declared files of a job that fails; no checkpoint is among them"
    options = ("--set", "train.epochs=3", "--set", "train.lr=1e30")
    done = subprocess.run(command(out, *options), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    for objective in ("single", "linear"):
        assert (out / "20_parsers" / objective / "seed0" / "checkpoint" / "state.pt").is_file()
    run(out)
    assert planned(out) == {}


CELLS = {
    "a table": (
        'out = "t.csv"\na = 0',
        "open(out, 'w').write(f'b\\n{a}\\n')\nopen(out + '.note', 'w').write('c')",
    ),
    "a folder": (
        'out = "folder"\na = 0',
        "import json\nfrom pathlib import Path\nPath(out).mkdir(parents=True, exist_ok=True)\n"
        "for name in ('run.json', 'weights.npy'):\n"
        "    (Path(out) / name).write_text(json.dumps({'b': a}))",
    ),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_point_of_a_sweep_that_lost_a_file_runs_again(tmp_path, kind):
    path = write_notebook(tmp_path / "20_toy.ipynb", *CELLS[kind])
    words = ("sweep", path, "-g", "a=1,2", "--out", tmp_path / "sweep", "--cores", 1)
    assert fairparse(*words).returncode == 0
    left = [file for file in (tmp_path / "sweep" / "a=1").iterdir()]
    assert len(left) == 3
    for file in left:
        table = (tmp_path / "sweep" / "results.csv").read_text()
        file.unlink()
        listed = fairparse(*words, "--dry-run")
        assert re.findall(r"^Job \d+: (.*)$", listed.stdout, re.MULTILINE)[:1] == ["a=1"]
        assert "a=2" not in re.findall(r"^Job \d+: (.*)$", listed.stdout, re.MULTILINE)
        done = fairparse(*words)
        assert done.returncode == 0 and "failed" not in done.stderr, done.stderr
        assert file.is_file() and (tmp_path / "sweep" / "results.csv").read_text() == table
    assert "Nothing to be done" in fairparse(*words, "--dry-run").stdout
