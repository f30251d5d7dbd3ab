"""What a change needs, in under three minutes on two cores (without bfloat16 matrix units).

    python tests/quick.py                  what is not committed yet, or else the last commit
    python tests/quick.py --since main     everything that has changed since a revision
    python tests/quick.py --seconds 60     a smaller budget
    python tests/quick.py --list           say what would run, and run nothing

git says which files have changed, and `house.py` which modules these are and who imports them.
In this order: ruff on the changed files, the export, the changed library notebooks, the tests of
the changed modules, the structure of the repository, and the tests of modules that import the
changed ones. How long each step takes is remembered in .pytest_cache; a step that would end after
the budget is left out, and named at the end. `make test` runs everything.
"""

import argparse
import ast
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import house

from fairparse.workflow.fingerprints import imported_names

UNKNOWN = 10  # seconds that a step is expected to take when it was never measured
DURATIONS = Path(".pytest_cache") / "quick.json"
TOOLS = Path(sys.executable).parent


@dataclass
class Step:
    "A command to run; `always`: whatever it takes"

    name: str  # a file, or what the command does
    command: list
    always: bool = False


@dataclass
class Plan:
    "Steps in the order in which they run, and what is left out: name -> why"

    steps: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)


def ask_git(root, *words):
    "What git answers, a list of file names"
    answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"git {' '.join(words)}: {answer.stderr.strip()}")
    return [name for name in answer.stdout.split("\0") if name.strip()]


def changed_files(root, since=None):
    "Files that have changed since a revision; without one, those of the last commit if all is in"
    files = ask_git(root, "diff", "--name-only", "-z", "--no-renames", since or "HEAD")
    files += ask_git(root, "ls-files", "-z", "--others", "--exclude-standard")
    if not files and since is None:
        last = ("show", "-m", "--first-parent", "--no-renames", "--name-only", "--format=")
        files = ask_git(root, *last, "-z", "HEAD")
    return sorted(set(files))


def changed_modules(root, files):
    "Modules whose notebook or exported file has changed"
    package = root / "fairparse"
    modules = {n.path.relative_to(root).as_posix(): n.module for n in house.library(root)}
    found = {modules[file] for file in files if file in modules}
    for file in files:
        path = root / file
        if path.suffix == ".py" and path.is_relative_to(package) and path.name[0] != "_":
            found.add(house.module_name(path, package))
    return sorted(found - {""})


def direct_importers(root, modules):
    "Modules that import one of these at first hand"
    graph = house.imports(root)
    return sorted(m for m, used in graph.items() if m not in modules and set(used) & set(modules))


def imports_of_tests(root):
    "Test file -> names that it imports: modules such as `parsing.train`, helpers such as `house`"
    found = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        statements = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {name for node in statements for name in imported_names(node, [])}
        found[str(path.relative_to(root))] = {name.removeprefix("fairparse.") for name in names}
    return found


def tests_of(module, imported):
    "The unit tests of a module: the file named after it, or else all that import it"
    room, _, name = module.rpartition(".")
    own = f"tests/unit/{room or 'workflow'}/test_{name}.py"
    if own in imported:
        return [own]
    return [file for file, names in imported.items() if "/unit/" in file and module in names]


def affected_tests(root, files):
    "Test files of a change in the order of their worth: its own, then those at second hand"
    imported = imports_of_tests(root)
    modules = changed_modules(root, files)
    own = [file for file in files if file in imported]
    own += [test for module in modules for test in tests_of(module, imported)]

    helpers = {Path(file).stem for file in files if Path(file).parent == Path("tests")}
    second = [file for file, names in imported.items() if names & helpers]
    for module in direct_importers(root, modules):
        second += tests_of(module, imported)
    own = list(dict.fromkeys(own))
    return own, [file for file in dict.fromkeys(second) if file not in own]


