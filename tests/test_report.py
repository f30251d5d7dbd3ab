"Publishing: what is copied, what the README gets, and what is refused"
import numpy as np
import pandas as pd
import pytest

from fairparse.report import fill_block, markdown_table, publish
from fairparse.tables import table1
from fairparse.runs import InputError, write_json


def make_output(folder, sources):
    "An output folder with one table, one figure and sample predictions"
    for sub in ("tables", "figures", "10_faces", "20_parsers/linear/seed0"): (folder / sub).mkdir(parents=True)
    counts = {"single": np.full((2, 40, 19, 3), (60, 20, 20)), "linear": np.full((2, 40, 19, 3), (80, 10, 10))}
    table1(counts, "made-up counts", resamples=20).to_csv(folder / "tables" / "table1_objectives.csv", index=False)
    for picture in ("figures/figure2_schedules.png", "20_parsers/linear/seed0/predictions.png"): (folder / picture).write_bytes(b"png")
    write_json(folder / "10_faces" / "faces.json", {"sources": sources})
    return folder


def test_tables_pictures_and_readme(tmp_path):
    out, readme = make_output(tmp_path / "demo", ["procedural faces, seed 0"]), tmp_path / "README.md"
    readme.write_text("a\n<!-- table1 -->\nold\n<!-- /table1 -->\nb\n")
    publish(out, tmp_path / "published", readme)
    assert (tmp_path / "published" / "predictions.png").read_bytes() == b"png"
    assert (tmp_path / "published" / "tables" / "table1_objectives.csv").is_file()
    page = readme.read_text()
    assert "old" not in page and "| 80.00 | 80.00 to 80.00 | 20.00 | 20.00 to 20.00 | 0.05 | better |" in page and page.startswith("a\n") and page.endswith("b\n")


def test_real_faces_are_not_published(tmp_path):
    out = make_output(tmp_path / "sample", ["CelebAMask-HQ"])
    with pytest.raises(InputError, match="CelebAMask-HQ.*procedural"): publish(out, tmp_path / "published", tmp_path / "README.md")
    assert not (tmp_path / "published").exists()


def test_missing_block_is_named():
    with pytest.raises(InputError, match="table9"): fill_block("no blocks", "table9", "x")


def test_markdown_leaves_missing_values_empty():
    assert markdown_table(pd.DataFrame({"a": [1.234], "b": [None]})).splitlines()[-1] == "| 1.23 |  |"


def test_unfinished_output_is_named(tmp_path):
    out = make_output(tmp_path / "demo", ["procedural faces, seed 0"])
    (out / "20_parsers/linear/seed0/predictions.png").unlink()
    with pytest.raises(InputError, match="predictions.png is missing"): publish(out, tmp_path / "published", tmp_path / "README.md")
