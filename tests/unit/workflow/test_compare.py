"""Two output folders held against each other

What counts as a difference, where it is, what is left out."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from PIL import Image
from safetensors.numpy import save_file

from fairparse.core.runs import InputError
from fairparse.workflow.compare import compare, compare_arrays, compare_folders, describe_comparison


def make_run(folder, seconds=1.0, miou=0.7, commit="a"):
    "An output folder with a file of every kind"
    for sub in (
        "tables",
        "20_parsers/single/seed0/checkpoint",
        "10_faces",
        ".snakemake",
        "figures",
    ):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {"objective": ["single", "linear"], "miou": [0.6, miou], "n": [10, 12], "seconds": seconds}
    )
    table.to_csv(folder / "tables" / "table1.csv", index=False)
    parser = folder / "20_parsers" / "single" / "seed0"
    table.assign(masked=pd.array([1, None], "Int8"), sizes=[np.arange(3), np.arange(2)]).to_parquet(
        parser / "history.parquet"
    )
    record = {
        "parameters": {"lr": 0.1, "labellers": [f"{folder}/60_classifiers/a"]},
        "inputs": {f"{folder}/10_faces/images.npy": commit * 3, "/data/labels.csv": "1f"},
        "code": {"commit": commit},
        "packages": {"torch": commit},
        "processor": {"model": commit},
        "files": [commit],
        "started": commit,
        "seconds": seconds,
        "training_seconds": seconds,
        "test_miou": miou,
    }
    (parser / "run.json").write_text(json.dumps(record))
    np.save(folder / "10_faces" / "images.npy", np.arange(24, dtype=np.uint8).reshape(4, 6))
    np.savez(parser / "examples.npz", ids=np.array(["a", "b"]), maps=np.ones((2, 3)))
    save_file({"weight": np.ones((2, 2), np.float32)}, parser / "model.safetensors")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "figures" / "figure2.png")
    (folder / "profile.yaml").write_text(f"seeds: [0]\nfolder: {folder}\n")
    (folder / "DATASHEET.md").write_text(
        f"made in {folder}\nfrom {'/'.join(folder.parts[-3:])}/10_faces\n"
    )
    for log in (
        "tables/80.ipynb",
        ".fairparse.lock",
        ".snakemake/log",
        "20_parsers/single/seed0/checkpoint/state.pt",
        "report.html",
    ):
        (folder / log).write_text(f"at {seconds}")
    return folder


@pytest.fixture
def runs(tmp_path):
    return make_run(tmp_path / "a"), make_run(tmp_path / "deeper" / "b", seconds=2.5, commit="b")


def found(runs, **options):
    return compare_folders(*runs, **options).differences


def test_runs_that_differ_in_time_and_place_alone_are_equal(runs, capsys):
    result = compare_folders(*runs)
    assert (
        not len(result.differences)
        and result.files == 9
        and result.left_out == 10
        and result.values > 40
    ), result.differences.to_string()
    assert compare(*runs) == 0 and capsys.readouterr().out.startswith("equal: 9 files")


def test_a_copied_folder_is_equal_to_itself(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "elsewhere" / "copy")
    assert not len(found((runs[0], tmp_path / "elsewhere" / "copy")))
    record = tmp_path / "elsewhere" / "copy" / "20_parsers/single/seed0/run.json"
    record.write_text(record.read_text().replace("60_classifiers/a", "60_classifiers/b"))
    assert found((runs[0], tmp_path / "elsewhere" / "copy")).what.tolist() == [
        "parameters.labellers.0"
    ]


def spoil_number(folder):
    make_run(folder, miou=0.7 + 1e-12)


def spoil_array(folder):
    np.save(folder / "10_faces" / "images.npy", np.arange(24, dtype=np.uint8).reshape(4, 6)[::-1])


def spoil_shape(folder):
    np.save(folder / "10_faces" / "images.npy", np.arange(24, dtype=np.uint8))


def spoil_weights(folder):
    save_file(
        {"weight": np.eye(2, dtype=np.float32)},
        folder / "20_parsers/single/seed0/model.safetensors",
    )


def spoil_names(folder):
    np.savez(
        folder / "20_parsers/single/seed0/examples.npz",
        ids=np.array(["a", "c"]),
        maps=np.ones((2, 3)),
    )


def spoil_pixel(folder):
    Image.fromarray(np.eye(4, dtype=np.uint8)[:, :, None].repeat(3, 2)).save(
        folder / "figures" / "figure2.png"
    )


def spoil_text(folder):
    (folder / "DATASHEET.md").write_text("made elsewhere\n")


def spoil_profile(folder):
    (folder / "profile.yaml").write_text(f"seeds: [0, 1]\nfolder: {folder}\n")


def spoil_absence(folder):
    (folder / "DATASHEET.md").unlink()


def spoil_rows(folder):
    pd.DataFrame({"objective": ["single"], "miou": [0.6], "n": [10]}).to_csv(
        folder / "tables" / "table1.csv", index=False
    )


def spoil_columns(folder):
    pd.DataFrame({"objective": ["single", "linear"], "miou": [0.6, 0.7]}).to_csv(
        folder / "tables" / "table1.csv", index=False
    )


def spoil_input(folder):
    path = folder / "20_parsers/single/seed0/run.json"
    path.write_text(path.read_text().replace('"1f"', '"2f"'))


@pytest.mark.parametrize(
    "spoil, file, words",
    [
        (
            spoil_number,
            "tables/table1.csv",
            [
                (
                    "miou: 1 of 2 differ; largest difference 1e-12, relative 1.43e-12; 0.7 and "
                    "0.7 in row 1, objective=linear"
                )
            ],
        ),
        (spoil_array, "10_faces/images.npy", ["24 of 24 differ", "largest difference 18"]),
        (spoil_shape, "10_faces/images.npy", ["shape (4, 6) and (24,)"]),
        (
            spoil_weights,
            "20_parsers/single/seed0/model.safetensors",
            ["weight: 2 of 4 differ", "row 0, 1"],
        ),
        (
            spoil_names,
            "20_parsers/single/seed0/examples.npz",
            ["ids: 1 of 2 differ", "'b' and 'c'"],
        ),
        (spoil_pixel, "figures/figure2.png", ["pixels: 12 of 48 differ"]),
        (spoil_text, "DATASHEET.md", ["made in …", "from …/10_faces", "made elsewhere"]),
        (spoil_profile, "profile.yaml", ["seeds (length): 1 and 2"]),
        (spoil_absence, "DATASHEET.md", ["only in the first: DATASHEET.md"]),
        (spoil_rows, "tables/table1.csv", ["2 rows and 1 rows"]),
        (spoil_columns, "tables/table1.csv", ["n: only in the first"]),
        (
            spoil_input,
            "20_parsers/single/seed0/run.json",
            ["inputs./data/labels.csv: '1f' and '2f'"],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_difference_is_found_and_placed(runs, spoil, file, words, capsys):
    spoil(runs[1])
    assert file in set(found(runs).file)
    assert compare(*runs) == 1
    text = capsys.readouterr().out
    for word in words:
        assert word in text, text
    assert "different: " in text


def differences(folder, name, write, *values):
    "Rows of the comparison of one file, written with two values"
    for sub, value in zip("ab", values):
        (folder / sub).mkdir(exist_ok=True)
        write(folder / sub / name, value)
    return compare_folders(folder / "a", folder / "b").differences


def write_record(path, value):
    path.write_text(json.dumps({"a": 1, "b": value} if value != "absent" else {"a": 1}))


@pytest.mark.parametrize(
    "a, b",
    [
        ([], {}),
        ([], "absent"),
        ({}, "absent"),
        ([], None),
        (True, 1),
        (False, 0),
        (1.0, True),
        ("1", 1),
        (None, "None"),
        ([], [0]),
        ({}, {"c": 1}),
        ([[], 1], [{}, 1]),
    ],
    ids=str,
)
def test_different_entries_of_a_record_are_different(tmp_path, a, b):
    assert len(differences(tmp_path, "run.json", write_record, a, b)) and len(
        differences(tmp_path, "run.json", write_record, b, a)
    )
    assert not len(differences(tmp_path, "run.json", write_record, a, a)) and not len(
        differences(tmp_path, "run.json", write_record, b, b)
    )


def test_lists_of_different_length_are_told_once(tmp_path):
    rows = differences(tmp_path, "run.json", write_record, list(range(100)), [7, *range(1, 60)])
    assert rows.what.tolist() == ["b (length)", "b.0"] and "100" in describe_comparison(
        compare_folders(tmp_path / "a", tmp_path / "b")
    )
    nested = differences(
        tmp_path, "run.json", write_record, [{"c": i} for i in range(9)], [{"c": 0}]
    )
    assert nested.what.tolist() == ["b (length)"]
    lines = differences(
        tmp_path,
        "log.jsonl",
        lambda path, n: path.write_text("".join(f'{{"loss": {i}}}\n' for i in range(n))),
        3,
        9,
    )
    assert lines[lines.file == "log.jsonl"].what.tolist() == [" (length)"]


def test_text_of_a_table_is_not_a_missing_value(tmp_path):
    for texts in (["None", "NA"], ["None", ""], ["NA", ""], ["nan", "NULL"]):
        rows = differences(
            tmp_path,
            "t.csv",
            lambda path, text: path.write_text(f"name,n\nx,1\n{text},2\n"),
            *texts,
        )
        assert rows.what.tolist() == ["name"] and rows.differ.tolist() == [1], texts
    assert not len(
        differences(
            tmp_path,
            "t.csv",
            lambda path, text: path.write_text(f"name,n\n{text},2\n,\n"),
            "None",
            "None",
        )
    )
    close = ["0.3333333333333333", "0.33333333333333337"]
    assert (
        len(
            differences(
                tmp_path, "t.csv", lambda path, text: path.write_text(f"n\n{text}\n"), *close
            )
        )
        == 1
    )


def test_a_column_may_be_called_length(tmp_path):
    write = lambda path, rows: path.write_text("n (length),n\n" + rows)
    assert differences(tmp_path, "t.csv", write, "1,2\n", "2,3\n").what.tolist() == [
        "n (length)",
        "n",
    ] and not len(differences(tmp_path, "t.csv", write, "", ""))


def test_palettes_are_compared_by_colour(tmp_path):
    def write(path, palette):
        image = (
            Image.fromarray(
                np.array(
                    [[0, 1], [1, 0]] if palette[:3] == [255, 0, 0] else [[1, 0], [0, 1]], np.uint8
                ),
                mode="P",
            )
            if len(palette) > 6
            else Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
        )
        image.putpalette(palette[:6])
        image.save(path)

    red, blue, green = [255, 0, 0], [0, 0, 255], [0, 255, 0]
    assert (
        len(differences(tmp_path, "p.png", write, red + blue, red + green)) == 1
    )  # the same indices, other colours
    assert not len(
        differences(tmp_path, "p.png", write, red + blue + [0], blue + red + [0])
    )  # other indices, the same colours


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float16", "int8"])
def test_weights_of_any_type(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    def write(path, value):
        save_torch(
            {"w": torch.tensor([1.0, value]).to(getattr(torch, kind)), "other": torch.ones(2)}, path
        )

    assert differences(tmp_path, "m.safetensors", write, 2.0, 3.0).what.tolist() == [
        "w"
    ] and not len(differences(tmp_path, "m.safetensors", write, 2.0, 2.0))


def test_tolerance_is_for_numbers_that_are_not_whole(runs):
    make_run(runs[1], miou=0.7001)
    assert (
        len(found(runs)) == 3
        and not len(found(runs, tolerance=1e-3))
        and len(found(runs, tolerance=1e-5)) == 3
    )
    spoil_array(runs[1])
    assert set(found(runs, tolerance=100.0).file) == {"10_faces/images.npy"}
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tolerance"):
            found(runs, tolerance=bad)


@pytest.mark.parametrize(
    "a, b, differ",
    [
        ([1.0, np.nan], [1.0, np.nan], None),
        ([1.0, np.nan], [1.0, 2.0], 1),
        ([np.inf, 1], [np.inf, 1], None),
        ([np.inf, 1.0], [-np.inf, 1.0], 1),
        ([2**62], [2**62 + 1], 1),
        ([True, False], [True, True], 1),
        ([1, 2], [1.0, 2.0], None),
        (["a", ""], ["a", ""], None),
        (["a", "b"], ["a", "c"], 1),
    ],
    ids=str,
)
def test_arrays(a, b, differ):
    result = compare_arrays(np.array(a), np.array(b))
    assert (result and result["differ"]) == differ


def test_large_arrays_are_compared_in_pieces(monkeypatch):
    from fairparse.workflow import compare as module

    a = np.random.default_rng(0).normal(size=(50, 7))
    b = a.copy()
    b[3, 2] += 1
    b[31, 5] -= 4
    b[49, 6] += 2
    whole = compare_arrays(a, b)
    monkeypatch.setattr(module, "_piece", 20)
    assert (
        compare_arrays(a, b) == whole
        and whole["differ"] == 3
        and whole["at"] == (31, 5)
        and abs(whole["absolute"] - 4) < 1e-12
    )


def test_a_long_list_is_cut(runs):
    for row in range(40):
        (runs[0] / f"only{row}.md").write_text("x")
    pd.DataFrame({f"c{i}": [0] for i in range(100)}).to_csv(runs[0] / "wide.csv")
    pd.DataFrame({f"c{i}": [1] for i in range(100)}).to_csv(runs[1] / "wide.csv")
    text = describe_comparison(compare_folders(*runs), most=10)
    assert len(text.splitlines()) == 12 and "lines more" in text


def test_two_files(runs):
    a, b = (run / "tables" / "table1.csv" for run in runs)
    assert compare_folders(a, b).files == 1 and not len(found((a, b)))
    spoil_rows(runs[1])
    assert len(found((a, b))) == 1


def test_bad_input(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for pair, words in (
        ((runs[0], tmp_path / "absent"), "is missing"),
        ((runs[0], tmp_path / "empty"), "holds no results"),
        ((runs[0], runs[1] / "profile.yaml"), "two of a kind"),
    ):
        with pytest.raises(InputError, match=words):
            compare_folders(*pair)
    for name, content in (
        ("10_faces/images.npy", b"\x93NUMPY"),
        ("20_parsers/single/seed0/run.json", b"{"),
        ("20_parsers/single/seed0/history.parquet", b"PAR1"),
        ("figures/figure2.png", b"\x89PNG"),
        ("20_parsers/single/seed0/model.safetensors", b"1234"),
        ("20_parsers/single/seed0/examples.npz", b"PK"),
        ("profile.yaml", b"a: ["),
    ):
        whole = (runs[1] / name).read_bytes()
        (runs[1] / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{(runs[1] / name).name} cannot be read"):
            compare_folders(*runs)
        (runs[1] / name).write_bytes(whole)
    assert not len(found(runs))


def test_comparing_needs_no_torch():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import fairparse.workflow.compare, sys; sys.exit('torch' in sys.modules)",
        ],
        cwd=ROOT,
    )
    assert done.returncode == 0