def read_durations(root):
    "Seconds that each step took when it was last run"
    path = root / DURATIONS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_durations(root, durations):
    "Keep the seconds for the next time"
    path = root / DURATIONS
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(durations, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def run_pytest(file):
    "The step that runs a test file"
    return Step(file, [sys.executable, "-m", "pytest", "-q", "-x", file])


def first_steps(root, files):
    "Ruff on the changed files, the export, the changed library notebooks"
    code = [f for f in files if f.endswith((".py", ".ipynb")) and (root / f).is_file()]
    code = [file for file in code if not file.startswith(("fairparse/", "outputs/"))]
    steps = []
    if code:
        steps.append(
            Step("ruff check", [TOOLS / "ruff", "check", "--force-exclude", *code], always=True)
        )
        formatted = [TOOLS / "ruff", "format", "--check", "--force-exclude", *code]
        steps.append(Step("ruff format", formatted, always=True))
    if any(file.startswith(("nbs/", "fairparse/")) for file in files):
        export = [sys.executable, "tests/check_export.py"]
        steps.append(Step("tests/check_export.py", export, always=True))
    for file in code:
        if file.startswith("nbs/lib/"):
            test = [TOOLS / "nbdev_test", "--path", file, "--n_workers", "1", "--do_print"]
            steps.append(Step(file, test))
    return steps


def make_plan(root, files, budget, durations):
    "What runs within the budget: the cheap checks in any case, the rest while there is time"
    own, second = affected_tests(root, files)
    structure = run_pytest("tests/contracts/test_structure.py")
    structure.always = True
    every = [*first_steps(root, files), *map(run_pytest, own), structure, *map(run_pytest, second)]
    every = list({step.name: step for step in reversed(every)}.values())[::-1]

    def expected(step):
        return durations.get(step.name, UNKNOWN)

    plan, left = Plan(), budget - sum(expected(step) for step in every if step.always)
    for step in every:
        if not step.always and expected(step) > left:
            plan.left_out[step.name] = f"about {expected(step):.0f} s"
            continue
        plan.steps.append(step)
        left -= 0 if step.always else expected(step)
    for file in files:
        if file.startswith("nbs/paper/"):
            plan.left_out[file] = "an experiment: `make reproduce PROFILE=ci` runs it"
    return plan


def run_plan(root, plan, budget, durations):
    "Run the steps; names of those that failed. What turns out to take longer costs later steps"
    start, failed = time.monotonic(), []
    for step in plan.steps:
        passed = time.monotonic() - start
        if not step.always and passed >= budget:
            plan.left_out[step.name] = f"{passed:.0f} s have passed"
            continue
        print(f"---- {step.name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(list(map(str, step.command)), cwd=root).returncode
        durations[step.name] = round(time.monotonic() - began, 1)
        if code and not (code == 5 and "pytest" in step.command):  # 5: all tests were deselected
            failed.append(step.name)
    return failed


def main(words=None):
    "Exit code: 1 if a step failed"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--since", metavar="REV", help="what has changed since this revision")
    parser.add_argument("--seconds", type=float, default=180, help="budget (default: 180)")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument("--root", type=Path, default=house.ROOT, help="another checkout")
    given = parser.parse_args(words)
    root = given.root.resolve()
    files = changed_files(root, given.since)
    if not files:
        print(f"nothing has changed since {given.since or 'the first commit'}")
        return 0

    durations = read_durations(root)
    plan = make_plan(root, files, given.seconds, durations)
    print(f"{len(files)} files changed: {', '.join(files[:8])}{' …' if len(files) > 8 else ''}")
    if given.list:
        print(*(step.name for step in plan.steps), sep="\n")
        failed = []
    else:
        start = time.monotonic()
        failed = run_plan(root, plan, given.seconds, durations)
        write_durations(root, durations)
        print(f"\n{len(plan.steps)} steps in {time.monotonic() - start:.0f} s")
    for name, why in plan.left_out.items():
        print(f"left out: {name} ({why})")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
