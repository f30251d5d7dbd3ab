"Runs: writes that are complete or absent, locks, seeds, types"

import dataclasses
import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_python

from fairparse.core import runs
from fairparse.core.runs import (
    InputError,
    Run,
    atomic_write,
    check_types,
    code_version,
    find_root,
    fix_randomness,
    hash_file,
    package_versions,
    pick_device,
    processor,
    read_json,
    resolve,
    write_json,
)


def test_atomic_write_replaces_only_when_it_succeeds(tmp_path):
    target = tmp_path / "deep" / "er" / "file.txt"
    with atomic_write(target) as tmp:
        assert tmp.parent == target.parent and tmp.suffix == ".txt"
        tmp.write_text("first")
        assert not target.exists()
    with pytest.raises(RuntimeError), atomic_write(target) as tmp:
        tmp.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first" and [p.name for p in target.parent.iterdir()] == [
        "file.txt"
    ]


@pytest.mark.parametrize(
    "code,words",
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
    ],
)
def test_refused_writes_are_explained(tmp_path, code, words):
    target = tmp_path / "file.txt"
    with pytest.raises(InputError, match=f"file.txt: .*{words}"), atomic_write(target) as tmp:
        tmp.write_text("half")
        raise OSError(code, os.strerror(code))
    assert not any(tmp_path.iterdir())


