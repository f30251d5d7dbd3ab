"`make quick`: which tests a change needs, what fits into the budget, and what is left out"

import json
import subprocess

import pytest
import quick

MODULES = {
    "core/runs": ("00_core/01_runs", ""),
    "core/records": ("00_core/02_records", "from .runs import x"),
    "data/labels": ("10_data/01_labels", "def f():\n    from fairparse.core.records import y"),
    "cli": ("99_cli", "import fairparse.data.labels"),
}
TESTS = {
    "contracts/test_structure.py": "",
    "unit/core/test_runs.py": "from fairparse.core import runs",
    "unit/core/test_files.py": "from fairparse.core.records import y\nimport helpers",
    "unit/data/test_labels.py": "from fairparse.data.labels import f",
    "system/test_all.py": "from fairparse.core.records import y",
}


def git(root, *words):
    name = ("-c", "user.name=Toy", "-c", "user.email=toy@example.org")
    subprocess.run(["git", *name, *words], cwd=root, check=True, capture_output=True)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    "A repository of four modules and five test files, all of it committed"
    for module, (notebook, code) in MODULES.items():
        write(tmp_path / "fairparse" / f"{module}.py", code)
        directive = f"#| default_exp {module.replace('/', '.')}"
        cells = [("markdown", "# A\n\n> a."), ("code", directive), ("code", f"#| export\n{code}")]
        cells = [{"cell_type": kind, "source": [source]} for kind, source in cells]
        write(tmp_path / "nbs" / "lib" / f"{notebook}.ipynb", json.dumps({"cells": cells}))
    write(tmp_path / "nbs" / "paper" / "20_train.ipynb", "{}")
    for name, code in TESTS.items():
        write(tmp_path / "tests" / name, code)
    write(tmp_path / "tests" / "helpers.py", "")
    write(tmp_path / ".gitignore", ".pytest_cache\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def touch(root, *names):
    for name in names:
        path = root / name
        path.write_text(path.read_text() + "\n" if path.exists() else "")


def names_of(plan):
    return [step.name for step in plan.steps]


def plan_for(root, *files, budget=1000, **durations):
    return quick.make_plan(root, sorted(files), budget, durations)


def test_what_has_changed(root):
    touch(root, "fairparse/cli.py", "tests/new one.py")
    assert quick.changed_files(root) == ["fairparse/cli.py", "tests/new one.py"]
    git(root, "add", "-A")
    assert quick.changed_files(root) == ["fairparse/cli.py", "tests/new one.py"]
    git(root, "commit", "-q", "-m", "second")
    assert quick.changed_files(root) == ["fairparse/cli.py", "tests/new one.py"]
    touch(root, "README.md")
    assert quick.changed_files(root) == ["README.md"]
    assert quick.changed_files(root, "HEAD~1") == [
        "README.md",
        "fairparse/cli.py",
        "tests/new one.py",
    ]
    (root / "README.md").unlink()
    git(root, "mv", "tests/helpers.py", "tests/others.py")
    assert quick.changed_files(root) == ["tests/helpers.py", "tests/others.py"]
    with pytest.raises(SystemExit, match="git diff"):
        quick.changed_files(root, "no_such_revision")


def test_the_first_commit_is_everything(root):
    assert "nbs/lib/99_cli.ipynb" in quick.changed_files(root)


def test_files_become_modules_and_modules_their_importers(root):
    changed = ["fairparse/core/runs.py", "nbs/lib/10_data/01_labels.ipynb", "README.md"]
    assert quick.changed_modules(root, changed) == ["core.runs", "data.labels"]
    assert quick.direct_importers(root, ["core.runs"]) == ["core.records"]
    assert quick.direct_importers(root, ["core.records", "core.runs"]) == ["data.labels"]
    assert quick.direct_importers(root, ["data.labels"]) == ["cli"]


def test_own_tests_come_before_those_of_importers(root):
    assert quick.affected_tests(root, ["nbs/lib/00_core/01_runs.ipynb"]) == (
        ["tests/unit/core/test_runs.py"],
        ["tests/unit/core/test_files.py"],  # of core.records, which has no file of its name
    )
    own, second = quick.affected_tests(
        root, ["fairparse/core/records.py", "tests/system/test_all.py"]
    )
    assert own == ["tests/system/test_all.py", "tests/unit/core/test_files.py"]
    assert second == ["tests/unit/data/test_labels.py"]


def test_a_helper_runs_the_tests_that_use_it(root):
    assert quick.affected_tests(root, ["tests/helpers.py"]) == (
        [],
        ["tests/unit/core/test_files.py"],
    )


def test_steps_in_their_order(root):
    plan = plan_for(root, "nbs/lib/00_core/01_runs.ipynb", "fairparse/core/runs.py")
    assert names_of(plan) == [
        "ruff check",
        "ruff format",
        "tests/check_export.py",
        "nbs/lib/00_core/01_runs.ipynb",
        "tests/unit/core/test_runs.py",
        "tests/contracts/test_structure.py",
        "tests/unit/core/test_files.py",
    ]
    assert not plan.left_out
    assert "fairparse/core/runs.py" not in plan.steps[0].command  # nbdev writes it


def test_the_structure_runs_once_and_pages_alone_need_nothing_else(root):
    assert names_of(plan_for(root, "README.md")) == ["tests/contracts/test_structure.py"]
    plan = plan_for(root, "tests/contracts/test_structure.py")
    assert names_of(plan).count("tests/contracts/test_structure.py") == 1


def test_deleted_files_are_not_linted(root):
    (root / "tests" / "helpers.py").unlink()
    assert names_of(plan_for(root, "tests/helpers.py"))[0] != "ruff check"


def test_what_does_not_fit_is_left_out(root):
    files = ["nbs/lib/00_core/01_runs.ipynb", "nbs/paper/20_train.ipynb"]
    known = {
        "ruff check": 1,
        "ruff format": 1,
        "tests/check_export.py": 8,
        "tests/contracts/test_structure.py": 10,
        "nbs/lib/00_core/01_runs.ipynb": 5,
        "tests/unit/core/test_runs.py": 60,
    }
    plan = plan_for(root, *files, budget=40, **known)
    assert plan.left_out == {
        "tests/unit/core/test_runs.py": "about 60 s",
        "nbs/paper/20_train.ipynb": "an experiment: `make reproduce PROFILE=ci` runs it",
    }
    assert names_of(plan)[-1] == "tests/unit/core/test_files.py"  # unknown: 10 s, which fit
    assert "tests/unit/core/test_files.py" in plan_for(root, *files, budget=34, **known).left_out
    everything = plan_for(root, *files, budget=0, **known)
    assert names_of(everything) == [*list(known)[:4]]


def run_toy(root, monkeypatch, *words, code=0):
    "`main` with commands that only say that they ran"
    ran = []

    def run(command, **options):
        if command[0] == "git":
            return real(command, **options)
        ran.append(command)
        return subprocess.CompletedProcess(command, code)

    real = subprocess.run
    monkeypatch.setattr(quick.subprocess, "run", run)
    result = quick.main([*words, "--root", str(root)])
    monkeypatch.undo()
    return result, ran


def test_seconds_are_remembered(root, monkeypatch, capsys):
    touch(root, "fairparse/cli.py")
    result, ran = run_toy(root, monkeypatch)
    assert result == 0 and ran[0][-1] == "tests/check_export.py"
    known = json.loads((root / quick.DURATIONS).read_text())
    assert set(known) == {"tests/check_export.py", "tests/contracts/test_structure.py"}
    assert "steps in" in capsys.readouterr().out
    (root / quick.DURATIONS).write_text("{")
    assert quick.read_durations(root) == {}


def test_a_failure_is_the_exit_code(root, monkeypatch, capsys):
    touch(root, "tests/unit/data/test_labels.py")
    result, ran = run_toy(root, monkeypatch, code=1)
    assert result == 1 and "failed: ruff check" in capsys.readouterr().out
    assert len(ran) == 4  # the others run all the same


def test_time_that_has_passed_counts(root, monkeypatch, capsys):
    touch(root, "tests/unit/data/test_labels.py")
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(quick.time, "monotonic", lambda: next(clock))
    run_toy(root, monkeypatch, "--seconds", "250")
    assert "left out: tests/unit/data/test_labels.py" in capsys.readouterr().out


def test_a_list_runs_nothing(root, monkeypatch, capsys):
    touch(root, "tests/unit/data/test_labels.py")
    result, ran = run_toy(root, monkeypatch, "--list")
    assert result == 0 and not ran
    assert "tests/unit/data/test_labels.py" in capsys.readouterr().out


def test_nothing_has_changed(root, monkeypatch, capsys):
    result, ran = run_toy(root, monkeypatch, "--since", "HEAD")
    assert result == 0 and not ran
    assert "nothing has changed since HEAD" in capsys.readouterr().out
