"Two commits beside each other: worktrees, plans, turns, and what they say"

import json
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
from scipy.stats import ttest_rel

from fairparse.bench import commits as module
from fairparse.bench.commit_findings import (
    comparison_findings,
    paired_interval,
    quality_findings,
    stage_findings,
    whole_findings,
)
from fairparse.bench.commits import (
    Comparison,
    Task,
    Tree,
    bring_together,
    checked_out,
    limit_instructions,
    plan_turns,
    run_task,
    tree_environment,
    turn_profile,
    working_tree,
)
from fairparse.bench.timing import describe_machine, machine_row
from fairparse.core.records import write_csv
from fairparse.core.runs import InputError, find_root
from fairparse.workflow.provenance import notebook_fingerprint
from fairparse.workflow.publish import stale_published
from fairparse.workflow.publish_bench import publish_bench

SOMEBODY = ["-c", "user.name=a", "-c", "user.email=a@b"]


def git(folder, *words):
    subprocess.run(["git", "-C", folder, *SOMEBODY, *words], check=True, capture_output=True)


@pytest.fixture
def toy(tmp_path):
    "A repository with two commits"
    folder = tmp_path / "toy repository"
    folder.mkdir()
    git(folder, "init", "-q")
    for text in ("slow", "fast"):
        (folder / "code.txt").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", text)
    return folder


def worktrees(folder):
    done = subprocess.run(
        ["git", "-C", folder, "worktree", "list"], capture_output=True, text=True, check=True
    )
    return len(done.stdout.splitlines())


def test_a_commit_lies_beside_the_working_tree_and_goes_again(toy, tmp_path):
    place = tmp_path / "before"
    with checked_out("HEAD~1", place, toy) as tree:
        assert (tree.folder / "code.txt").read_text() == "slow" and len(tree.commit) == 40
        assert worktrees(toy) == 2
    assert not place.exists() and worktrees(toy) == 1
    assert (toy / "code.txt").read_text() == "fast"


def test_it_goes_when_the_comparison_fails(toy, tmp_path):
    with pytest.raises(ZeroDivisionError), checked_out("HEAD", tmp_path / "before", toy):
        raise ZeroDivisionError
    assert not (tmp_path / "before").exists() and worktrees(toy) == 1


def test_what_a_killed_comparison_left_does_no_harm(toy, tmp_path):
    place = tmp_path / "before"
    git(toy, "worktree", "add", "--detach", place, "HEAD")
    shutil.rmtree(place)
    with checked_out("HEAD~1", place, toy) as tree:
        assert (tree.folder / "code.txt").is_file()


def test_unknown_commits_and_folders_are_refused(toy, tmp_path):
    with pytest.raises(InputError, match="no commit 'abc123'.*name another"):
        with checked_out("abc123", tmp_path / "x", toy):
            pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a git repository"):
        with checked_out("HEAD", tmp_path / "x", tmp_path / "empty"):
            pass


