"""The terminal: help at once, completion that works in a real shell, errors in one line."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from fairparse import cli
from fairparse.core.runs import InputError, find_root
from fairparse.workflow.notebooks import NotebookError
from fairparse.workflow.profiles import workflow_stages
from fairparse.workflow.terminal import (
    COMMANDS,
    command,
    completion_script,
    describe_error,
    guarded,
    make_parser,
)

HEAVY = (
    "torch",
    "pandas",
    "numpy.testing",
    "matplotlib",
    "scipy",
    "sklearn",
    "diffusers",
    "transformers",
    "snakemake",
    "papermill",
    "PIL",
)


def fairparse(*words, **options):
    "`fairparse …` in a process of its own"
    return subprocess.run(
        [sys.executable, "-m", "fairparse.cli", *words],
        capture_output=True,
        text=True,
        cwd=find_root(),
        **options,
    )


# help


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_answers_at_once(name):
    "Under a second on an idle machine; the bound leaves room for a busy one"
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        done = fairparse(*filter(None, [name]), "--help")
        best = min(best, time.perf_counter() - started)
        assert (
            done.returncode == 0 and done.stdout.startswith("usage: fairparse") and not done.stderr
        )
        if best < 1:
            break
    assert best < 2, f"`fairparse {name} --help` took {best:.1f} s"


def test_help_loads_nothing_heavy():
    script = f"""import sys
from fairparse.workflow.terminal import COMMANDS
from fairparse.cli import main
for name in ("", *COMMANDS):
    try: main([*filter(None, [name]), "--help"])
    except SystemExit as end: assert end.code == 0
print("LOADED", [name for name in {HEAVY} if name in sys.modules])"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=find_root()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_every_command_and_argument_has_a_help():
    for name, (function, arguments) in COMMANDS.items():
        assert function.__doc__, name
        for names, options in arguments:
            assert options.get("help") or options.get("metavar"), f"{name} {names}"


# completion

COMPLETE = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}  # a shell without a prompt has no completion to set options for
_shtab_fairparse fairparse "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    "A function that completes words as bash does"
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    script = tmp_path_factory.mktemp("completion") / "fairparse"
    script.write_text(completion_script(make_parser(), "bash"))
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def complete(*words):
        done = subprocess.run(
            [
                "bash",
                "--norc",
                "-c",
                COMPLETE.format(script=script, words=" ".join(f'"{word}"' for word in words)),
            ],
            capture_output=True,
            text=True,
            cwd=find_root(),
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    "words, offered",
    [
        (("repr",), ["reproduce"]),
        (("reproduce", "--pro"), ["--profile"]),
        (("reproduce", "--profile", "de"), ["demo", "demo_quick"]),
        (
            ("reproduce", "--stages", "balance_table"),
            ["balance_table1", "balance_table2", "balance_table3"],
        ),
        (("reproduce", "--stages", "train", "figure"), [f"figure{k}" for k in range(2, 8)]),
        (("run", "20_"), ["20_train_parser"]),
        (("sweep", "86_"), ["86_does_it_work"]),
        (("reproduce", "--data", "nbs/work"), ["nbs/workflow"]),
        (("completion", "z"), ["zsh"]),
        (("completion", "READ"), []),
        (("nothing_of_this_name",), []),
    ],
)
def test_bash_completes(bash, words, offered):
    assert sorted(bash("fairparse", *words)) == sorted(offered)


def test_bash_offers_every_command_and_stage(bash):
    assert set(COMMANDS) <= set(bash("fairparse", ""))
    assert set(workflow_stages()) <= set(bash("fairparse", "reproduce", "--stages", ""))


@pytest.mark.parametrize("shell", ["zsh", "tcsh", "fish"])
def test_other_shells_get_a_script(shell, tmp_path):
    script = tmp_path / "script"
    script.write_text(completion_script(make_parser(), shell))
    assert "reproduce" in script.read_text() and "demo" in script.read_text()
    if not shutil.which(shell):
        pytest.skip(f"the script was written; no {shell} here to parse it")
    assert subprocess.run([shell, "-n", script], capture_output=True).returncode == 0


def test_unknown_shell_is_refused():
    with pytest.raises(InputError, match="cmd.exe.*bash"):
        completion_script(make_parser(), "cmd.exe")


def test_completion_does_not_change_what_is_accepted():
    "choices are offered, not demanded: a profile may be a file"
    completion_script(make_parser(), "bash")
    assert make_parser().parse_args(["reproduce", "--profile", "mine.yaml"]).profile == "mine.yaml"


# errors


class OutOfMemoryError(RuntimeError):
    "As PyTorch names it"


