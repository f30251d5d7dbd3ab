"A comparison of two commits from the command line: its records, and that nothing is left behind"

import json
import subprocess

import pandas as pd
import pytest
from conftest import command_line, fairparse

from fairparse.core.runs import find_root
from fairparse.workflow.profiles import load_profile
from fairparse.workflow.stages import trained_objectives


def git(*words):
    return subprocess.run(["git", *words], cwd=find_root(), capture_output=True, text=True)


@pytest.mark.skipif(git("rev-parse", "HEAD").returncode != 0, reason="not a clone of git")
def test_this_commit_beside_itself(tmp_path):
    before = git("worktree", "list").stdout
    values = {"out": tmp_path, "base": "HEAD", "profile": "ci", "stages": '["prepare"]'}
    values |= {"seeds": "[0]", "turns": 1, "minutes": 30}
    words = [word for name, value in values.items() for word in ("-p", name, value)]
    command = command_line("run", "96_bench_commits", tmp_path / "96_bench_commits.ipynb", *words)
    done = subprocess.run(command, cwd=find_root(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr

    times = pd.read_csv(tmp_path / "times.csv")
    assert sorted(times.tree) == ["base", "new"] and set(times.stage) == {"prepare"}
    assert (times.seconds > 0.5).all() and (times.mb > 20).all()
    findings = pd.read_csv(tmp_path / "findings.csv").set_index("part")
    assert 0.3 < findings.value["prepare"] < 3 and 0.3 < findings.value["whole"] < 3
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["same_faces"] and record["commits"]["base"] in record["commits"]["new"]
    assert record["jobs"]["base"]["train"] == len(trained_objectives(load_profile("ci")))
    assert git("worktree", "list").stdout == before and not (tmp_path / "scratch").exists()


def test_a_commit_that_is_not_there(tmp_path):
    values = ["-p", "out", tmp_path, "-p", "base", "no_such_commit"]
    done = fairparse("run", "96_bench_commits", tmp_path / "96_bench_commits.ipynb", *values)
    assert done.returncode and "no commit 'no_such_commit'" in done.stderr
