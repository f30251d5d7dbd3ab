"A sweep: resumed setting by setting, bound to its parser, the same damage whatever the batch"

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_faces, make_parser, run_python

from fairparse.core.records import (
    COUNTS,
    parse_setting,
    read_arrays,
    read_table,
    setting_name,
    write_face_set,
)
from fairparse.core.runs import InputError
from fairparse.data.damage import perturb_masks, perturb_uint8
from fairparse.measure.counts import count_pixels, counts_array
from fairparse.parsing.predict import score_faces
from fairparse.parsing.unet import save_parser
from fairparse.robustness import sweep as sweep_module
from fairparse.robustness.sweep import save_examples, score_setting, sweep_parser

SETTINGS = [("none", 0.0), ("blur", 0.3), ("gaussian_noise", 0.1), ("occlusion", 0.5)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 10, train=2)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    folder, parser = tmp_path_factory.mktemp("parser"), make_parser(0).eval()
    save_parser(parser, folder, "model")
    return parser, folder / "model.safetensors"


def run_sweep(parser, faces, folder, settings=SETTINGS, **options):
    return sweep_parser(
        *parser, faces, faces.rows("test"), settings, folder, "single", 3, progress=False, **options
    )


def read_settings(folder):
    return {p.stem: read_table(p, COUNTS) for p in sorted((folder / "settings").glob("*.parquet"))}


def test_every_setting_is_counted_and_says_what_it_is(faces, parser, tmp_path):
    assert run_sweep(parser, faces, tmp_path) == SETTINGS
    tables = read_settings(tmp_path)
    assert set(tables) == {setting_name(*s) for s in SETTINGS}
    for name, table in tables.items():
        assert {(p, s) for p, s in zip(table.perturbation, table.severity)} == {parse_setting(name)}
        assert set(table.parser) == {"single"}
        assert set(table.seed) == {3}
        ids, counts = counts_array(table)
        true_pixels = counts[..., 0] + counts[..., 2]
        assert (true_pixels.sum(1) == faces.size**2).all()
        assert sorted(ids) == sorted(faces.index.id.iloc[faces.rows("test")])
    clean = counts_array(tables["none"])[1]
    order = np.argsort(faces.index.id.iloc[faces.rows("test")].to_numpy())
    assert (clean == score_faces(parser[0], faces, faces.rows("test"))[order]).all()
    assert any((counts_array(t)[1] != clean).any() for n, t in tables.items() if n != "none")


def test_only_missing_settings_are_made(faces, parser, tmp_path):
    run_sweep(parser, faces, tmp_path, SETTINGS[:2])
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "settings").iterdir()}
    assert run_sweep(parser, faces, tmp_path) == SETTINGS[2:]
    assert all((tmp_path / "settings" / name).stat().st_mtime_ns == t for name, t in before.items())
    assert run_sweep(parser, faces, tmp_path) == []


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_counts_do_not_depend_on_the_batch(faces, parser, batch_size):
    counts = [
        score_setting(parser[0], faces, faces.rows("test"), "gaussian_noise", 0.3, batch_size=b)
        for b in (4, batch_size)
    ]
    assert (
        np.abs(counts[0] - counts[1]).sum() <= 0.001 * counts[0].sum()
    )  # convolutions of other batch sizes may differ in the last bit


