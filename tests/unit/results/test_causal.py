"Causal effects: those of a parser whose mistakes are known, from its maps and from itself"

import numpy as np
import pandas as pd
import pytest
from conftest import fairparse
from helpers import make_parser
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES
from fairparse.parsing.unet import save_parser
from fairparse.results.causal import (
    causal_audit,
    count_maps,
    describe_effects,
    draw_effects,
    effect_table,
    trainings_in,
)
from fairparse.robustness.causal_pairs import INTERVENTIONS, write_pairs

SKIN, NOSE = CLASSES.index("skin"), CLASSES.index("nose")


def made_up(levels, faces=60, trainings=3, seed=0):
    "Counts of two classes: {level: (share of skin found, of nose found)}; faces are of all sizes"
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 1000, (faces, 2))
    counts = {}
    for level, shares in levels.items():
        found = np.zeros((trainings, faces, len(CLASSES), 3), int)
        for k, (label, share) in enumerate(zip((SKIN, NOSE), shares)):
            tp = rng.binomial(size[:, k], share, (trainings, faces))
            found[:, :, label] = np.stack([tp, np.zeros_like(tp), size[:, k] - tp], -1)
        counts[level] = found
    return counts


def test_effects_are_found_and_those_that_are_none_are_equal():
    table = effect_table({"age": made_up({"young": (0.9, 0.8), "old": (0.9, 0.6)})}, resamples=300)
    rows = table.set_index("class")
    assert list(rows.index) == ["skin", "nose", "mean"]
    assert rows.verdict.tolist() == ["equal within 1 point", "worse", "worse"]
    assert rows.difference["nose"] == pytest.approx(-20, abs=1)
    assert rows.low["nose"] < -20 < rows.high["nose"] + 1
    assert rows.difference["mean"] == pytest.approx(rows.difference[["skin", "nose"]].mean())
    assert (rows.faces == 60).all() and (rows.trainings == 3).all()
    said = describe_effects(table)
    assert len(said) == 1 and "age, old instead of young" in said[0] and "nose" in said[0]


def test_intervals_hold_a_known_effect():
    held = []
    for seed in range(60):
        counts = {"age": made_up({"young": (0.9, 0.8), "old": (0.88, 0.8)}, 40, 1, seed)}
        row = effect_table(counts, resamples=200).set_index("class").loc["skin"]
        held.append(row.low <= -2 <= row.high)
    assert np.mean(held) >= 0.88


def test_what_the_change_draws_has_no_row():
    glasses = made_up({"none": (0.9, 0.8), "on": (0.9, 0.7)})
    glasses["on"][..., CLASSES.index("eye_g"), 0] = 5
    glasses["none"][..., CLASSES.index("eye_g"), 1] = 5
    table = effect_table({"glasses": glasses}, resamples=50)
    assert set(table["class"]) == {"skin", "nose", "mean"}
    with pytest.raises(InputError, match="no class"):
        effect_table({"age": {level: 0 * own for level, own in glasses.items()}}, resamples=50)


def test_the_figure_has_a_panel_an_intervention():
    counts = {
        "age": made_up({"young": (0.9, 0.8), "old": (0.9, 0.6)}),
        "light": made_up({"full": (0.9, 0.8), "half": (0.8, 0.8), "quarter": (0.5, 0.4)}),
    }
    figure = draw_effects(effect_table(counts, resamples=50))
    assert [ax.get_title() for ax in figure.axes] == ["age", "light"]
    legends = [[t.get_text() for t in ax.get_legend().get_texts()] for ax in figure.axes]
    assert legends == [["old, not young"], ["half, not full", "quarter, not full"]]
    assert "3 trainings" in figure._supxlabel.get_text()


@pytest.fixture
def pairs(tmp_path):
    write_pairs(tmp_path / "pairs", None, 3, 64, seed=5)
    return tmp_path / "pairs"


def paint_maps(pairs, out, change=lambda label, name, level: label):
    "A parser's maps: the truth, changed by a function of the map and where it lies"
    for path in (pairs / "labels").rglob("*.png"):
        name, level, face = path.relative_to(pairs / "labels").parts
        (out / name / level).mkdir(parents=True, exist_ok=True)
        label = change(np.array(Image.open(path)), name, level)
        Image.fromarray(label).save(out / name / level / face)


def test_maps_of_a_parser_that_fails_in_bad_pictures_alone(tmp_path, pairs, capsys):
    def blind(label, name, level):
        return np.where(label == NOSE, SKIN, label).astype("uint8") if level == "bad" else label

    paint_maps(pairs, tmp_path / "maps", blind)
    table = causal_audit({"mine": tmp_path / "maps"}, tmp_path / "out", pairs, resamples=50)["mine"]
    nose = table[table["class"] == "nose"].set_index(["intervention", "level"]).difference
    assert nose["picture", "bad"] == -100
    assert (table[table.intervention != "picture"].difference == 0).all()
    assert pd.read_csv(tmp_path / "out" / "mine.csv").difference.tolist() == pytest.approx(
        table.difference.tolist()
    )
    assert (tmp_path / "out" / "mine.png").stat().st_size > 10_000
    assert "most for nose, -100.0" in capsys.readouterr().out


def test_maps_that_are_missing_or_of_another_size_are_named(tmp_path, pairs):
    paint_maps(pairs, tmp_path / "maps")
    assert set(count_maps(tmp_path / "maps", pairs)) == set(INTERVENTIONS)
    lost = tmp_path / "maps" / "tone" / "tone_2" / "00001.png"
    Image.open(lost).resize((32, 32)).save(lost)
    with pytest.raises(InputError, match="00001.png is 32x32, its truth 64x64"):
        count_maps(tmp_path / "maps", pairs)
    lost.unlink()
    with pytest.raises(InputError, match="no map of 1 of 3 faces"):
        count_maps(tmp_path / "maps", pairs)
    with pytest.raises(InputError, match="perturb --causal"):
        count_maps(tmp_path / "maps", tmp_path)


def test_the_command_asks_trained_parsers_and_all_their_trainings(tmp_path, monkeypatch):
    for seed in (0, 1):
        save_parser(make_parser(seed), tmp_path / "mine" / f"seed{seed}", "model")
    assert [p.name for p in trainings_in(tmp_path / "mine")] == ["seed0", "seed1"]
    assert trainings_in(tmp_path / "mine" / "seed1") == [tmp_path / "mine" / "seed1"]
    assert trainings_in(tmp_path) == []
    table = causal_audit({"mine": tmp_path / "mine"}, tmp_path / "out", count=2, resamples=20)
    assert (table["mine"].trainings == 2).all() and (table["mine"].faces == 2).all()


def test_the_commands_refuse_what_lacks_a_folder(tmp_path):
    (tmp_path / "maps").mkdir()
    for words, said in {
        ("audit", "--causal", "--maps", f"mine={tmp_path}/maps"): "no trained parser",
        ("audit", "--maps", f"mine={tmp_path}/maps"): "--truth is missing",
        ("perturb",): "--data is missing",
        ("perturb", "--causal", "--data", "x"): "--data says nothing of drawn faces",
        ("audit", "--causal", "--maps", "mine=x", "--appearance"): "--appearance says nothing",
    }.items():
        done = fairparse(*words, "--out", tmp_path / "out")
        assert done.returncode == 2 and said in done.stderr
    done = fairparse("perturb", "--causal", "--count", 1, "--size", 32, "--out", tmp_path / "pairs")
    assert done.returncode == 0 and "14 pictures" in done.stdout
