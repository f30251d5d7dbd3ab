"""The graph of jobs, in a toy repository with the real Snakefile

What runs again, what survives a fault, who owns a folder.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from cli_helpers import celeba, wait_until
from conftest import ROOT, command_line, fairparse, write_notebook

from fairparse.workflow.fingerprints import code_fingerprint, notebook_sources

BASE = ("prepare", "train", "table1", "table3", "figure2")  # the toy has content for these


def reproduce(root, *options):
    stages = () if "--stages" in options else ("--stages", *BASE)
    return fairparse("reproduce", "--profile", "toy", "--cores", 2, *options, *stages, cwd=root)


def planned(root, *options):
    "Number of jobs of each stage that would run"
    done = reproduce(root, "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    jobs = {
        rule: int(count)
        for rule, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE)
        if rule not in ("all", "total")
    }
    assert jobs or "Nothing to be done" in text, text
    return jobs


def test_each_result_asks_for_what_it_needs(toy_root):
    train, sweep = {"prepare": 1, "train": 2}, {"prepare": 1, "train": 2, "sweep": 2}
    for stage in ("gaps", "figure4", "intersections"):
        assert planned(toy_root, "--stages", stage) == {**train, stage: 1}
    for stage in ("corruption_error", "figure3", "figure5"):
        assert planned(toy_root, "--stages", stage) == {**sweep, stage: 1}
    refused = reproduce(toy_root, "--stages", "study")
    assert refused.returncode == 2 and "no section 'study'" in refused.stderr
    whole = fairparse("reproduce", "--profile", "toy", "--dry-run", cwd=toy_root)
    assert (
        whole.returncode == 0
        and "figure5" in whole.stdout + whole.stderr
        and "study" not in whole.stdout + whole.stderr
    )
    edit(
        toy_root / "nbs" / "workflow" / "profiles" / "toy.yaml",
        "seeds: [0, 1]",
        "seeds: [0, 1]\nstudy: {}",
    )
    assert planned(toy_root, "--stages", "study") == {**sweep, "study": 1}


def test_generators_are_trained_where_the_profile_asks_for_them(toy_root):
    profile = toy_root / "nbs" / "workflow" / "profiles" / "toy.yaml"
    assert "gan" not in planned(toy_root)
    refused = reproduce(toy_root, "--stages", "table2")
    assert (
        refused.returncode == 2 and "no section 'gan', which stage 'table2' needs" in refused.stderr
    )
    edit(profile, "seeds: [0, 1]", "seeds: [0, 1]\ngan: {}\nscore: {perceptual: lpips_alex}")
    painted = {
        "prepare": 1,
        "train": 2,
        "gan": 4,
        "score": 2,
    }  # own and shared, for each seed; the objective's maps and the true ones
    for stage in ("table2", "table4", "figure6"):
        assert planned(toy_root, "--stages", stage) == {**painted, stage: 1}
    assert planned(toy_root, "--stages", "score", "--set", "shared_seeds=[0,1,2]") == {
        **painted,
        "gan": 5,
    }
    fewer = ("--set", "seeds=[0,1,2]", "--set", "generator_seeds=[0,1]")
    assert planned(toy_root, "--stages", "score", *fewer) == painted  # of the parsers, two suffice
    for wrong, said in {
        "shared_seeds=[1,2]": "must begin with the generators' seeds",
        "generator_seeds=[1]": "must be the first of the seeds",
    }.items():
        done = reproduce(toy_root, "--dry-run", "--set", wrong)
        assert done.returncode != 0 and said in done.stdout + done.stderr


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_only_what_depends_on_a_change_runs_again(toy_root):
    tables = {"table1": 1, "table3": 1}
    results = {**tables, "figure2": 1}
    everything = {"prepare": 1, "train": 2, **results}
    assert planned(toy_root) == everything
    assert planned(toy_root, "--stages", "train") == {"prepare": 1, "train": 2}
    done = reproduce(toy_root)
    assert done.returncode == 0, done.stderr
    out = toy_root / "outputs" / "toy"
    assert "report.html" in done.stdout and "done in" in done.stdout
    assert [p.name for p in sorted((out / "notebooks").iterdir())] == [
        "80_table1_objectives.ipynb",
        "80_table3_class_iou.ipynb",
        "85_figure2_schedules.ipynb",
    ]
    assert (out / "10_faces" / "10_prepare.ipynb").is_file() and (
        out / "20_parsers" / "single" / "seed1" / "20_train_parser.ipynb"
    ).is_file()
    # the parameters that a run records are relative to the repository: results do not name the
    # machine they were made on
    log = json.loads(
        (out / "20_parsers" / "single" / "seed1" / "20_train_parser.ipynb").read_text()
    )["metadata"]["papermill"]["parameters"]
    assert log == {
        "epochs": 1,
        "fold": -1,
        "objective": "single",
        "seed": 1,
        "threads": 1,
        "out": "outputs/toy/20_parsers/single/seed1",
        "faces": "outputs/toy/10_faces",
    }

    before = {p: p.stat().st_mtime_ns for p in out.rglob("run.json")}
    assert reproduce(toy_root).returncode == 0 and before == {
        p: p.stat().st_mtime_ns for p in out.rglob("run.json")
    }
    # parameters
    assert planned(toy_root, "--set", "train.epochs=2") == {"train": 2, **results}
    assert planned(toy_root, "--set", "table1.digits=3") == {"table1": 1}
    assert planned(toy_root, "--set", "seeds=[0,1,2]") == {"train": 1, **tables}
    assert planned(toy_root, "--set", "cross_validation=true", "--set", "prepare.folds=3") == {
        "prepare": 1,
        "train": 2,
        **results,
    }
    # code: dates, comments, prose and stored outputs do not count; what the interpreter sees does
    package, paper = toy_root / "fairparse", toy_root / "nbs" / "paper"
    for path in (*package.glob("*.py"), *paper.glob("*.ipynb")):
        path.write_bytes(path.read_bytes())
    edit(package / "toy_train.py", "def make", "# a comment\ndef make")
    edit(
        paper / "20_train_parser.ipynb",
        '"outputs": []',
        '"outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}]',
    )
    assert planned(toy_root) == {}
    edit(package / "toy_tables.py", "write", "write, json")
    assert planned(toy_root) == results
    edit(package / "toy_tables.py", "write, json", "write")
    edit(package / "toy_train.py", "json.dumps(record)", "json.dumps(record) + ' '")
    assert planned(toy_root) == {"train": 2, **results}
    edit(package / "toy_train.py", "json.dumps(record) + ' '", "json.dumps(record)")
    edit(package / "toy_files.py", "write_text(text)", "write_text(str(text))")
    assert planned(toy_root) == everything


def test_modules_that_a_notebook_imports(tmp_path):
    package = tmp_path / "fairparse"
    (package / "sub").mkdir(parents=True)
    for name, code in {
        "a": "from .b import x",
        "b": "def f():\n    import fairparse.c as c",
        "c": "from . import d, absent",
        "d": "",
        "e": "",
        "sub/g": "",
        "__init__": "",
    }.items():
        (package / f"{name}.py").write_text(code)
    path = write_notebook(
        tmp_path / "20_toy.ipynb",
        "x = 1",
        "%matplotlib inline\nfrom fairparse.a import y\nimport numpy",
        "from fairparse import sub\nfrom fairparse.sub import g",
    )
    assert [str(p.relative_to(package)) for p in notebook_sources(path, package)] == [
        "a.py",
        "b.py",
        "c.py",
        "d.py",
        "sub/g.py",
    ]


def test_relative_imports_of_every_level_are_followed(tmp_path):
    "A module of a room that dropped out of the fingerprint would leave stale results in place"
    package = tmp_path / "fairparse"
    for name, code in {
        "core/__init__": "",
        "core/runs": "",
        "data/__init__": "",
        "data/labels": "from ..core.runs import x",
        "data/show": "",
        "core/show": "",
        "data/sets/__init__": "from . import deep",
        "data/sets/deep": "from ..labels import x\nfrom ... import data",
        "__init__": "__version__ = '1'",
        "train": "def f():\n    from .data import show\n    from .data.sets import y",
    }.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    notebook = write_notebook(tmp_path / "20_toy.ipynb", "x = 1", "from fairparse.train import f")
    found = [str(p.relative_to(package)) for p in notebook_sources(notebook, package)]
    assert found == [
        "core/__init__.py",
        "core/runs.py",
        "data/__init__.py",
        "data/labels.py",
        "data/sets/__init__.py",
        "data/sets/deep.py",
        "data/show.py",
        "train.py",
    ]
    before = code_fingerprint(notebook, package)
    (package / "core" / "runs.py").write_text("x = 2")
    assert code_fingerprint(notebook, package) != before


def test_assets_that_a_module_names_count_as_code(tmp_path):
    "A claim or a template that was changed makes what stands on it again"
    package = tmp_path / "fairparse"
    for name, text in {
        "a.py": 'CLAIMS = asset("claims", "one.yaml")\nCARDS = asset("cards")\nasset(CLAIMS)',
        "assets/claims/one.yaml": "1",
        "assets/claims/two.yaml": "2",
        "assets/cards/deep/card.md": "3",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    notebook = write_notebook(tmp_path / "20_toy.ipynb", "x = 1", "import fairparse.a")

    def changed(name):
        before = code_fingerprint(notebook, package)
        (package / "assets" / name).write_text("another")
        return code_fingerprint(notebook, package) != before

    assert changed("claims/one.yaml")
    assert changed("cards/deep/card.md")
    assert not changed("claims/two.yaml")


def test_a_line_that_begins_with_an_operator_is_code(tmp_path):
    "`%` and `!=` begin lines of wrapped expressions, not only magics"

    def fingerprint(*cells):
        return code_fingerprint(write_notebook(tmp_path / "20_toy.ipynb", "x = 1", *cells), package)

    package = tmp_path / "fairparse"
    package.mkdir()
    (package / "a.py").write_text("")
    wrapped = "y = (\n    x\n    != {}\n)\nz = (\n    'a %s'\n    % y\n)"
    assert fingerprint(wrapped.format(1)) != fingerprint(wrapped.format(2))
    assert fingerprint("%matplotlib inline\ny = 1") != fingerprint("%matplotlib inline\ny = 2")
    timed = write_notebook(tmp_path / "21_toy.ipynb", "x = 1", "%%time\nimport fairparse.a", "!ls")
    assert [path.name for path in notebook_sources(timed, package)] == ["a.py"]


def test_a_fault_keeps_the_checkpoint_and_the_log(toy_root):
    done = reproduce(toy_root, "--stages", "train", "--set", "train.epochs=6", "--set", "seeds=[0]")
    folder = toy_root / "outputs" / "toy" / "20_parsers" / "single" / "seed0"
    assert done.returncode == 1 and "error: 6 epochs are too many: use 5" in done.stderr, (
        done.stderr
    )
    assert "goes on from there" in done.stderr and "Traceback" not in done.stderr
    assert (folder / "checkpoint" / "last").read_text() == "kept" and (
        folder / "20_train_parser.failed.ipynb"
    ).is_file()
    assert not (folder / "run.json").exists()
    done = reproduce(toy_root, "--stages", "train", "--set", "train.epochs=5", "--set", "seeds=[0]")
    assert (
        done.returncode == 0
        and (folder / "run.json").exists()
        and not (folder / "20_train_parser.failed.ipynb").exists()
    ), done.stderr


def threads_of_snakemake(process):
    "Now, over the descendants of a run; 0 if there is none (any more)"
    counts = [0]
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "snakemake" in child.cmdline():
                    counts.append(child.num_threads())
    return max(counts)


def test_snakemake_sets_no_timer_for_each_job_that_ended(toy_root):
    "Each would weigh all waiting jobs again every second (findings/snakemake_timers.sh)"
    words = "reproduce --profile toy --cores 1 --stages train --set train.wait=0.5"
    command = command_line(*words.split(), "--set", f"seeds={list(range(10))}")
    process, most = subprocess.Popen(command, cwd=toy_root), 0
    try:
        while process.poll() is None:
            most = max(most, threads_of_snakemake(process))
            time.sleep(0.1)
    finally:
        process.kill()
    assert process.returncode == 0
    assert 0 < most <= 6


def start_slow_run(root):
    """A run whose training waits, started in the background

    The process, once its kernel is in the waiting cell, and its descendants.
    """
    words = "reproduce --profile toy --cores 1 --stages train"
    command = command_line(*words.split(), "--set", "train.wait=300", "--set", "seeds=[0]")
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started = root / "outputs" / "toy" / "20_parsers" / "single" / "seed0" / "started"
    assert wait_until(started.exists, 60)
    return process, psutil.Process(process.pid).children(recursive=True)


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_one_run_a_folder_and_nothing_left_after_a_kill(toy_root):
    for signum in (signal.SIGKILL, signal.SIGTERM):
        process, family = start_slow_run(toy_root)
        try:
            names = [" ".join(p.cmdline()) for p in family]
            assert (
                any("snakemake" in n for n in names)
                and any("fairparse.cli run" in n for n in names)
                and any(p.name() == "warm-kernel" for p in family)
            )
            if signum == signal.SIGKILL:
                done = reproduce(toy_root)
                assert (
                    done.returncode == 2 and "another `fairparse` run is working in" in done.stderr
                ), done.stderr
        finally:
            os.kill(process.pid, signum)
        process.wait(30)
        assert wait_until(lambda: not alive(family), 10), [p.cmdline() for p in alive(family)]
        (toy_root / "outputs" / "toy" / "20_parsers" / "single" / "seed0" / "started").unlink()
    done = reproduce(toy_root, "--stages", "train", "--set", "seeds=[0]")
    assert done.returncode == 0, done.stderr


def test_bad_input_stops_before_anything_runs(toy_root):
    celeba(toy_root / "sets" / "faces")
    for options, word in (
        ((), "no --data was given"),
        (("--data", "nowhere"), "is not a folder"),
        (("--data", "sets"), "did you mean"),
        (("--cores", "0"), "1 or more"),
        (("--stages", "tabel1"), "did you mean 'table1'"),
        (("--data", "sets/faces", "--set", "train.epoch=1"), "did you mean 'epochs'"),
        (("--data", "sets/faces", "--out", "settings.ini/x"), "cannot write"),
    ):
        done = fairparse("reproduce", "--profile", "real", *options, cwd=toy_root)
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: ")
            and word in done.stderr
            and "Traceback" not in done.stderr
        ), (options, done.stderr)
    assert not (toy_root / "outputs").exists()


def test_real_data_and_what_lies_beside_it(toy_root):
    celeba(toy_root / "sets" / "faces")
    run = lambda *options: fairparse(
        "reproduce",
        "--profile",
        "real",
        "--data",
        "sets/faces",
        "--stages",
        "prepare",
        *options,
        cwd=toy_root,
    )
    done = run()
    assert done.returncode == 0 and "more was not found" in done.stdout, done.stderr
    record = lambda: json.loads(
        (toy_root / "outputs" / "real" / "10_faces" / "run.json").read_text()
    )
    assert record() == {"size": 8, "data": str(toy_root / "sets" / "faces"), "extra": []}
    for sub in ("images", "labels"):
        (toy_root / "sets" / "more" / sub).mkdir(parents=True)
        (toy_root / "sets" / "more" / sub / "a.png").touch()
    assert "more is added to training" in run().stdout
    assert record()["extra"] == [str(toy_root / "sets" / "more")]
    assert "Nothing to be done" in run("--dry-run").stdout
    (toy_root / "sets" / "more" / "images" / "b.png").touch()
    assert "Nothing to be done" not in run("--dry-run").stdout


def test_what_the_workflow_sets_itself_is_refused_in_a_profile(toy_root):
    done = reproduce(toy_root, "--dry-run", "--set", "train.seed=5")
    assert done.returncode != 0 and "the workflow sets itself" in done.stdout + done.stderr
    done = reproduce(toy_root, "--dry-run", "--set", "cross_validation=true")
    assert done.returncode != 0 and "needs 2 or more folds" in done.stdout + done.stderr


def test_profiles_of_the_repository_fit_its_notebooks():
    from fairparse.workflow import profiles

    names = sorted(p.stem for p in (ROOT / "nbs" / "workflow" / "profiles").glob("*.yaml"))
    assert names == [
        "ci",
        "demo",
        "demo_quick",
        "paper",
        "sample",
        "seeds",
        "study",
        "study_even",
        "study_plenty",
        "study_real",
    ]
    for name in names:
        assert profiles.load_profile(name)["objectives"][0] == "single"


def whole_package(root):
    "The toy with all of the package: its report is the real one"
    ignored = shutil.ignore_patterns("__pycache__", "tiny_*")
    shutil.copytree(ROOT / "fairparse", root / "fairparse", dirs_exist_ok=True, ignore=ignored)


def test_a_stage_is_added_as_the_contributing_page_says(toy_root):
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("\n## Add a stage\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (parameters, code), (record,) = (
        [text for kind, text in blocks if kind == wanted] for wanted in ("python", "yaml")
    )
    commands = next(text for kind, text in blocks if not kind).splitlines()
    notebook, file = re.findall(r"`(80_\w+)\.ipynb`|here `(\w+\.yaml)`", section)
    whole_package(toy_root)
    write_notebook(toy_root / "nbs" / "paper" / f"{notebook[0]}.ipynb", parameters, code)
    with open(toy_root / "fairparse" / "assets" / "stages" / file[1], "a") as records:
        records.write("\n" + record)

    planned, run = (shlex.split(line.replace("profile ci", "profile toy"))[1:] for line in commands)
    done = fairparse(*planned, cwd=toy_root)
    assert done.returncode == 0 and "training_times" in done.stdout, done.stderr
    done = fairparse(*run, "--cores", 2, "--set", "training_times.digits=2", cwd=toy_root)
    assert done.returncode == 0, done.stderr
    out = toy_root / "outputs" / "toy"
    table = (out / "tables" / "training_times.csv").read_text()
    assert table == "objective,seed,seconds\nsingle,0,1.25\nsingle,1,1.25\n"
    report = (out / "report.html").read_text()
    assert "How long each training took" in report
    assert "notebooks/80_training_times.ipynb" in report


@pytest.mark.parametrize(
    "name",
    ["20_parsers/single/seed0/model.safetensors", "10_faces/run.json", "10_faces/images.npy"],
)
def test_a_lost_file_behind_the_stage_that_is_asked_for_is_made_again(toy_root, name):
    words = "reproduce --profile toy --cores 2 --stages table3".split()
    assert fairparse(*words, cwd=toy_root).returncode == 0
    lost = toy_root / "outputs" / "toy" / name
    lost.unlink()
    done = fairparse(*words, cwd=toy_root)
    assert done.returncode == 0 and lost.is_file()
    assert f"missing, to be made again: {name}" in done.stdout
    again = fairparse(*words, "--dry-run", cwd=toy_root)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_ranks_are_of_the_groups_that_the_loop_compares(tmp_path):
    "The ci profile has three test faces a group: the ranks of the loop take its floor"
    words = (
        f"{sys.executable} -m snakemake -s {ROOT}/nbs/workflow/Snakefile --dry-run -p --cores 1 "
        f"--configfile {ROOT}/nbs/workflow/profiles/ci.yaml --directory {tmp_path} "
        "tables/rank_stability.csv"
    )
    done = subprocess.run(shlex.split(words), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (job,) = [line for line in done.stdout.splitlines() if "run --tied $PPID 80_rank" in line]
    given = json.loads(shlex.split(job)[-1])
    assert given["loop_min_size"] == 1 and given["severities"] == [0.1, 0.5]
