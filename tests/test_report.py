"Publishing: what is copied, what the README gets, and what is refused"
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.report import fill_block, markdown_table, publish
from fairparse.tables import table1
from fairparse.runs import InputError, write_json


def make_output(folder, sources):
    "An output folder with one table, one figure and sample predictions"
    for sub in ("tables", "figures", "10_faces", "20_parsers/linear/seed0"): (folder / sub).mkdir(parents=True)
    counts = {"single": np.full((2, 40, 19, 3), (60, 20, 20)), "linear": np.full((2, 40, 19, 3), (80, 10, 10))}
    table1(counts, "made-up counts", resamples=20).to_csv(folder / "tables" / "table1_objectives.csv", index=False)
    for picture in ("figures/figure2_schedules.png", "20_parsers/linear/seed0/predictions.png"): Image.new("RGB", (8, 6), "white").save(folder / picture)
    write_json(folder / "10_faces" / "faces.json", {"sources": sources, "count": 40, "size": 8})
    (folder / "profile.yaml").write_text("objectives: [single, linear]\n")
    return folder


def test_tables_pictures_and_readme(tmp_path):
    out, readme = make_output(tmp_path / "demo", ["procedural faces, seed 0"]), tmp_path / "README.md"
    readme.write_text("a\n<!-- table1 -->\nold\n<!-- /table1 -->\nb\n")
    publish(out, tmp_path / "published", readme)
    assert (tmp_path / "published" / "predictions.png").read_bytes() == (out / "20_parsers/linear/seed0/predictions.png").read_bytes()
    assert (tmp_path / "published" / "tables" / "table1_objectives.csv").is_file()
    page = readme.read_text()
    assert "old" not in page and "| 80.00 (80.00 to 80.00) | 74.21 | 20.00 (20.00 to 20.00) | 0.048 | better |" in page and page.startswith("a\n") and page.endswith("b\n")


def test_paintings_reach_the_readme(tmp_path):
    out, readme = make_output(tmp_path / "demo", ["procedural faces, seed 0"]), tmp_path / "README.md"
    ends = {"": 2.0, "_low": 1.0, "_high": 3.0, "_difference": -0.5, "_verdict": "better"}
    row = {"generator": "one GAN for all", "title": "Linear", "follow_share": 61.2, "reported_fid": 99.93, "reported_lpips": 0.4269, "repetitions": 2}
    pd.DataFrame([row | {f"{metric}{end}": value for metric in ("fd128_classifier_test", "kd128_classifier_test", "stlpips_alex") for end, value in ends.items()}]).to_csv(out / "tables" / "table4_synthesis.csv", index=False)
    (out / "profile.yaml").write_text("gan: {}\n")
    readme.write_text("<!-- table1 -->\n<!-- /table1 -->\n<!-- table4 -->\nold\n<!-- /table4 -->\n")
    publish(out, tmp_path / "published", readme)
    page = readme.read_text()
    assert "fd128_classifier_test" in page and "| one GAN for all | Linear | 2 (1 to 3) | -0.50 | better |" in page and "| 61 |" in page and "old" not in page


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


@pytest.mark.parametrize("name", ["table1_objectives", "table4_synthesis"])
def test_a_missing_table_is_named(tmp_path, name):
    out, readme = make_output(tmp_path / "demo", ["procedural faces, seed 0"]), tmp_path / "README.md"
    (out / "profile.yaml").write_text("gan: {}\n")
    (out / "tables" / f"{name}.csv").unlink(missing_ok=True)
    readme.write_text("<!-- table1 -->\n<!-- /table1 -->\n<!-- table4 -->\n<!-- /table4 -->\n")
    with pytest.raises(InputError, match=f"{name}.csv is missing"): publish(out, tmp_path / "published", readme)
