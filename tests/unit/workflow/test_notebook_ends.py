"""A notebook whose last cell was not run to its end has failed, however it ended itself

Papermill takes `sys.exit(0)` for a success; Jupyter's `exit()` lets the next cells run for a while.
"""

import json

import pytest
from conftest import fairparse, write_notebook

from fairparse.workflow import notebooks

PARAMETERS = 'out = ""\nseed = 0'
RESULT = (
    "from pathlib import Path\nPath(out).mkdir(parents=True, exist_ok=True)\n"
    "(Path(out) / 'run.json').write_text('{}')"
)


@pytest.mark.parametrize(
    "cell, below",
    [
        ("raise SystemExit(0)", ["print('below')"]),
        ("raise SystemExit", []),
        ("import sys; sys.exit(0)", ["print('below')"]),
        ("import sys; sys.exit()", ["", "# nothing"]),
        ("exit()", ["print('below')"]),
        ("quit()", []),
        ("if seed == 0: exit(keep_kernel=True)\nprint('went on')", ["print('below')"]),
    ],
)
def test_a_notebook_that_ends_itself_has_failed(tmp_path, cell, below):
    path = write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, cell, *below)
    out = tmp_path / "log.ipynb"
    with (
        notebooks.job_environment(threads=1),
        pytest.raises(notebooks.NotebookError, match=r"ended the notebook .* cell 2 of"),
    ):
        notebooks.execute_notebook(path, out, {})
    assert not out.exists()
    log = json.loads((tmp_path / "log.failed.ipynb").read_text())
    printed = [output for one in log["cells"] for output in one.get("outputs", [])]
    assert not any("went on" in str(output) or "below" in str(output) for output in printed)


@pytest.mark.parametrize("cell", ["import os; os._exit(0)", "import os; os.kill(os.getpid(), 15)"])
def test_a_kernel_that_is_gone_has_failed(tmp_path, cell):
    path = write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "print('before')", cell)
    with (
        notebooks.job_environment(threads=1),
        pytest.raises(notebooks.NotebookError, match="ended without a word"),
    ):
        notebooks.execute_notebook(path, tmp_path / "log.ipynb", {})
    assert not (tmp_path / "log.ipynb").exists()


def test_cells_that_hold_no_code_need_not_run(tmp_path):
    "An empty cell, one of comments, one that is to be left out, and a `SystemExit` that is caught"
    caught = "try:\n    raise SystemExit(0)\nexcept SystemExit:\n    pass"
    path = write_notebook(
        tmp_path / "20_toy.ipynb", PARAMETERS, caught, "", "# nothing", "1 / 0", "print('end')"
    )
    notebook = json.loads(path.read_text())
    notebook["cells"][4]["metadata"] = {"tags": ["skip-execution"]}
    path.write_text(json.dumps(notebook))
    with notebooks.job_environment(threads=1):
        notebooks.execute_notebook(path, tmp_path / "log.ipynb", {})
    assert "end" in (tmp_path / "log.ipynb").read_text()


def test_the_command_line_a_sweep_and_a_workflow_say_so(tmp_path, toy_root):
    "Exit code 1, the sentence, and no result that counts as made"
    path = write_notebook(
        tmp_path / "20_toy.ipynb", PARAMETERS, RESULT, "if seed: raise SystemExit(0)", "1"
    )
    log, folder = tmp_path / "log.ipynb", tmp_path / "result"
    done = fairparse("run", path, log, "-p", "seed", 1, "-p", "out", folder)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: a cell ended the notebook (SystemExit)"), done.stderr

    swept = fairparse("sweep", path, "-g", "seed=0,1", "--out", tmp_path / "sweep", "--cores", 1)
    assert swept.returncode == 1 and "1 of 2 points failed" in swept.stderr, swept.stderr
    assert "failed: seed=1: a cell ended the notebook" in swept.stderr, swept.stderr
    rows = (tmp_path / "sweep" / "results.csv").read_text().split()
    assert rows == ["seed", "0"]

    early = (
        "import sys\nfrom fairparse import toy_tables\ntoy_tables.write(out, 'a,b\\n')\nsys.exit(0)"
    )
    paper = toy_root / "nbs" / "paper" / "80_table1_objectives.ipynb"
    signature = 'out = ""\nparsers = ""\nobjectives = []\nseeds = []\ndigits = 2'
    write_notebook(paper, signature, early, "print('the rest')")
    words = "reproduce --profile toy --cores 1 --stages table1".split()
    done = fairparse(*words, cwd=toy_root)
    assert done.returncode == 1 and "a cell ended the notebook" in done.stderr, done.stderr
    assert not (toy_root / "outputs" / "toy" / "tables" / "table1_objectives.csv").exists()