def test_damage_depends_on_the_face_and_the_seed_alone(faces):
    rows = faces.rows("test")
    images, ids = np.array(faces.images[rows]), list(faces.index.id.iloc[rows])
    together = perturb_uint8(images, ids, "gaussian_noise", 0.2)
    assert together.dtype == torch.uint8
    for i in (0, len(rows) - 1):
        assert torch.equal(
            perturb_uint8(images[i : i + 1], ids[i : i + 1], "gaussian_noise", 0.2)[0], together[i]
        )
    assert not torch.equal(perturb_uint8(images, ids, "gaussian_noise", 0.2, seed=1), together)
    assert torch.equal(
        perturb_uint8(images, ids, "none", 0.0).permute(0, 2, 3, 1), torch.from_numpy(images)
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from fairparse.robustness import sweep
from fairparse.core.records import open_face_set
from fairparse.parsing.unet import load_parser
real, done = sweep.score_setting, []
def score(*arguments):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return real(*arguments)
sweep.score_setting = score
faces, weights = open_face_set(sys.argv[1]), Path(sys.argv[2])
parser, rows = load_parser(weights.parent), faces.rows("test")
settings = [("none", 0.0), ("blur", 0.3), ("gaussian_noise", 0.1), ("occlusion", 0.5)]
sweep.sweep_parser(
    parser, weights, faces, rows, settings, sys.argv[3], "single", 3, progress=False
)
"""


def test_a_sweep_that_is_killed_goes_on(faces, parser, tmp_path):
    (tmp_path / "work.py").write_text(KILLED)
    assert (
        run_python(
            tmp_path / "work.py", faces.folder, parser[1], tmp_path / "killed", check=False
        ).returncode
        == -signal.SIGKILL
    )
    assert set(read_settings(tmp_path / "killed")) == {"none", "blur_0.3"}
    assert run_sweep(parser, faces, tmp_path / "killed") == SETTINGS[2:]
    run_sweep(parser, faces, tmp_path / "whole")
    for (name, first), second in zip(
        read_settings(tmp_path / "killed").items(), read_settings(tmp_path / "whole").values()
    ):
        pd.testing.assert_frame_equal(first, second, obj=name)


@pytest.mark.parametrize("what", ["parser", "faces", "seed", "code"])
def test_settings_of_something_else_are_not_taken_for_ours(
    faces, parser, tmp_path, monkeypatch, capsys, what
):
    run_sweep(parser, faces, tmp_path / "sweep", SETTINGS[:1])
    options = {}
    if what == "parser":
        other = make_parser(1).eval()
        save_parser(other, tmp_path, "model")
        parser = other, tmp_path / "model.safetensors"
    if what == "faces":
        faces = write_face_set(
            tmp_path / "faces",
            255 - faces.images,
            faces.masks,
            faces.index,
            faces.classes,
            ["other"],
        )
    if what == "seed":
        options = {"seed": 1}
    if what == "code":
        monkeypatch.setattr(sweep_module, "damage_code", lambda: "changed")
    assert run_sweep(parser, faces, tmp_path / "sweep", SETTINGS[:2], **options) == SETTINGS[:2]
    assert "made again" in capsys.readouterr().out


def test_examples_hold_what_the_figure_shows(faces, parser, tmp_path):
    rows = faces.rows("test")[:3]
    save_examples(parser[0], faces, rows, SETTINGS[1:], tmp_path / "examples.npz")
    found = read_arrays(tmp_path / "examples.npz", "images", "maps", "truth", "settings", "ids")
    assert found["images"].shape == (3, 3, faces.size, faces.size, 3)
    assert found["maps"].shape == (3, 3, faces.size, faces.size)
    assert (found["truth"] == faces.masks[rows]).all()
    assert found["settings"].tolist() == [
        "blur_0.3",
        "gaussian_noise_0.1",
        "occlusion_0.5",
    ]
    assert found["ids"].tolist() == list(faces.index.id.iloc[rows])
    assert (
        found["images"][1]
        == perturb_uint8(faces.images[rows], faces.index.id.iloc[rows], "gaussian_noise", 0.1)
        .permute(0, 2, 3, 1)
        .numpy()
    ).all()


def test_no_faces_and_other_classes_are_refused(faces, parser, tmp_path):
    with pytest.raises(InputError, match="no faces"):
        sweep_parser(*parser, faces, np.array([], int), SETTINGS, tmp_path, "single", 0)
    other = make_parser(0, classes=("background", "skin"))
    with pytest.raises(InputError, match="other classes"):
        sweep_parser(other, parser[1], faces, faces.rows("test"), SETTINGS, tmp_path, "single", 0)


@pytest.mark.parametrize("name", ["", "blur", "blur_much", "_0.3", "0.3"])
def test_names_that_name_no_setting(name):
    with pytest.raises(InputError, match="names no setting"):
        parse_setting(name)


@pytest.mark.parametrize(
    "setting", [("none", 0.0), ("salt_and_pepper", 0.1), ("blur", 0.25), ("jpeg", 1.0)]
)
def test_setting_names_round_trip(setting):
    assert parse_setting(setting_name(*setting)) == setting


def test_damaged_arrays_are_named(tmp_path):
    with pytest.raises(InputError, match="examples.npz is missing"):
        read_arrays(tmp_path / "examples.npz", "maps")
    (tmp_path / "examples.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match="examples.npz is not readable"):
        read_arrays(tmp_path / "examples.npz", "maps")
    np.savez(tmp_path / "examples.npz", images=np.zeros(2))
    with pytest.raises(InputError, match="maps"):
        read_arrays(tmp_path / "examples.npz", "maps")


def test_labels_follow_what_covers_the_face(tmp_path):
    "A parser that says what a hand's pixels are worth is counted against the labels of the picture"
    faces = make_faces(tmp_path / "faces", 6)
    parser, rows = make_parser(0).eval(), np.arange(6)
    counts = sweep_module.score_setting(parser, faces, rows, "hand", 0.5, seed=3)
    _, maps = sweep_module.parse_damaged(parser, faces, rows, "hand", 0.5, seed=3)
    truth = perturb_masks(faces.masks[rows], faces.index.id, "hand", 0.5, seed=3)
    assert (truth.numpy() != faces.masks[rows]).any()
    assert np.array_equal(counts, count_pixels(maps, truth, len(faces.classes)))
    assert (counts[..., 0] + counts[..., 2]).sum(1).tolist() == [faces.size**2] * 6
    with pytest.raises(InputError, match="leave them out"):
        sweep_module.save_examples(parser, faces, rows, [("hand", 0.5)], tmp_path / "x.npz")
