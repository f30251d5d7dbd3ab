"""The graph on a real Slurm: the same numbers as here, a fault is told and mended, a killed run's
jobs do not stay"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from cli_helpers import wait_until
from conftest import ROOT, command_line, fairparse

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "unshare", "nsenter")


def unmet():
    "Why there can be no Slurm here; empty if there can"
    if not hasattr(os, "geteuid") or os.geteuid():
        return "Slurm's daemons need root"
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)"
    refused = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--mount-proc",
            "true",
        ],
        capture_output=True,
        text=True,
    )
    return (
        f"namespaces are not allowed here: {refused.stderr.strip()}" if refused.returncode else ""
    )


class Cluster:
    "A running Slurm; `run` and `start` work inside"

    def __init__(self, folder, process):
        self.folder, self.process, self.inside = (
            folder,
            process,
            psutil.Process(process.pid).children()[0].pid,
        )

    def start(self, *command, cwd="/", **options):
        enter = [
            "nsenter",
            "--mount",
            "--pid",
            "--target",
            str(self.inside),
            "env",
            f"--chdir={cwd}",
        ]
        return subprocess.Popen([*enter, *map(str, command)], text=True, **options)

    def run(self, *command, cwd="/", timeout=900):
        process = self.start(*command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def fairparse(self, *arguments, cwd=ROOT):
        where = ["--cluster", self.folder / "profile"]
        return self.run(*command_line(*arguments, *where), cwd=cwd)

    def jobs(self):
        return self.run(
            "squeue", "--noheader", "--states", "PENDING,RUNNING,COMPLETING", "--format", "%i %j"
        ).stdout.splitlines()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := unmet():
        pytest.skip(reason)
    pytest.importorskip("snakemake_executor_plugin_slurm")
    folder = tmp_path_factory.mktemp("slurm")
    # the profile of the repository, in a hurry, and without accounts
    profile = yaml.safe_load(
        (ROOT / "nbs" / "workflow" / "clusters" / "slurm" / "config.yaml").read_text()
    )
    profile |= {
        "latency-wait": 10,
        "slurm-init-seconds-before-status-checks": 2,
        "slurm-status-command": "squeue",
    }
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    with open(folder / "cluster.out", "w") as log:
        process = subprocess.Popen(
            [ROOT / "tests" / "slurm_cluster.sh", folder, "sleep", "infinity"],
            stdout=log,
            stderr=log,
            env={**os.environ, "SLURM_TEST_PORT": str(20000 + os.getpid() % 10000)},
        )
    try:
        assert wait_until((folder / "ready").exists, 60), (folder / "cluster.out").read_text()
        yield Cluster(folder, process)
    finally:
        process.kill()
        process.wait(10)


def test_table_1_is_the_same_as_on_this_machine(cluster, tmp_path):
    """Faces, two trainings and the table, of the `ci` profile

    Four jobs on two nodes, each with a GPU of its own that exists by name only."""
    what = ["reproduce", "--profile", "ci", "--stages", "table1"]
    for setting in (
        "objectives=[single,linear]",
        "beyond_swept=[]",
        "beyond=[]",
        "prepare.count=24",
        "train.epochs=1",
        "resources.gpu=1",
        "threads.prepare=2",
    ):
        what += ["--set", setting]
    far, near = tmp_path / "far", tmp_path / "near"
    done = cluster.fairparse(*what, "--out", far)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"submitted with SLURM jobid", done.stdout + done.stderr)) == 4
    assert (
        subprocess.run(
            [sys.executable, "-m", "fairparse.cli", *what, "--out", str(near)],
            cwd=ROOT,
            capture_output=True,
            timeout=900,
        ).returncode
        == 0
    )
    for name in ("tables/table1_objectives.csv", "10_faces/images.npy", "10_faces/masks.npy"):
        assert (far / name).read_bytes() == (near / name).read_bytes(), name
    for objective in ("single", "linear"):
        parser = Path("20_parsers") / objective / "seed0"
        assert (far / parser / "model.safetensors").read_bytes() == (
            near / parser / "model.safetensors"
        ).read_bytes()
        pd.testing.assert_frame_equal(
            pd.read_parquet(far / parser / "counts.parquet"),
            pd.read_parquet(near / parser / "counts.parquet"),
        )


def test_a_job_that_fails_says_why_and_where_and_the_next_run_goes_on(cluster, toy_root):
    assert (
        fairparse("reproduce", "--profile", "toy", "--stages", "prepare", cwd=toy_root).returncode
        == 0
    )
    train = ("reproduce", "--profile", "toy", "--stages", "train", "--set", "seeds=[0]", "--set")
    done = cluster.fairparse(*train, "train.epochs=6", cwd=toy_root)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert (
        "error: 6 epochs are too many: use 5\nexecuted notebook: " in done.stderr
        and "goes on from there" in done.stderr
    )
    log = Path(re.search(r"^log of the job: (.*)$", done.stderr, re.MULTILINE)[1])
    assert "slurm_logs/rule_train" in str(log) and "6 epochs are too many" in log.read_text()
    out = toy_root / "outputs" / "toy"
    assert (out / "20_parsers" / "single" / "seed0" / "checkpoint" / "last").read_text() == "kept"
    faces = (out / "10_faces" / "run.json").stat().st_mtime_ns
    done = cluster.fairparse(*train, "train.epochs=5", cwd=toy_root)
    assert (
        done.returncode == 0 and (out / "20_parsers" / "single" / "seed0" / "run.json").is_file()
    ), done.stderr
    assert (out / "10_faces" / "run.json").stat().st_mtime_ns == faces


def test_a_killed_run_leaves_a_job_that_the_next_cancels_and_an_interrupted_one_leaves_none(
    cluster, toy_root
):
    assert (
        fairparse("reproduce", "--profile", "toy", "--stages", "prepare", cwd=toy_root).returncode
        == 0
    )
    resources = "resources={gpu: 1, mem_mb: 900, train: {runtime: 7, mem_mb: 901}}"
    settings = ["--set", "seeds=[0]", "--set", "train.wait=300", "--set", resources]
    where = ["--cluster", cluster.folder / "profile"]
    command = command_line(*"reproduce --profile toy --stages train".split(), *settings, *where)
    started = toy_root / "outputs" / "toy" / "20_parsers" / "single" / "seed0" / "started"
    first = None
    for signum in (signal.SIGKILL, signal.SIGTERM):
        with open(toy_root / "log", "w") as log:
            process = cluster.start(*command, cwd=toy_root, stdout=log, stderr=log)
        try:
            assert wait_until(started.exists, 240), (toy_root / "log").read_text()
            (job,) = cluster.jobs()
            description = cluster.run("scontrol", "show", "job", job.split()[0]).stdout
            for word in (
                "TresPerJob=gres:gpu:1",
                "TimeLimit=00:07:00",
                "MinMemoryNode=901M",
                "NumCPUs=1",
            ):
                assert word in description, description
            if first:
                assert job != first and f": {first.split()[0]}\n" in (toy_root / "log").read_text()
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                    if "reproduce" in child.cmdline():
                        child.send_signal(signum)
            process.wait(60)
        started.unlink()
        assert cluster.jobs() == (
            [job] if signum == signal.SIGKILL else []
        )  # Slurm does not see a run that was killed
        first = job


def test_where_there_is_no_slurm_it_is_said(toy_root, tmp_path):
    "On any machine, with or without Slurm"
    run = lambda cluster: fairparse(
        "reproduce",
        "--profile",
        "toy",
        "--stages",
        "train",
        "--cluster",
        cluster,
        cwd=toy_root,
        env={**os.environ, "PATH": "/usr/bin/nowhere"},
    )
    (tmp_path / "config.yaml").write_text("executor: slurm\n")
    for cluster, word in (
        ("slrum", "there is no cluster 'slrum'"),
        (tmp_path, "no `sbatch` here"),
        (tmp_path / "no", "there is no cluster"),
    ):
        done = run(cluster)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and word in done.stderr, (
            done.stderr
        )
    for text, word in (
        ("jobs: 3\n", "names no executor"),
        ("executor: wishful\n", "pip install snakemake-executor-plugin-wishful"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        done = run(tmp_path)
        assert done.returncode == 2 and word in done.stderr, done.stderr
