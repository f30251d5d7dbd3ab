"""`fairparse sweep`: grids as text, points as folders, results as one table

What runs again and what survives a fault."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from cli_helpers import wait_until
from conftest import ROOT, fairparse, write_notebook

from fairparse.core.runs import InputError
from fairparse.workflow import grid

PARAMETERS = (
    'out = ""\nseed = 0\nlr = 0.1\nobjective = "single"\nfaces = "f"\nflip = True\n'
    "schedule = None\nend_weights = []\naugment = {}"
)


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "print(seed)")


@pytest.mark.parametrize(
    "text, values",
    [
        ("seed=0:5", [0, 1, 2, 3, 4]),
        ("seed=0:10:4", [0, 4, 8]),
        ("seed=2:0:-1", [2, 1]),
        ("seed=-1:1,7", [-1, 0, 7]),
        ("seed=3", [3]),
        (" seed = 1 , 2 ", [1, 2]),
        ("lr=0:2", [0.0, 1.0]),
        ("lr=1e-4,0.002,1", [1e-4, 0.002, 1.0]),
        ("objective=single,linear", ["single", "linear"]),
        ("objective=1,true,0:3,null", ["1", "true", "0:3", "null"]),
        ("objective=\"a, b\",it's,'x'", ["a, b", "it's", "x"]),
        ("objective=a=b", ["a=b"]),
        ("faces=outputs/a b/10_faces,/data/ü", ["outputs/a b/10_faces", "/data/ü"]),
        ("flip=true,False", [True, False]),
        ('schedule=linear,null,3,0:2,"3"', ["linear", None, 3, 0, 1, "3"]),
        ("end_weights=[0.4,0.3,0.3],[]", [[0.4, 0.3, 0.3], []]),
        ('augment={rotate: 10, "flip": [1, 2]},{}', [{"rotate": 10, "flip": [1, 2]}, {}]),
    ],
)
def test_values_of_a_grid(notebook, text, values):
    (name,) = found = grid.parse_grid(notebook, [text])
    assert found[name] == values and [type(v) for v in found[name]] == [type(v) for v in values]


@pytest.mark.parametrize(
    "texts, words",
    [
        (["sede=0:3"], ["no parameter 'sede'", "did you mean 'seed'"]),
        (["seed=a"], ["'seed'", "must be int"]),
        (["seed=1.5,2"], ["'seed'", "1.5"]),
        (["lr=1,fast"], ["'lr'", "'fast'"]),
        (["seed=3:3"], ["3:3 is empty"]),
        (["seed=5:0"], ["5:0 is empty"]),
        (["seed=0:5:0"], ["step 0"]),
        (["seed="], ["no value", "-g seed=v1,v2"]),
        (["seed"], ["not of the form"]),
        (["=3"], ["not of the form"]),
        (["seed=1,2,1"], ["1 is there more than once"]),
        (["seed=0:3,2"], ["2 is there more than once"]),
        (["lr=1,1.0"], ["1.0 is there more than once"]),
        (['augment={a: 1},{"a": 1}'], ["more than once"]),
        (["seed=1", "seed=2"], ["-g seed is given twice", "v1,v2"]),
        (["flip=1"], ["'flip'", "must be true or false"]),
        (["end_weights=0.4,0.3"], ["'end_weights'", "must be list"]),
        (["out=a,b"], ["sets `out`", "--out"]),
        (["fixed=1"], ["no parameter 'fixed'"]),
        (["end_weights=[1,2"], ["no list of values"]),
        (["end_weights=[1]],[2"], ["no list of values"]),
        (["seed=1] # "], ["brackets do not match"]),
        (["seed=1,,2"], ["no list of values"]),
        (["objective=*a"], ["no list of values", "quote"]),
        (["objective=a\x00b"], ["no list of values"]),
        (["schedule=2020-01-01"], ["'schedule'", "may be text or something else"]),
        (["lr=.inf"], ["'lr'", "must be float or int"]),
        (["augment={1: 2}"], ["'augment'", "text as keys"]),
        ([], ["at least one -g"]),
    ],
)
def test_bad_grids(notebook, texts, words):
    with pytest.raises(InputError) as error:
        grid.parse_grid(notebook, texts)
    assert all(word in str(error.value) for word in words), error.value


def test_parameters_beside_the_grid(tmp_path, notebook):
    plan = grid.plan_sweep(notebook, ["seed=0,1"], {"lr": "1e-3"}, threads=3)
    assert {name: json.loads(text) for name, text in plan["values"].items()} == {
        "seed=0": {"lr": 1e-3, "seed": 0},
        "seed=1": {"lr": 1e-3, "seed": 1},
    }
    assert (
        plan["threads"] == {"seed=0": 3, "seed=1": 3}
        and plan["file"] == ""
        and plan["points"]["seed=1"] == {"seed": 1}
    )
    for texts, word in (
        ({"seed": "3"}, "'seed' is set by -g and also"),
        ({"out": "x"}, "-p out: the sweep itself"),
        ({"lrr": "1"}, "did you mean 'lr'"),
        ({"lr": "x"}, "float or int"),
    ):
        with pytest.raises(InputError, match=word):
            grid.plan_sweep(notebook, ["seed=0,1"], texts)
    threaded = write_notebook(tmp_path / "20_threads.ipynb", 'out = "a/b.c/x.png"\nthreads = 2')
    plans = (
        grid.plan_sweep(threaded, ["threads=1,4"]),
        grid.plan_sweep(
            write_notebook(tmp_path / "21.ipynb", 'out = "a.b/v1.2"\na = 0\nthreads = 2'),
            ["a=1"],
            {},
            5,
        ),
    )
    assert [p["threads"] for p in plans] == [{"threads=1": 1, "threads=4": 4}, {"a=1": 5}] and [
        p["file"] for p in plans
    ] == ["x.png", ""]
    assert plans[1]["values"] == {"a=1": '{"a": 1, "threads": 5}'}
    for texts, threads, word in (
        (["threads=1,4"], 2, "by --threads and as a parameter"),
        (["threads=0"], None, "threads is 0"),
    ):
        with pytest.raises(InputError, match=word):
            grid.plan_sweep(threaded, texts, {}, threads)
    for parameters in ("a = 1", "out = None\na = 1"):
        with pytest.raises(InputError, match="no parameter `out`"):
            grid.plan_sweep(write_notebook(tmp_path / "22.ipynb", parameters), ["a=1"])


def test_names_of_points_are_safe_and_their_own():
    values = [
        1,
        "1",
        1.0,
        True,
        "true",
        None,
        "null",
        "",
        "a",
        "A/b",
        "A b",
        "A-b",
        "a" * 24,
        "a" * 25,
        "a" * 300,
        "../x",
        "ü",
        "x,y=1",
        [1, 2],
        [12],
        {"a": [1]},
        {"a": "[1]"},
        1e-5,
        "$(rm)",
        "'\"",
        "~",
        "{x}",
    ]
    names = list(grid.grid_points({"p": values, "q": [0, 1]}))
    assert len(set(names)) == 2 * len(values) and all(
        re.fullmatch(r"p=[A-Za-z0-9@.+_-]+,q=[01]", name) and len(name) < 60 for name in names
    ), names
    assert (
        grid.point_name({"objective": "linear", "seed": 0, "lr": 1e-4, "schedule": None})
        == "objective=linear,seed=0,lr=0.0001,schedule=null"
    )
    many = [{f"parameter{i}": "x" * 20 + str(i == last) for i in range(12)} for last in range(13)]
    assert len({grid.point_name(point) for point in many}) == 12 + 1 and all(
        len(grid.point_name(point)) < 200 for point in many
    )


def test_the_order_of_options_does_not_matter(notebook):
    one, other = (
        list(grid.grid_points(grid.parse_grid(notebook, texts)))
        for texts in (["seed=0,1", "objective=a,b"], ["objective=a,b", "seed=0,1"])
    )
    assert (
        one
        == other
        == ["seed=0,objective=a", "seed=0,objective=b", "seed=1,objective=a", "seed=1,objective=b"]
    )


def finished(out, name, log="20_toy.ipynb", **files):
    "A point that is done, with these files in its folder"
    (out / name).mkdir(parents=True)
    for file in (log, *files):
        (out / name / file).write_text(files.get(file, "{}"))


def table(out):
    return list(csv.reader((out / "results.csv").open(encoding="utf-8")))


def test_one_table_of_facts(tmp_path):
    points = grid.grid_points({"seed": [0, 1, 2], "faces": ["a, b"], "end_weights": [[0.4, 0.6]]})
    record = {
        "parameters": {"lr": 1},
        "seed": 0,
        "inputs": {"x": "y"},
        "code": {"commit": "c"},
        "packages": {},
        "python": "3",
        "platform": "L",
        "processor": {"model": "A chip", "bf16": True},
        "files": ["a"],
        "started": "now",
        "seconds": 1.25,
        "miou": 0.123456789,
        "count": 123456789,
        "faces": "set",
        "test": {"a": {"b": True}, "per_class": [1, 2]},
        "none": None,
    }
    first, second, _ = points
    finished(tmp_path, first, **{"run.json": json.dumps(record)})
    finished(tmp_path, second, **{"run.json": json.dumps({"seconds": 2, "more": "x"})})
    failed = grid.gather(tmp_path, {"notebook": "nbs/20_toy.ipynb", "file": "", "points": points})
    assert table(tmp_path) == [
        [
            "seed",
            "faces",
            "end_weights",
            "seconds",
            "miou",
            "count",
            "faces.result",
            "test.a.b",
            "none",
            "more",
        ],
        ["0", "a, b", "[0.4, 0.6]", "1.25", "0.123457", "123456789", "set", "True", "", ""],
        ["1", "a, b", "[0.4, 0.6]", "2", "", "", "", "", "", "x"],
    ]
    assert (
        list(failed) == [list(points)[2]]
        and "without writing all of its results" in failed[list(points)[2]]
    )
    assert pd.read_csv(tmp_path / "grid.csv").point.tolist() == list(points)


def test_one_table_of_tables_and_of_files(tmp_path, capsys):
    points = grid.grid_points({"seed": [0, 1, 2, 3]})
    for name, text in zip(
        points,
        ("class,seed,iou\nskin,7,0.100000001\nNA,8,\n", "class,dice\nhair,1\n", "", "class,dice\n"),
    ):
        finished(tmp_path, name, **{"t.csv": text})
    failed = grid.gather(tmp_path, {"notebook": "20_toy.ipynb", "file": "t.csv", "points": points})
    assert table(tmp_path) == [
        ["seed", "class", "seed.result", "iou", "dice"],
        ["0", "skin", "7", "0.100000001", ""],
        ["0", "NA", "8", "", ""],
        ["1", "hair", "", "", "1"],
    ]
    assert list(failed) == ["seed=2"] and "seed=2/t.csv is no readable table" in failed["seed=2"]
    for name in points:
        (tmp_path / name / "f.png").touch()
    assert (
        grid.gather(tmp_path, {"notebook": "20_toy.ipynb", "file": "f.png", "points": points}) == {}
    )
    assert table(tmp_path) == [
        ["seed", "file"],
        *([str(i), str(tmp_path / f"seed={i}" / "f.png")] for i in range(4)),
    ]
    assert grid.gather(
        tmp_path, {"notebook": "30_other.ipynb", "file": "", "points": points}
    ).keys() == points.keys() and table(tmp_path) == [["seed"]]
    grid.print_table(tmp_path / "results.csv", ("seed",))
    assert str(tmp_path / "results.csv") in capsys.readouterr().out


def test_failures_are_told_by_their_last_line(tmp_path):
    def log(*errors):
        (tmp_path / "20_toy.failed.ipynb").write_text(
            json.dumps(
                {
                    "cells": [
                        {
                            "outputs": [
                                {"output_type": "error", "ename": n, "evalue": v} for n, v in errors
                            ]
                        },
                        {"cell_type": "markdown"},
                    ]
                }
            )
        )

    for errors, words in (
        ([("InputError", "bad\nuse 2")], "use 2 ("),
        ([("ValueError", "x")], "ValueError: x ("),
        ([("KeyboardInterrupt", "")], "KeyboardInterrupt: ("),
        ([], "ended without a word"),
    ):
        log(*errors)
        assert grid.explain_failure(tmp_path / "20_toy.ipynb").startswith(
            words
        ) or words in grid.explain_failure(tmp_path / "20_toy.ipynb")
        assert str(tmp_path / "20_toy.failed.ipynb") in grid.explain_failure(
            tmp_path / "20_toy.ipynb"
        )


# each execution of a toy notebook leaves a line in `executed`, beside the repository
NOTE = (
    "from pathlib import Path\nwith open(Path.cwd().parent / 'executed', 'a') as log: "
    "log.write(f'{seed} {title}\\n')"
)
NOTEBOOKS = {
    "20_facts": (
        (
            'out = "outputs/demo/20"\nseed = 0\ntitle = "a"\nweights = [1]\nsettings = {}\n'
            "wait = 0\nlimit = 9"
        ),
        NOTE,
        "import json, time\nfrom fairparse import toy\n"
        "Path(out).mkdir(parents=True, exist_ok=True)\n(Path(out) / 'started').touch()\n"
        "while wait and not (Path.cwd().parent / 'go').exists(): time.sleep(0.1)\n"
        "if seed >= limit and not (Path.cwd().parent / 'mended').exists(): raise "
        "toy.InputError(f'seed is {seed}\\nkeep it below {limit}')\n"
        "(Path(out) / 'run.json').write_text(json.dumps({'seconds': 0.5, 'score': "
        "toy.score(seed), 'title': title, 'total': {'weights': sum(weights), **settings}}))",
    ),
    "80_table": (
        'out = "outputs/t.csv"\nseed = 0\ntitle = ""',
        NOTE,
        (
            "Path(out).parent.mkdir(parents=True, exist_ok=True)\n"
            "Path(out).write_text(f'class,iou\\nskin,{seed}\\nhair,0.5\\n')"
        ),
    ),
}


@pytest.fixture
def root(tmp_path):
    "A repository with the real command line and sweep.smk, and notebooks that finish at once"
    folder = tmp_path / "repo"
    (folder / "nbs" / "workflow").mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", folder)
    shutil.copy(ROOT / "nbs" / "workflow" / "sweep.smk", folder / "nbs" / "workflow")
    shutil.copytree(
        ROOT / "fairparse",
        folder / "fairparse",
        ignore=shutil.ignore_patterns("assets", "__pycache__"),
    )
    (folder / "fairparse" / "toy.py").write_text(
        "from .core.runs import InputError\ndef score(seed): return seed / 3\n"
    )
    for name, cells in NOTEBOOKS.items():
        write_notebook(folder / "nbs" / "paper" / f"{name}.ipynb", *cells)
    return folder


def sweep(root, *options):
    return fairparse("sweep", *options, "--cores", 2, cwd=root)


def executed(root):
    "What ran since the last call, sorted"
    log = root.parent / "executed"
    lines = sorted(log.read_text().splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_only_new_points_run_and_the_table_follows_the_grid(root):
    title = "it's $x, {y}"
    fixed, out = (
        ("-g", f'title="{title}"', "-p", "weights", "[1, 2]"),
        root / "outputs" / "sweeps" / "20_facts",
    )
    done = sweep(root, "20_facts", "-g", "seed=0", *fixed)
    (folder,) = out.glob("seed=0,*")
    assert (
        done.returncode == 0 and "1 point in" in done.stdout and executed(root) == [f"0 {title}"]
    ), done.stderr
    assert table(out) == [
        ["seed", "title", "seconds", "score", "title.result", "total.weights"],
        ["0", title, "0.5", "0.0", title, "3"],
    ]
    log = json.loads((folder / "20_facts.ipynb").read_text())["metadata"]["papermill"]["parameters"]
    assert log == {
        "seed": 0,
        "title": title,
        "weights": [1, 2],
        "out": f"outputs/sweeps/20_facts/{folder.name}",
    }
    # a value more: one new point, whatever the order of the options
    done = sweep(root, "20_facts", *fixed, "-g", "seed=1,0")
    assert (
        done.returncode == 0
        and "in every row: seconds = 0.5" in done.stdout
        and executed(root) == [f"1 {title}"]
    ), done.stderr
    assert [[row[0], row[3]] for row in table(out)] == [
        ["seed", "score"],
        ["1", "0.333333"],
        ["0", "0.0"],
    ]
    # a value less: nothing runs, and its point stays on the disk alone
    plan = ("20_facts", "-p", "weights", "[1,2]", "-g", "seed=0", "-g", f'title="{title}"')
    assert (
        sweep(root, *plan).returncode == 0
        and executed(root) == []
        and [row[0] for row in table(out)] == ["seed", "0"]
        and len(list(out.glob("seed=*/run.json"))) == 2
    )
    # other code under the notebook; a dry run lists the points that are asked for
    (root / "fairparse" / "toy.py").write_text(
        "from .core.runs import InputError\ndef score(seed): return seed / 4\n"
    )
    done = sweep(root, *plan, "--dry-run")
    assert (
        done.returncode == 0
        and re.findall(r"^Job [1-9]: (.*)\nReason: Params have changed", done.stdout, re.MULTILINE)
        == [folder.name]
        and executed(root) == []
    ), done.stdout
    # another notebook in the same folder
    done = sweep(root, "80_table", "-g", "seed=0", "--out", out)
    assert done.returncode == 2 and "holds a sweep of nbs/paper/20_facts.ipynb" in done.stderr


def test_a_failing_point_leaves_the_others(root):
    out = root.parent / 'it\'s a "sweep" $HOME'
    plan = (
        "20_facts",
        "-g",
        "weights=[1, 2]",
        "-g",
        "settings={a: {b: 2}}",
        "-g",
        "seed=3,4",
        "-p",
        "limit",
        "4",
        "--out",
        out,
    )
    done = sweep(root, *plan)
    assert done.returncode == 1 and "error: 1 of 2 points failed" in done.stderr, done.stderr
    columns, row = (
        ["seed", "weights", "settings", "seconds", "score", "title", "total.weights", "total.a.b"],
        ["[1, 2]", '{"a": {"b": 2}}', "0.5"],
    )
    assert executed(root) == ["3 a", "4 a"] and table(out) == [
        columns,
        ["3", *row, "1.0", "a", "3", "2"],
    ]
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("failed: seed=4,"))
    assert re.search(r": keep it below 4 \(.*/20_facts\.failed\.ipynb\)$", told), told
    (root.parent / "mended").touch()
    done = sweep(root, *plan)
    assert (
        done.returncode == 0
        and executed(root) == ["4 a"]
        and [row[0] for row in table(out)] == ["seed", "3", "4"]
        and not list(out.rglob("*.failed.ipynb"))
    ), done.stderr


def test_a_notebook_that_writes_a_table(root):
    done = sweep(root, root / "nbs" / "paper" / "80_table.ipynb", "-g", "seed=4", "--threads", 2)
    out = root / "outputs" / "sweeps" / "80_table"
    assert (
        done.returncode == 0
        and table(out) == [["seed", "class", "iou"], ["4", "skin", "4"], ["4", "hair", "0.5"]]
        and (out / "seed=4" / "t.csv").is_file()
    ), done.stderr


def test_an_interrupted_sweep_goes_on_and_owns_its_folder(root):
    plan, log = ["20_facts", "-g", "wait=0,300", "--out", "o"], root.parent / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fairparse.cli", "sweep", *plan, "--cores", "2"],
            cwd=root,
            stdout=file,
            stderr=file,
        )
    try:
        assert wait_until(
            lambda: (
                "1 of 3 steps" in log.read_text() and (root / "o" / "wait=300" / "started").exists()
            ),
            60,
        ), log.read_text()
        second = sweep(root, *plan)
        assert second.returncode == 2 and "is working in" in second.stderr, second.stderr
    finally:
        os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM and not (root / "o" / "results.csv").exists()
    assert (
        executed(root) == ["0 a", "0 a"]
        and (root / "o" / "wait=0" / "run.json").exists()
        and not (root / "o" / "wait=300" / "run.json").exists()
    )
    (root.parent / "go").touch()
    done = sweep(root, *plan)
    assert (
        done.returncode == 0
        and executed(root) == ["0 a"]
        and [row[0] for row in table(root / "o")] == ["wait", "0", "300"]
    ), done.stderr


def test_bad_input_stops_before_anything_is_written(root):
    for options, word in (
        (("20_fact", "-g", "seed=1"), "did you mean '20_facts'"),
        (("20_facts", "-g", "sed=1"), "did you mean 'seed'"),
        (("20_facts", "-g", "seed=1", "-p", "seed", "2"), "set by -g and also"),
        (("20_facts", "-g", "seed=1", "--threads", "0"), "--threads is 0"),
        (("20_facts", "-g", "seed=1", "--out", "settings.ini/x"), "cannot write"),
    ):
        done = sweep(root, *options)
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: ")
            and word in done.stderr
            and "Traceback" not in done.stderr
        ), (options, done.stderr)
    assert not (root / "outputs").exists() and executed(root) == []


def test_what_the_engine_is_asked_for(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    asked, out = [], root / "outputs" / "sweeps" / "20_facts"
    monkeypatch.setattr(
        grid, "run_group", lambda argv: asked.append([str(a) for a in argv]) or code
    )
    for gpus, code in ((0, 0), (2, 0), (0, 1)):
        monkeypatch.setattr(grid, "count_gpus", lambda: gpus)
        assert grid.run_sweep("20_facts", ["seed=0:101"], {}, cores=3, dry_run=True) == code
        assert (
            ("gpu=2" in asked[-1]) == (gpus > 0)
            and "--dry-run" in asked[-1]
            and asked[-1][asked[-1].index("--cores") + 1] == "3"
        )
        assert json.loads((out / "sweep.json").read_text())["gpu"] == (gpus > 0)
    told = capsys.readouterr()
    assert (
        told.out.count("20_facts: 101 points in") == 3
        and told.out.count("a large grid") == 3
        and "stopped before the end" in told.err
    )
    # the engine did not get as far as running the points: what an older table says stays
    assert (
        grid.run_sweep("20_facts", ["seed=0"]) == 1
        and not (out / "results.csv").exists()
        and "--dry-run" not in asked[-1]
    )


def test_the_printed_table_has_the_cells_as_they_are_written(tmp_path, capsys):
    path = tmp_path / "results.csv"
    path.write_text("what,iou\n007,0.123456789\n12e4567,3\n1_000,\n")
    grid.print_table(path)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert lines == [["007", "0.1235"], ["12e4567", "3"], ["1_000"]]