def test_without_git(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        working_tree(toy)


def test_a_working_tree_says_what_is_not_committed(toy):
    clean = working_tree(toy).commit
    (toy / "code.txt").write_text("faster")
    assert working_tree(toy).commit == f"{clean} and what is not committed"


HERE = Tree("new", find_root(), "")


def test_a_turns_profile():
    profile = turn_profile(HERE, "demo", [2], ["train"], changes={"train": {"epochs": 1}})
    plain = turn_profile(HERE, "demo", [0], ["train"])
    assert profile["train"]["epochs"] == 1 and profile["seeds"] == profile["shared_seeds"] == [2]
    assert "generator_seeds" not in profile  # of the demo: more than a turn has
    assert profile["prepare"] == plain["prepare"] and profile["objectives"] == ["linear"]
    assert profile["latents"]["seed"] == plain["latents"]["seed"] + 2000
    assert list(profile["classifiers"]) == ["group", "group_second", "eyes"]
    moved = profile["classifiers"]["group"]["seed"] - plain["classifiers"]["group"]["seed"]
    assert moved == 2000


def test_a_limited_processor_trains_in_float32():
    def precisions(values):
        if not isinstance(values, dict):
            return []
        own = [value for key, value in values.items() if key == "precision"]
        return own + [found for value in values.values() for found in precisions(value)]

    assert "auto" in precisions(turn_profile(HERE, "demo", [0], ["gan"]))
    assert set(precisions(turn_profile(HERE, "demo", [0], ["gan"], isa="AVX2"))) == {"no"}
    assert tree_environment(HERE, "AVX2")["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    with pytest.raises(InputError, match="AVX3"):
        limit_instructions("AVX3")


def test_a_profile_that_a_commit_does_not_have(tmp_path):
    with pytest.raises(InputError, match="no profile 'demo'"):
        turn_profile(Tree("base", tmp_path, "abc"), "demo", [0], [])


def tasks(names):
    return [Task(name, (f"{name}/run.json",), "") for name in names]


@pytest.mark.parametrize(
    "base, new, together",
    [
        ("abc", "abc", ["aa", "bb", "cc"]),
        ("abc", "axc", ["aa", "b-", "-x", "cc"]),
        ("ab", "ba", ["-b", "aa", "b-"]),
        ("", "ab", ["-a", "-b"]),
    ],
)
def test_jobs_of_two_trees_come_together(base, new, together):
    rounds = bring_together(tasks(base), tasks(new))
    assert ["".join(r[t].stage if t in r else "-" for t in ("base", "new")) for r in rounds] == (
        together
    )


def test_the_time_of_children_counts_and_waiting_does_not(tmp_path):
    busy = f"{sys.executable} -c 'import time\nwhile time.process_time() < .4: pass'"
    both = run_task(Task("a", ("a/x",), f"{busy} & {busy} & wait; sleep .3"), HERE, tmp_path)
    assert 0.8 <= both["seconds"] < 1.6 and both["wall"] > 0.7 and both["mb"] > 3
    assert (tmp_path / "a").is_dir()


def test_a_job_that_fails_is_told(tmp_path):
    with pytest.raises(InputError, match="no such thing"):
        run_task(Task("a", ("a/x",), "echo no such thing; exit 3"), HERE, tmp_path)


def test_which_stages_a_turn_has():
    turns = plan_turns([5, 6, 7, 8], ["train", "gan", "guide"], 2, ["guide"], ["", "AVX2"])
    assert [(t.seeds, t.isa, t.stages) for t in turns[::2]] == [
        ((5,), "", ("train", "gan", "guide")),
        ((6,), "", ("train", "gan")),
        ((7, 8), "", ("train",)),
    ]
    assert [t.seeds for t in plan_turns([0, 1], ["gan"], 1, [], [""])] == [(0,)]
    with pytest.raises(InputError, match="no stages .'gna'"):
        plan_turns([0], ["gna"], 1, [], [""])
    with pytest.raises(InputError, match="turns 4"):
        plan_turns([0], ["train"], 4, [], [""])


@pytest.fixture
def compared(tmp_path, monkeypatch):
    "A comparison of trees that take no time to plan; their jobs write a line"
    log = tmp_path / "log"

    def plan(tree, profile, out):
        stages = ("train", "gan") if "gan" in profile["stages"] else ("train",)
        return [
            Task(stage, (f"{stage}/seed{seed}/x",), f"echo {tree.name} {seed} {stage} >> '{log}'")
            for stage in stages
            for seed in profile["seeds"]
        ]

    monkeypatch.setattr(module, "plan_tasks", plan)
    old = Tree("base", find_root(), "old")
    return lambda **more: Comparison([old, HERE], tmp_path / "turns", name="ci", **more), log


def test_trees_take_turns_and_trainings_come_first(compared, tmp_path):
    make, log = compared
    times, quality = make().run(plan_turns([0, 1, 2], ["train", "gan"], 1, [], [""]))
    assert [tuple(line.split()) for line in log.read_text().splitlines()] == [
        ("base", "0", "train"),
        ("new", "0", "train"),
        ("new", "1", "train"),
        ("base", "1", "train"),
        ("base", "2", "train"),
        ("new", "2", "train"),
        ("base", "0", "gan"),
        ("new", "0", "gan"),
    ]
    assert times.seed.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert quality.empty and not list((tmp_path / "turns").glob("*"))


def test_no_job_begins_after_the_limit(compared):
    comparison = compared[0](minutes=1e-9)
    time.sleep(0.01)
    times, _ = comparison.run(plan_turns([0], ["train", "gan"], 1, [], [""]))
    assert times.empty and len(comparison.left_out) == 4
    with pytest.raises(InputError, match="no job ran in both"):
        comparison_findings(times, pd.DataFrame(), {})


def made_times(pairs, stage="train"):
    return [
        dict(isa="", seed=seed, tree=tree, stage=stage, job=f"{stage} x", seconds=s, wall=s, mb=9)
        for seed, pair in enumerate(pairs)
        for tree, s in zip(("base", "new"), pair)
    ]


def test_ratios_are_medians_over_seeds():
    rows = stage_findings(pd.DataFrame(made_times([(10, 3), (10, 4), (20, 4)])))
    [row] = rows
    assert (row["value"], row["low"], row["high"], row["reached"]) == (0.3, 0.2, 0.4, "yes")
    assert stage_findings(pd.DataFrame(made_times([(1, 1)], "gan")))[0]["reached"] == "no"
    assert stage_findings(pd.DataFrame(made_times([(1, 1)], "latents")))[0]["reached"] == ""


def test_a_whole_run_counts_jobs_and_leaves_out_what_only_one_tree_measured():
    times = pd.DataFrame(made_times([(10, 4)]) + made_times([(100, 50)], "gan"))
    times = pd.concat([times, pd.DataFrame(made_times([(7, 7)], "guide")[:1])])
    counts = {"base": {"train": 2, "gan": 1, "guide": 1}, "new": {"train": 5, "gan": 1, "guide": 1}}
    [row] = whole_findings(times, counts)
    assert row["value"] == pytest.approx((5 * 4 + 50) / (2 * 10 + 100))
    assert "guide" not in row["note"]
    counts["new"]["begin"] = 3  # a stage that the new tree has and that was not measured
    assert "begin" not in whole_findings(times, counts)[0]["note"]


def test_intervals_are_those_of_a_paired_t_test():
    old, new = [70.0, 71.0, 69.5, 72.0, 70.2], [70.4, 71.9, 69.4, 72.5, 70.8]
    mean, low, high = paired_interval([n - o for o, n in zip(old, new)])
    theirs = ttest_rel(new, old).confidence_interval()
    assert (low, high) == pytest.approx((theirs.low, theirs.high)) and low < mean < high
    rows = [
        dict(isa="", seed=seed, tree=tree, what="train: mIoU, %", value=value)
        for seed, pair in enumerate(zip(old, new))
        for tree, value in zip(("base", "new"), pair)
    ]
    [row] = quality_findings(pd.DataFrame(rows))
    assert row["value"] == pytest.approx(mean) and row["at_least"] == -0.3
    assert "whole interval above -0.3: yes" in row["note"]


def test_one_seed_has_no_interval():
    mean, low, high = paired_interval([0.5])
    assert mean == 0.5 and low != low and high != high
    with pytest.raises(InputError, match="no pairs"):
        paired_interval([])


def test_commands_that_are_not_understood_are_refused():
    text = "Job stats:\njob      count\n-----  -------\ntrain        1\ntotal        1\n\n"
    with pytest.raises(InputError, match="1 jobs and 0 commands"):
        module._read_tasks(HERE, f"{text}rule train:\n    output: a/run.json\n")


# what is published of it


@pytest.fixture
def finished(tmp_path):
    "A folder as the notebook leaves it, with a figure of one pixel; a README beside it"
    out = tmp_path / "out"
    out.mkdir()
    times = pd.DataFrame(made_times([(10, 3), (10, 4)]))
    findings = comparison_findings(times, pd.DataFrame(), {"base": {}, "new": {}})
    write_csv(findings, out / "findings.csv")
    row = machine_row(describe_machine(), 3, 0.02)
    write_csv(pd.DataFrame([{**row, "base": "abc", "new": "def"}]), out / "machine.csv")
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (out / "96_bench_commits.ipynb").write_text(json.dumps(empty))
    (tmp_path / "README.md").write_text("<!-- commits -->\nold\n<!-- /commits -->\n")

    def record(**parameters):
        given = {"profile": "demo"} | parameters
        code = notebook_fingerprint("96_bench_commits")
        (out / "run.json").write_text(json.dumps({"parameters": given, "notebook_code": code}))
        return out

    return record


def test_a_comparison_is_published(finished, tmp_path):
    publish_bench(finished(), tmp_path / "published", tmp_path / "README.md")
    page = (tmp_path / "README.md").read_text()
    assert "train: processor time beside the base" in page and "at most 0.35" in page
    made = json.loads((tmp_path / "published" / "made_by.json").read_text())
    assert set(made["bench_commits/findings.csv"]["code"]) == {"96_bench_commits"}
    stale = stale_published(tmp_path / "published", tmp_path / "README.md")
    assert not [name for name in stale if "commits" in name]


@pytest.mark.parametrize(
    "other", [{"profile": "ci"}, {"changes": {}}, {"changes": {"train": {"epochs": 1}}}]
)
def test_a_comparison_of_something_else_is_not_published(finished, tmp_path, other):
    with pytest.raises(InputError, match="make bench-commits"):
        publish_bench(finished(**other), tmp_path / "published", tmp_path / "README.md")
    assert "old" in (tmp_path / "README.md").read_text()