ERRORS = [
    (InputError("--cores is 0: it must be 1 or more"), 2, "error: --cores is 0"),
    (NotebookError("KeyError: 'x'"), 1, "error: KeyError: 'x'"),
    (
        OSError(errno.ENOSPC, "No space left on device", "outputs/a.npy"),
        1,
        "error: No space left on device: outputs/a.npy",
    ),
    (
        PermissionError(errno.EACCES, "Permission denied", "/root/x"),
        1,
        "Permission denied: /root/x",
    ),
    (ConnectionError("name resolution failed\nand so on"), 1, "error: name resolution failed;"),
    (
        OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"),
        1,
        "Invalid cross-device link: a, b",
    ),
    (MemoryError(), 1, "error: out of memory (MemoryError)"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "out of memory"),
    (
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nSee the manual"),
        1,
        "error: out of memory (CUDA out of memory. Tried to allocate 2 GiB)",
    ),
    (
        ModuleNotFoundError("No module named 'yaml.x'", name="yaml.x"),
        2,
        "the package that provides `yaml` is not installed",
    ),
    (
        ModuleNotFoundError("No module named 'fairparse.nowhere'", name="fairparse.nowhere"),
        70,
        "internal error: ModuleNotFoundError: No module named 'fairparse.nowhere'",
    ),
    (ModuleNotFoundError("nameless"), 70, "internal error"),
    (
        ModuleNotFoundError("No module named 'shtab'", name="shtab"),
        2,
        "the package that provides `shtab` is not installed: `make install`",
    ),
    (KeyboardInterrupt(), 130, "interrupted"),
    (
        ZeroDivisionError("division by zero"),
        70,
        "internal error: ZeroDivisionError: division by zero",
    ),
    (KeyError(), 70, "internal error: KeyError: no message"),
]


@pytest.fixture
def failing(monkeypatch):
    "A command `fail` that raises what it is told to"

    def register(error):
        def fail():
            "Fail"
            raise error

        command()(fail)

    yield register
    COMMANDS.pop("fail", None)


@pytest.mark.parametrize("error, code, said", ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_told_without_traceback(error, code, said, capsys, failing):
    failing(error)
    assert cli.main(["fail"]) == code
    shown = capsys.readouterr()
    assert said in shown.err and "Traceback" not in shown.err and not shown.out
    assert len(shown.err.strip().splitlines()) == (2 if code == 70 else 1)


@pytest.mark.parametrize(
    "error", [error for error, *_ in ERRORS], ids=lambda error: type(error).__name__
)
def test_debug_lets_the_error_through(error, failing):
    failing(error)
    with pytest.raises(type(error)):
        cli.main(["fail", "--debug"])


def test_a_bug_is_placed_and_reportable(capsys):
    from fairparse.core.runs import nearest

    assert guarded(lambda: nearest("a", None)) == 70
    said = capsys.readouterr().err
    assert "runs.py, line" in said and "--debug" in said and "fairparse doctor --json" in said


def test_exit_codes_pass_through():
    assert (guarded(lambda: None), guarded(lambda: 0), guarded(lambda: 3)) == (0, 0, 3)
    with pytest.raises(SystemExit) as end:
        guarded(lambda: sys.exit(5))
    assert end.value.code == 5


def test_what_is_told_names_the_way_to_the_traceback():
    for error, code, _ in ERRORS:
        if not isinstance(
            error, (InputError, NotebookError, KeyboardInterrupt, ModuleNotFoundError)
        ):
            assert "--debug" in describe_error(error)[0]


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def run_into_closed_pipe(*words):
    "Run Python with `words`, where nobody reads what it prints"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=find_root(),
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "script",
    [
        (
            "import sys\nfrom fairparse.workflow.terminal import guarded\ndef talk():\n"
            "    for k in range(100_000): print('line', k)\nsys.exit(guarded(talk))"
        ),
        (
            "import sys\nfrom fairparse.workflow.terminal import guarded\n"
            "sys.exit(guarded(lambda: print('short')))"
        ),
    ],
    ids=["long", "short"],
)
def test_a_reader_that_goes_away_is_no_error(script):
    "`fairparse … | head`: no traceback, no complaint of the interpreter when it ends"
    done = run_into_closed_pipe("-c", script)
    assert done.returncode == 141 and done.stderr == ""


def test_help_into_a_closed_pipe():
    done = run_into_closed_pipe("-m", "fairparse.cli", "--help")
    assert done.returncode in (0, 141) and done.stderr == "", (
        "argparse itself keeps quiet about a closed pipe"
    )


# the commands themselves


def test_completion_command_writes_a_script():
    done = fairparse("completion", "bash")
    assert done.returncode == 0 and "complete " in done.stdout and not done.stderr
    assert fairparse("completion", "cmd.exe").returncode == 2


def test_doctor_command_says_whether_the_demo_can_run(tmp_path):
    done = fairparse(
        "doctor",
        "--profile",
        "paper",
        "--offline",
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert (
        done.returncode == 1
        and "MISSING  CelebAMask-HQ" in done.stdout
        and "Traceback" not in done.stderr
    )
    assert '"runs": false' in fairparse("doctor", "--profile", "paper", "--json").stdout


def test_dry_run_tells_cost_and_reason(tmp_path):
    done = fairparse(
        "reproduce",
        "--profile",
        "ci",
        "--stages",
        "table1",
        "--dry-run",
        "--out",
        str(tmp_path / "ci"),
    )
    assert done.returncode == 0, done.stderr
    for text in ("8 jobs would run", "train", "disk", "why:", "missing output files: "):
        assert text in done.stdout
    assert not (tmp_path / "ci" / "20_parsers").exists()
