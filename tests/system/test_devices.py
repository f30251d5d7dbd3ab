"""Every job its own device: claims of several processes, what CUDA_VISIBLE_DEVICES says, one
training over two processes"""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, command_line, write_notebook
from helpers import make_faces

from fairparse.core.records import HISTORY, read_table
from fairparse.core.runs import InputError
from fairparse.workflow import engine
from fairparse.workflow.engine import claim_device, list_devices, own_device

CLAIM = (
    "import sys, time\nfrom fairparse.workflow.engine import claim_device\n"
    "device, slot = claim_device(sys.argv[2:], sys.argv[1])\nprint(device, flush=True)\n"
    "time.sleep(100)"
)


def claim(folder, *devices):
    "A process that claims a device and holds it; the process and the device"
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder), *devices],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_processes_get_different_devices_and_a_killed_one_frees_its_own(tmp_path, signum):
    claims = [claim(tmp_path / "slots", "GPU-a", "GPU-b") for _ in range(2)]
    try:
        assert sorted(device for _, device in claims) == ["GPU-a", "GPU-b"]
        second, device = claims[1]
        second.send_signal(signum)
        second.wait(10)
        claims.append(claim(tmp_path / "slots", "GPU-a", "GPU-b"))
        assert claims[-1][1] == device
    finally:
        for process, _ in claims:
            process.kill()
    for process, _ in claims:
        process.wait(10)


def test_without_a_free_device_the_least_shared_one_is_shared(tmp_path):
    held = [claim_device(["0", "1"], tmp_path) for _ in range(5)]
    assert [device for device, _ in held] == ["0", "1", "0", "1", "0"]
    held[3][1].close()
    assert claim_device(["0", "1"], tmp_path)[0] == "1"
    assert {path.name for path in tmp_path.iterdir()} == {"0.0", "1.0", "0.1", "1.1", "0.2"}


def test_devices_are_those_that_this_process_may_use(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        (
            "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1a-b)'\n"
            "echo 'GPU 1: NVIDIA H200 (UUID: GPU-2c-d)'\n"
        )
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list_devices() == ["GPU-1a-b", "GPU-2c-d"]
    smi.write_text(
        (
            "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1a-b)'\n"
            "echo '  MIG 1g.18gb Device 0: (UUID: MIG-x)'\n"
            "echo '  MIG 1g.18gb Device 1: (UUID: MIG-y)'\n"
        )
    )
    assert list_devices() == ["MIG-x", "MIG-y"]
    for value, devices in (
        ("", []),
        ("-1", []),
        ("3", ["3"]),
        ("0, 2", ["0", "2"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert list_devices() == devices and engine.count_gpus() == len(devices)


def test_a_device_is_dealt_out_only_where_there_is_a_choice(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "SLOTS", str(tmp_path / "slots"))
    monkeypatch.setattr(engine.claim_device, "__defaults__", (str(tmp_path / "slots"),))
    for visible, parameters, expected in (
        ("0,1", {"device": "auto"}, "0"),
        ("0,1", {"device": "cuda"}, "0"),
        ("0,1", {"device": "cpu"}, None),
        ("0,1", {"device": "cuda:1"}, None),
        ("0,1", {"epochs": 1}, None),
        ("1", {"device": "auto"}, None),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with own_device(parameters) as device:
            assert device == expected and os.environ["CUDA_VISIBLE_DEVICES"] == (
                expected or visible
            )
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*file/slots"):
        claim_device(["0", "1"], tmp_path / "file" / "slots")


def test_two_notebooks_side_by_side_see_different_devices(tmp_path):
    "The whole way: two `fairparse run` at a time, with two devices that exist by name only"
    notebook = write_notebook(
        tmp_path / "20_toy.ipynb",
        'out = ""\ndevice = "auto"',
        (
            "import os, time\nfrom pathlib import Path\n"
            "Path(out).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
            "while len(list(Path(out).parent.glob('*.txt'))) < 2: time.sleep(0.05)"
        ),
    )
    names = [f"pretended-{os.getpid()}-{letter}" for letter in "ab"]
    env = {
        **{key: value for key, value in os.environ.items() if key != "SLURM_JOB_ID"},
        "CUDA_VISIBLE_DEVICES": ",".join(names),
    }
    runs = [
        subprocess.Popen(
            command_line(
                *("run", notebook, tmp_path / f"{number}.ipynb"),
                *("-p", "out", tmp_path / f"{number}.txt"),
            ),
            cwd=ROOT,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for run in runs:
            assert run.wait(120) == 0, run.stderr.read()
    finally:
        for run in runs:
            run.kill()
        for name in names:
            for path in engine.Path(engine.SLOTS).glob(f"{name}.*"):
                path.unlink()
    assert {(tmp_path / f"{number}.txt").read_text() for number in range(2)} == set(names)


def test_the_script_on_the_page_trains_over_two_processes(tmp_path):
    "What workflow.engine tells a user to write, with small values, on CPUs"
    page = "\n".join(
        "".join(cell["source"])
        for cell in json.loads(
            (ROOT / "nbs" / "lib" / "90_workflow" / "05_engine.ipynb").read_text()
        )["cells"]
    )
    script = re.search(r"```python\n(# script.py\n.*?)```", page, re.DOTALL)[1]
    faces = make_faces(tmp_path / "faces", 18, train=12)
    for old, new in (
        ("outputs/paper/10_faces", str(faces.folder)),
        (
            '"resnet34", "imagenet", [256, 128, 64, 32, 16], size=256',
            '"tu-mobilenetv3_small_050", "none", [16, 16, 8, 8, 8], size=32',
        ),
        ("batch_size=64", "batch_size=4, epochs=2"),
        ("outputs/large", str(tmp_path / "large")),
        ('device="cuda"', 'device="cpu"'),
    ):
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    (tmp_path / "script.py").write_text(
        script + """\nimport os\nopen("{WORLD_SIZE}.{RANK}".format(**os.environ), "w").close()\n"""
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        tmp_path / "script.py",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    history = read_table(tmp_path / "large" / "history.parquet", HISTORY)
    assert (
        sorted(path.name for path in tmp_path.glob("2.*")) == ["2.0", "2.1"]
        and len(history) == 2
        and history.loss.notna().all()
        and (tmp_path / "large" / "model.safetensors").is_file()
    )
