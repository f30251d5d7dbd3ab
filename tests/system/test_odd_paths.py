"""Folders, data and texts with characters that a shell, Snakemake or argparse has its own use for

Braces are wildcards in Snakemake, a leading dash is an option, `~` a home, `$` a variable."""

import json

import pytest
from cli_helpers import celeba
from conftest import ROOT, fairparse, write_notebook

ODD = ["it's {objective}", 'a "b" $HOME', "-x", "{", "line\nbreak {{x}}", "a~; #é%*\\ \U0001f600"]


@pytest.mark.parametrize("name", ODD)
def test_a_run_goes_through_and_is_known_again(toy_root, name):
    out = toy_root.parent / "outside" / name
    folder = f"--out={name}" if name.startswith("-") else f"--out={out}"
    out = toy_root / name if name.startswith("-") else out
    words = ("reproduce", "--profile", "toy", "--cores", 1, "--stages", "table3", "figure2", folder)
    words = (*words, "--set", "seeds=[0]", "--set", 'figure2.schedules=["{seed} $HOME"]')
    done = fairparse(*words, cwd=toy_root)
    assert done.returncode == 0, done.stderr
    assert (out / "tables" / "table3_class_iou.csv").is_file()
    again = fairparse(*words, "--dry-run", cwd=toy_root)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_run_reads_data_from_such_a_folder(toy_root):
    celeba(toy_root / "se{t}s" / "{x} it's $HOME")
    data = toy_root / "se{t}s" / "{x} it's $HOME"
    words = "reproduce --profile real --stages prepare --cores 1 --data".split()
    done = fairparse(*words, data, cwd=toy_root)
    assert done.returncode == 0, done.stderr
    record = json.loads((toy_root / "outputs" / "real" / "10_faces" / "run.json").read_text())
    assert record["data"] == str(data)


def test_a_sweep_hands_such_texts_on(tmp_path):
    cell = "from pathlib import Path\nPath(out).mkdir(parents=True, exist_ok=True)\n"
    cell += "import json\n(Path(out) / 'run.json').write_text(json.dumps({'told': title}))"
    odd = write_notebook(tmp_path / "20_toy {x}.ipynb", 'out = "a/b"\ntitle = ""', "")
    refused = fairparse("sweep", odd, "-g", "title=a,b", "--out", tmp_path / "refused")
    assert refused.returncode == 2 and "braces in its name" in refused.stderr
    assert not (tmp_path / "refused").exists()
    path = write_notebook(tmp_path / "20_toy it's $HOME.ipynb", 'out = "a/b"\ntitle = ""', cell)
    out = tmp_path / "-sweep {objective} it's $HOME"
    texts = ["{x}", "-x", "~", "$HOME `id`", "it's"]
    grid = "title=" + ",".join(json.dumps(text) for text in texts)
    done = fairparse("sweep", path, "-g", grid, "--out", out, "--cores", 1)
    assert done.returncode == 0, done.stderr
    for text in texts:
        assert any(text in line for line in (out / "results.csv").read_text().splitlines())


def test_a_user_that_there_is_not_is_a_sentence(toy_root):
    toy, doctor = ("reproduce", "--profile", "toy", "--out"), ("doctor", "--out")
    for words, place in ((toy, toy_root), (doctor, ROOT)):
        done = fairparse(*words, "~no_such_user/x", cwd=place)
        assert done.returncode == 2 and "name of a user" in done.stderr, done.stderr