def test_a_full_disk_without_a_code_is_recognised(tmp_path):
    "numpy reports a short write as an OSError without errno; other such errors are no write errors"
    for message, error in (
        ("100000 requested and 8176 written", InputError),
        ("something else", OSError),
    ):
        with (
            pytest.raises(error, match="no space left" if error is InputError else message),
            atomic_write(tmp_path / "file.npy"),
        ):
            raise OSError(message)


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(InputError, match="choose another output folder"),
        atomic_write(tmp_path / "taken" / "file.txt") as tmp,
    ):
        tmp.write_text("")
    with pytest.raises(InputError, match="choose another output folder"):
        Run(tmp_path / "taken", {})


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"path": tmp_path, "ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"path": str(tmp_path), "ü": [1, None]}
    (tmp_path / "b.json").write_text('{"half": ')
    with pytest.raises(InputError, match="b.json is not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(InputError, match="c.json is missing"):
        read_json(tmp_path / "c.json")


def test_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        hash_file(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_paths_start_at_the_repository(tmp_path, monkeypatch):
    root = find_root()
    monkeypatch.chdir(root / "nbs" / "lib")
    assert (
        find_root() == root
        and resolve("outputs/x") == root / "outputs" / "x"
        and resolve("~") == resolve(os.path.expanduser("~"))
    )
    monkeypatch.chdir(tmp_path)
    assert find_root() == root  # from the package, when it lies in a clone
    monkeypatch.setattr(runs, "package_folder", lambda: tmp_path)
    with pytest.raises(InputError, match="no fairparse repository"):
        find_root()


def test_seeds_are_fixed():
    threads = torch.get_num_threads()

    def draw():
        fix_randomness(7, threads=1)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw() and torch.get_num_threads() == 1
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_devices():
    assert pick_device("auto") in ("cpu", "cuda", "mps") and pick_device("cpu") == "cpu"
    with pytest.raises(InputError, match="'abacus' is not available"):
        pick_device("abacus")


@pytest.mark.parametrize(
    "cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == expected


def test_a_folder_has_one_owner(tmp_path):
    run = Run(tmp_path / "job", {"seed": 1})
    with pytest.raises(InputError, match="another job is writing"):
        Run(tmp_path / "job", {})
    run.finish()
    Run(tmp_path / "job", {}).finish()


def test_the_record_appears_last_and_goes_first(tmp_path):
    source = tmp_path / "data.txt"
    source.write_text("data")
    run = Run(tmp_path / "job", {"seed": 4, "out": tmp_path}, inputs=(source,))
    assert not (tmp_path / "job" / "run.json").exists()
    run.note(faces=3)
    record = read_json(run.finish())
    assert (
        record["inputs"] == {str(source): hash_file(source)}
        and record["faces"] == 3
        and record["seed"] == 4
        and record["seconds"] >= 0
    )
    assert (
        record["code"]["sources_sha256"] == code_version()["sources_sha256"]
        and record["packages"]["numpy"] == np.__version__
    )
    Run(tmp_path / "job", {})
    assert not (tmp_path / "job" / "run.json").exists()


def test_a_killed_job_leaves_no_lock(tmp_path):
    (tmp_path / "work.py").write_text(
        "import os, signal\nfrom fairparse.core.runs import Run\n"
        f"run = Run({str(tmp_path / 'job')!r}, {{}})\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(tmp_path / "work.py", check=False).returncode == -9
    Run(tmp_path / "job", {}).finish()


def test_packages_that_are_absent_are_none():
    assert package_versions(("numpy", "no-such-package")) == {
        "numpy": np.__version__,
        "no-such-package": None,
    }


def test_runs_is_light():
    "Tables are made without PyTorch: importing the module must not load it"
    assert (
        "False"
        in run_python(
            "-c",
            "import sys, fairparse.core.runs, fairparse.core.records; "
            "import fairparse.results.objectives; print('torch' in sys.modules)",
        ).stdout
    )


@dataclasses.dataclass
class Settings:
    count: int = 3
    rate: float = 0.1
    name: str = "x"
    flag: bool = False
    items: list = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("good", [{}, {"rate": 1}, {"count": 0}, {"items": [1]}, {"flag": True}])
def test_types_that_fit(good):
    check_types(Settings(**good))


@pytest.mark.parametrize(
    "bad",
    [
        {"count": 1.0},
        {"count": True},
        {"rate": "1"},
        {"rate": False},
        {"name": None},
        {"flag": 1},
        {"flag": "yes"},
        {"items": "ab"},
        {"items": {}},
    ],
    ids=str,
)
def test_types_that_do_not_fit_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(
        InputError, match=f"{name} must be of type {type(getattr(Settings(), name)).__name__}"
    ):
        check_types(Settings(**bad))


def test_code_version_sees_every_module(tmp_path, monkeypatch):
    "Also those in rooms: otherwise a benchmark would take parts measured by other code for its own"
    package = tmp_path / "fairparse"
    (package / "data" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "data/__init__.py", "data/labels.py"):
        (package / name).write_text("")
    monkeypatch.setattr("fairparse.core.runs.package_folder", lambda: package)
    empty = code_version()["sources_sha256"]
    (package / "data" / "labels.py").write_text("CLASSES = 19")
    changed = code_version()["sources_sha256"]
    (package / "data" / "labels.py").rename(package / "data" / "names.py")
    moved = code_version()["sources_sha256"]
    assert len({empty, changed, moved}) == 3
    (package / "data" / "__pycache__" / "labels.pyc").write_text("1")
    assert code_version()["sources_sha256"] == moved
    (package / "assets" / "claims").mkdir(parents=True)
    (package / "assets" / "claims" / "paper1.yaml").write_text("better: {kind: change}")
    assert code_version()["sources_sha256"] != moved


@pytest.mark.parametrize(
    "limit,there",
    [
        ("", True),
        ("default", True),
        ("AVX512_CORE_AMX", True),
        ("AVX2", False),
        ("AVX512_CORE", False),
    ],
)
def test_units_that_onednn_may_not_use_do_not_count(monkeypatch, limit, there):
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: "model name: A chip\nflags: fpu amx_bf16\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor() == {"model": "A chip", "bf16": there}


def test_the_record_says_which_kind_of_processor_took_the_time(tmp_path):
    chip = read_json(Run(tmp_path, {}).finish())["processor"]
    assert chip == processor() and chip["model"]
    if os.path.exists("/proc/cpuinfo"):
        units = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16")
        assert chip["bf16"] == bool(units), "what precision auto goes by"


def test_a_record_names_what_a_job_left(tmp_path):
    "Results at any depth; no logs, nothing hidden, and nothing that the job goes on from"
    run = Run(tmp_path, {})
    left = ["counts.parquet", "settings/blur_0.1.parquet", "a/b/c.npy", "a/run.json"]
    kept = ["20_train.ipynb", "checkpoint/state.pt", "samples/1.png", "annotations/me.jsonl"]
    for name in [*left, *kept, ".half.tmp.npy", ".cache/x"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_json(run.finish())["files"] == sorted(left)
    assert runs.list_results(tmp_path, record=True) == sorted([*left, "run.json"])


def test_what_every_record_says_about_its_run_is_listed(tmp_path):
    "Whoever compares runs or tabulates results leaves these out"
    run = Run(tmp_path, {})
    run.note(miou=0.5)
    assert set(read_json(run.finish())) == {*runs.RECORD_CONTEXT, "seconds", "miou"}


def test_a_folder_of_others_is_not_listed(tmp_path):
    (tmp_path / "mine.txt").touch()
    assert read_json(Run(tmp_path, {}, name_files=False).finish())["files"] == []
