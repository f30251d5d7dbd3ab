"""What a value on the command line stands for: text where the notebook says text, never a guess

Python, YAML 1.1 and `float` read these as something else than the text that they are: octal,
hexadecimal, infinity, minutes, dates, true and false."""

import json

import pytest
import yaml
from conftest import fairparse, write_notebook

from fairparse.core.assets import dump_yaml, load_yaml, parse_texts, read_yaml
from fairparse.core.runs import InputError
from fairparse.workflow import grid, notebooks, profiles

PARAMETERS = """out = ""  # where it goes
title = "a"  # of the table
day = None  # None, or a date
commit = None  # None, or an abbreviated commit
schedule = None  # None, "linear" or "sigmoid"
scale = None  # None, or a factor of the loss
weights = None  # None, or for instance {"steepness": 6}
count = 3  # faces
lr = 0.1  # learning rate
flip = True  # mirror
names = ["single"]  # objectives
steps = [0.1, 1]  # severities
groups = []  # attributes; []: all
more = {}  # settings
limit = None  # at most so many files; None: all
number = None  # number in the file name
other = None  # as in the folder's record, or a factor
local = None  # at most one; None: a local weights file
"""
ODD = (
    *("2024-01-02", "007", "12e4567", "1234e56", "1:30", "1_000", "on", "off", "yes", "no", "~"),
    *("0x10", "inf", "nan", ".inf", "-inf", "010", "1e5", "2024-01-02 10:00:00", "a: b", "- a"),
)


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "20_toy.ipynb", PARAMETERS, "print(count)")


def read(notebook, name, text):
    return notebooks.check_parameters(notebook, {}, {name: text})[name]


@pytest.mark.parametrize("text", [*ODD, ".5", "3", "0.5", "true", "[1]", "{a: 1}", "#x"])
@pytest.mark.parametrize("name", ["title", "day", "commit", "schedule"])
def test_text_stays_text_where_default_or_comment_says_so(notebook, name, text):
    assert read(notebook, name, text) == text


def test_none_and_quotes_where_the_comment_says_text(notebook):
    for text in ("None", "null"):
        assert read(notebook, "day", text) is None
    assert read(notebook, "commit", "'null'") == "null" and read(notebook, "day", '"3"') == "3"


def test_a_comment_that_mentions_files_does_not_make_a_number_text(notebook):
    assert [read(notebook, name, "100") for name in ("limit", "number", "other")] == [100] * 3
    assert read(notebook, "local", "100") == "100"


@pytest.mark.parametrize(
    "text,texts",
    [
        (r'["C:\\data"]', ["C:\\data"]),
        ("['it\\'s', 'b']", ["it's", "b"]),
        ("['a' 'b']", ["ab"]),
        ("[007, on]", ["007", "on"]),
    ],
)
def test_lists_of_texts_as_python_and_yaml_write_them(text, texts):
    assert parse_texts(text) == texts


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("name", ["scale", "weights"])
def test_what_may_be_either_is_refused_where_nothing_says_what(notebook, name, text):
    with pytest.raises(InputError, match=f"{name}.*may be text or something else.*None, or a name"):
        read(notebook, name, text)


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        ("null", None),
        ("true", True),
        ("linear", "linear"),
        ("[0.4, 0.6]", [0.4, 0.6]),
        ("{rotate: 10}", {"rotate": 10}),
        ('"007"', "007"),
        ('["007", 1]', ["007", 1]),
    ],
)
def test_what_is_clear_is_read_where_nothing_says_what(notebook, text, value):
    found = read(notebook, "scale", text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("count", "1_000", 1000),
        ("count", "0x10", 16),
        ("count", "007", InputError),
        ("count", "010", InputError),
        ("count", "1:30", InputError),
        ("count", "1e3", InputError),
        ("count", "2024-01-02", InputError),
        ("count", "~", InputError),
        ("lr", "1e3", 1000.0),
        ("lr", ".5", 0.5),
        ("lr", "1_000", 1000.0),
        ("lr", "inf", InputError),
        ("lr", "nan", InputError),
        ("lr", ".inf", InputError),
        ("lr", "12e4567", InputError),
        ("lr", "1:30", InputError),
        ("lr", "1,5", InputError),
        ("flip", "true", True),
        ("flip", "False", False),
        ("flip", "on", InputError),
        ("flip", "no", InputError),
        ("flip", "1", InputError),
        ("names", "[007, 1e5, on, null, 1:30]", ["007", "1e5", "on", "null", "1:30"]),
        ("names", "['a', 'b']", ["a", "b"]),
        ("names", "on", InputError),
        ("steps", "[1, 0.5]", [1.0, 0.5]),
        ("steps", "[007]", InputError),
        ("steps", "[a]", InputError),
        ("steps", "[12e4567]", InputError),
        ("groups", "[007, on, 12e4567, 1:30]", ["007", "on", "12e4567", "1:30"]),
        ("more", "{a: on, b: 010, c: 2024-01-02}", {"a": "on", "b": "010", "c": "2024-01-02"}),
    ],
)
def test_values_of_a_typed_default(notebook, name, text, value):
    if value is InputError:
        with pytest.raises(InputError, match=f"'{name}"):
            read(notebook, name, text)
    else:
        assert read(notebook, name, text) == value


