"""Faults on the real notebooks of the Table I part of the graph, small

Kills, a full disk, a read-only folder, two runs in one folder, no memory. What a toy graph can show
is in test_workflow.py. `python tests/faults.py --kills 20` kills runs of the whole graph.
"""

import os
import shutil
import subprocess
import sys
import time

import faults
import pandas as pd
import psutil
import pytest
from cli_helpers import wait_until
from conftest import ROOT, command_line, fairparse, write_notebook

from fairparse.workflow.compare import compare_folders, describe_comparison

TABLE1 = (
    "--profile",
    "ci",
    "--stages",
    "table1",
    "--set",
    "objectives=[single,linear]",
    "--set",
    "beyond_swept=[]",
    "--set",
    "beyond=[]",
)  # the part of the graph, in two minutes of one core at most


def command(out, *options):
    return command_line("reproduce", *TABLE1, "--cores", 2, "--out", out, *options)


def assert_equal(first, second):
    found = compare_folders(first, second)
    assert found.files > 12 and not len(found.differences), describe_comparison(found)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    "A run that nobody disturbed"
    out = tmp_path_factory.mktemp("reference") / "run"
    done = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no warm kernel" not in done.stderr, done.stderr
    return out


def test_kernels_that_import_packages_themselves_give_the_same(reference, tmp_path):
    cold = command(tmp_path / "run", "--cold")
    done = subprocess.run(cold, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal(reference, tmp_path / "run")


def test_the_same_seed_gives_the_same_numbers_and_a_second_run_disturbs_nothing(
    reference, tmp_path
):
    first = subprocess.Popen(
        command(tmp_path / "run"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (tmp_path / "run" / "profile.yaml").exists() and first.poll() is None:
            time.sleep(0.1)
        second = subprocess.run(
            command(tmp_path / "run"), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (
            second.returncode == 2
            and second.stderr.startswith("error: another `fairparse` run is working in")
            and "--out" in second.stderr
        ), second.stderr
        assert first.poll() is None
        _, message = first.communicate(timeout=400)
    finally:
        if first.poll() is None:
            first.terminate()
    assert first.returncode == 0, message
    assert_equal(reference, tmp_path / "run")


@pytest.mark.skipif(
    sys.platform != "linux", reason="runs are watched by inotify, which only Linux has"
)
def test_three_kills(reference, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tests" / "faults.py",
            "--kills",
            "3",
            "--runs",
            "1",
            "--seed",
            "5",
            "--cores",
            "2",
            *TABLE1,
            "--reference",
            reference,
            "--out",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = pd.read_csv(tmp_path / "kills.csv")
    assert (
        len(kills) == 3
        and kills.victim.nunique() == 3
        and (kills.aimed != "any").sum() == 2
        and not kills.orphans.any()
        and kills.broken.isna().all()
    ), kills.to_string()
    assert "results equal in all runs" in done.stdout


DISK = """
set -u
cd {root}
mkdir -p {at}/disk && mount -t tmpfs -o size=200k none {at}/disk || exit 77
step() {{ # NAME COMMAND...
  local name=$1; shift
  "$@" >{at}/$name.out 2>{at}/$name.err
  echo $? >{at}/$name.code
  cp -r {at}/disk {at}/$name
}}
step tiny {command}
mount -o remount,size={size} {at}/disk
step full {command}
mount -o remount,size=1g {at}/disk
step roomy {command}
mount -o remount,ro {at}/disk
step readonly {command} --set train.epochs=3
"""


@pytest.fixture(scope="module")
def disk(reference, tmp_path_factory):
    """The same command four times on a disk of its own

    Much too small, too small, large enough, read-only; name -> exit code, what it said, a copy
    of the folder."""
    if (
        not shutil.which("unshare")
        or os.geteuid()
        or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    ):
        pytest.skip(
            "a file system of its own needs root and unshare (or a container that may mount)"
        )
    at = tmp_path_factory.mktemp("disk")
    size = (
        sum(
            path.stat().st_size
            for path in (reference / "20_parsers" / "linear").rglob("*")
            if path.is_file()
        )
        * 2
        // 3
    )
    script = DISK.format(
        root=ROOT,
        at=at,
        size=size,
        command=" ".join(f"'{part}'" for part in command(at / "disk" / "run")),
    )
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=900
    )
    if done.returncode == 77:
        pytest.skip(f"no file system could be mounted: {done.stderr}")
    return {
        name: (
            int((at / f"{name}.code").read_text()),
            (at / f"{name}.out").read_text() + (at / f"{name}.err").read_text(),
            at / name / "run",
        )
        for name in ("tiny", "full", "roomy", "readonly")
    }


def test_a_full_disk_is_named_and_nothing_half_written_stays(disk):
    for name in ("tiny", "full"):
        code, message, folder = disk[name]
        assert code in (1, 2) and "no space left on the device; free some space" in message, message
        assert "Traceback" not in message, message
        assert not faults.broken_files(folder)
    assert (
        "goes on from there" in disk["full"][1]
        and (disk["full"][2] / "10_faces" / "run.json").is_file()
    )
    assert not (disk["full"][2] / "tables").exists()


def test_with_more_room_the_same_command_goes_on(disk, reference):
    code, message, folder = disk["roomy"]
    assert code == 0, message
    assert_equal(reference, folder)
    record = (
        "10_faces/run.json"  # which tells when it was made: the faces of the run before were kept
    )
    assert (folder / record).read_bytes() == (disk["full"][2] / record).read_bytes()


def test_a_read_only_folder_is_named_before_anything_runs(disk, reference):
    code, message, folder = disk["readonly"]
    assert (
        code == 2
        and "the file system is read-only; choose another output folder" in message
        and "Traceback" not in message
    ), message
    assert_equal(reference, folder)


@pytest.mark.parametrize(
    "cell",
    [
        (
            "import resource, numpy as np\n"
            "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\nnp.ones(2**32)"
        ),
        (
            "import resource, torch\nresource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))\n"
            "torch.ones(2**38)"
        ),
        "import os; os.kill(os.getpid(), 9)",
    ],
    ids=["numpy", "torch", "killed by the system"],
)
def test_no_memory_is_named_with_a_way_on(tmp_path, cell):
    path = write_notebook(tmp_path / "20_toy.ipynb", "epochs = 1", cell)
    done = fairparse("run", path, tmp_path / "log.ipynb")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert (
        "memory r" in done.stderr
        and "a smaller batch_size" in done.stderr
        and "the same command goes on" in done.stderr
    ), done.stderr
    assert (tmp_path / "log.failed.ipynb").is_file() and not (tmp_path / "log.ipynb").exists()
    assert not [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="a process ends with its parent on Linux alone")
def test_a_job_whose_starter_is_gone_does_not_begin():
    "A process that asks to end with its parent after the parent has ended already"
    code = (
        "import os, time\nfrom fairparse.core.runs import die_with_parent\n"
        "die_with_parent({parent})\nprint('began')"
    )
    run = lambda parent: subprocess.run(
        [sys.executable, "-c", code.format(parent=parent)], cwd=ROOT, capture_output=True, text=True
    )
    assert run("os.getppid()").stdout == "began\n"
    gone = run("os.getppid() + 1")
    assert gone.returncode == -9 and gone.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="a process ends with its parent on Linux alone")
def test_a_worker_that_was_only_just_started_does_not_outlive_the_run(toy_root):
    run = subprocess.Popen(
        command_line(*"reproduce --profile toy --cores 1 --stages prepare".split()),
        cwd=toy_root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers = []
    while not workers and run.poll() is None:
        workers = faults.family(run)["worker"]
    run.kill()
    run.wait()
    assert workers and wait_until(lambda: not faults.alive(workers), 30)
    assert not (
        toy_root / "outputs" / "toy" / "10_faces" / "run.json"
    ).exists()  # the job did not go on behind the next run's back


def test_what_a_killed_save_of_a_controlnet_left_is_taken_away(tmp_path):
    from diffusion_helpers import micro_base, micro_controlnet, purpose_of

    from fairparse.diffusion.controlnet import save_controlnet

    base = micro_base()
    (tmp_path / ".saving-killed").mkdir()
    (tmp_path / ".saving-killed" / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    save_controlnet(micro_controlnet(base), tmp_path, purpose_of(base, "micro"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "controlnet.json",
        "diffusion_pytorch_model.safetensors",
    ]