def test_a_sweep_reads_as_a_run_does(notebook):
    assert grid.parse_grid(notebook, ["commit=007,12e4567,1:30,null"]) == {
        "commit": ["007", "12e4567", "1:30", None]
    }
    assert grid.parse_grid(notebook, ["title=007,2024-01-02,on,~"]) == {
        "title": ["007", "2024-01-02", "on", "~"]
    }
    with pytest.raises(InputError, match="may be text or something else"):
        grid.parse_grid(notebook, ["scale=1,007"])
    names = grid.grid_points({"commit": ["007", "7", 7, "1e5", "on"]})
    assert len(names) == 5


def test_a_file_of_parameters_keeps_texts_too(tmp_path, notebook):
    path = tmp_path / "p.yaml"
    path.write_text("day: 2024-01-02\ncommit: 12e4567\ntitle: 1:30\ngroups: [on, 007]\nlr: 1e-4\n")
    assert notebooks.check_parameters(notebook, read_yaml(path)) == {
        "day": "2024-01-02",
        "commit": "12e4567",
        "title": "1:30",
        "groups": ["on", "007"],
        "lr": 1e-4,
    }
    for text, word in (("more: {a: .inf}", "cannot be handed"), ("count: 010", "must be int")):
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            notebooks.check_parameters(notebook, read_yaml(path))


def test_json_on_the_command_line_is_json():
    "Halves of a character that JSON writes as two are one again"
    given = {"title": "face \U0001f600 {x} $HOME", "lr": 1e-05, "count": 10**20}
    assert read_yaml(json.dumps(given)) == given


def test_yaml_scalars_are_those_of_json():
    assert load_yaml("[1, -2, +3, 0, 0.5, .5, 1., 1e3, -1E-2, true, null, ~, .inf]") == [
        *(1, -2, 3, 0, 0.5, 0.5, 1.0, 1000.0, -0.01, True, None, None, float("inf"))
    ]
    for text in ("00", "1_0", "0b1", "0o7", "1:2:3", "y", "Yes", "ON", "=", "1e", "e5", "12e4567"):
        assert load_yaml(f"[{text}]") == [text]


def test_what_is_written_down_is_read_back_as_it_was():
    "By our reader, and by that of YAML 1.1, which Snakemake uses"
    given = {"texts": [*ODD, "", "null", "true", ".5", "3"], "numbers": [1e-5, 1e300, 3, None]}
    assert load_yaml(dump_yaml(given)) == given
    assert yaml.safe_load(dump_yaml(given)) == given


def test_settings_of_a_profile_keep_texts_too():
    profile = profiles.load_profile("ci", ["train.schedule=007", "objectives=[single, 007, on]"])
    assert profile["train"]["schedule"] == "007"
    assert profile["objectives"] == ["single", "007", "on"]
    for setting, word in (
        ("train.noise_std=12e4567", "may be text or something else"),
        ("threads.train=010", "must be int"),
        ("resources.mem_mb=1:30", "must be int"),
        ("resources.train.slurm_account=1234e56", "may be text or something else"),
        ("cross_validation=on", "must be true or false"),
    ):
        with pytest.raises(InputError, match=word):
            profiles.load_profile("ci", [setting])


def test_the_command_line_says_it_in_a_sentence(tmp_path, notebook):
    for text in ("2024-01-02", "12e4567"):
        done = fairparse("run", notebook, tmp_path / "log.ipynb", "-p", "scale", text)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert "may be text or something else" in done.stderr
    words = ("-p", "day", "2024-01-02", "-p", "commit", "007")
    done = fairparse("run", notebook, tmp_path / "log.ipynb", *words)
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "log.ipynb").read_text())
    given = log["metadata"]["papermill"]["parameters"]
    assert given == {"day": "2024-01-02", "commit": "007"}
