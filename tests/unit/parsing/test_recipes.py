"A parser from folders of one's own: training, resuming, scoring, and what is refused"

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fairparse.cli import main
from fairparse.core.runs import InputError, hash_file, read_json
from fairparse.data.worlds import render_faces
from fairparse.parsing.card import make_card
from fairparse.parsing.recipes import (
    RECIPES,
    _draw_faces,
    _enough_epochs,
    _recipe_network,
    find_recipe,
    label_efficiency,
    score_folder,
    train_on_folders,
)
from fairparse.parsing.train import TrainConfig, undo_class_weights
from fairparse.parsing.unet import build_parser, load_parser

TINY = {
    "encoder": "tu-mobilenetv3_small_050",
    "encoder_weights": "none",
    "decoder_channels": [16, 16, 8],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Sixteen procedural faces as images/ and labels/"
    home = tmp_path_factory.mktemp("faces")
    for sub in ("images", "labels"):
        (home / sub).mkdir()
    images, masks, _ = render_faces(16, 64, seed=4)
    for i, (image, mask) in enumerate(zip(images, masks)):
        Image.fromarray(image).save(home / "images" / f"{i}.png")
        Image.fromarray(mask).save(home / "labels" / f"{i}.png")
    return home


def train_two_epochs(folder, out):
    train_on_folders(
        [folder],
        out,
        size=64,
        threads=1,
        device="cpu",
        network=TINY,
        training={"epochs": 2, "precision": "no"},
    )


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    "A parser of the strong recipe with a tiny network and two epochs"
    out = tmp_path_factory.mktemp("parser")
    train_two_epochs(folder, out)
    return out


def test_recipes_are_valid_configurations():
    for name in RECIPES:
        TrainConfig(**find_recipe(name)["training"])
    with pytest.raises(InputError, match="stron.*none of"):
        find_recipe("stron")


def test_all_faces_are_trained_on_and_the_run_is_recorded(trained):
    record = read_json(trained / "run.json")
    assert (record["train"], record["valid"]) == (16, 0)
    assert (
        record["parameters"]["training"]["prior_correction"]
        == RECIPES["strong"]["training"]["prior_correction"]
    )
    assert load_parser(trained).spec.coordinates and load_parser(trained).spec.flip_average


def test_the_same_command_again_gives_the_same_weights(folder, trained, tmp_path):
    before = load_file(trained / "model.safetensors")
    train_two_epochs(folder, trained)
    after = load_file(trained / "model.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_prior_correction_lowers_upweighted_classes_only():
    parser = build_parser(**TINY, size=64)
    before = parser.net.segmentation_head[0].bias.detach().clone()
    weights = torch.ones(19)
    weights[15] = 4.0
    undo_class_weights(parser, weights, 0.5)
    change = parser.net.segmentation_head[0].bias.detach() - before
    assert change[15].item() == pytest.approx(-0.5 * np.log(4.0)) and change[:15].abs().max() == 0


def test_prior_correction_lowers_a_class_in_every_subpixel():
    parser = build_parser(**TINY, depth=5, size=64, zoom=2.0, subpixel=2).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    weights = torch.ones(19)
    weights[15] = 4.0
    with torch.no_grad():
        before = parser(images)
        undo_class_weights(parser, weights, 0.5)
        change = parser(images) - before
    torch.testing.assert_close(change[:, 15], torch.full((1, 64, 64), -0.5 * np.log(4.0)).float())
    assert change[:, :15].abs().max() == 0


def test_scores_are_written_and_agree_with_the_counts(folder, trained, tmp_path):
    table = score_folder(trained, [folder], tmp_path / "scores", threads=1, device="cpu")
    assert table["class"].iloc[-1] == "mean" and table.images_with_class.iloc[-1] == 16
    assert table.iou.iloc[-1] == pytest.approx(np.nanmean(table.iou.iloc[:-1]))
    written = pd.read_csv(tmp_path / "scores" / "scores.csv")
    np.testing.assert_allclose(written.iou, table.iou, rtol=1e-4)
    counts = (
        pd.read_parquet(tmp_path / "scores" / "counts.parquet")
        .groupby("class_id")[["tp", "fp", "fn"]]
        .sum()
    )
    np.testing.assert_allclose(
        100 * counts.tp / counts.sum(axis=1).where(lambda s: s > 0), table.iou.iloc[:-1], rtol=1e-6
    )
    assert read_json(tmp_path / "scores/score.json") == {
        "parser": str(trained.resolve()),
        "weights": "model.safetensors",
        "sha256": hash_file(trained / "model.safetensors"),
        "data": [folder.name],
        "swap_mirrored": False,
        "counts_sha256": hash_file(tmp_path / "scores/counts.parquet"),
    }


def test_a_card_takes_scores_of_its_own_weights_only(folder, trained, tmp_path, monkeypatch):
    copy = shutil.copytree(
        trained, tmp_path / "copy", ignore=shutil.ignore_patterns("faces", ".lock")
    )
    weights = load_file(copy / "model.safetensors")
    save_file(
        {k: v * 0.9 if v.is_floating_point() else v for k, v in weights.items()},
        copy / "best.safetensors",
    )
    monkeypatch.chdir(tmp_path)
    quick = ["--threads", "1", "--device", "cpu"]
    assert main(["score", "copy", "--data", str(folder), "--out", "scores", *quick]) == 0
    monkeypatch.chdir(copy)  # a relative path then, another folder now
    text = make_card(".", tmp_path / "card.md", counts="../scores").read_text()
    assert f"name: {folder.name}" in text and "16 faces (data: " in text
    assert (
        main(
            [
                "score",
                str(copy),
                "--data",
                str(folder),
                "--which",
                "best",
                "--out",
                str(tmp_path / "best"),
                *quick,
            ]
        )
        == 0
    )
    with pytest.raises(
        InputError, match="counts other weights, best.safetensors of .*copy .*score this parser"
    ):
        make_card(copy, counts=tmp_path / "best")
    shutil.copy(tmp_path / "best/counts.parquet", tmp_path / "scores/counts.parquet")
    with pytest.raises(InputError, match="is not the file that .*score.json is about"):
        make_card(copy, counts=tmp_path / "scores")
    shutil.copy(
        copy / "best.safetensors", copy / "model.safetensors"
    )  # trained again in the same folder
    make_card(copy, counts=tmp_path / "best")
    assert (
        main(
            [
                "score",
                str(trained),
                "--data",
                str(folder),
                "--out",
                str(tmp_path / "scores"),
                *quick,
            ]
        )
        == 0
    )
    with pytest.raises(InputError, match="counts other weights"):
        make_card(copy, counts=tmp_path / "scores", force=True)
    (tmp_path / "best/score.json").unlink()
    with pytest.raises(InputError, match="does not say of which weights"):
        make_card(copy, counts=tmp_path / "best", force=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"folders": ["/nowhere"]}, "nowhere"),
        ({"recipe": "weak"}, "weak"),
        ({"training": {"epohcs": 2}}, "epohcs"),
        ({"network": {**TINY, "encoder_weights": "/nowhere/weights.pth"}}, "nowhere"),
    ],
)
def test_bad_input_names_the_value(folder, tmp_path, arguments, message):
    settings = {
        "folders": [folder],
        "size": 64,
        "network": TINY,
        "training": {"epochs": 1, "precision": "no"},
        **arguments,
    }
    with pytest.raises(InputError, match=message):
        train_on_folders(
            settings.pop("folders"), tmp_path / "out", threads=1, device="cpu", **settings
        )
    assert not (tmp_path / "out" / "run.json").exists()


def test_command_line(folder, trained, capsys):
    assert (
        main(["score", str(trained), "--data", str(folder), "--threads", "1", "--device", "cpu"])
        == 0
    )
    assert "mean" in capsys.readouterr().out
    assert main(["score", str(folder), "--data", str(folder)]) == 2
    assert "holds no parser" in capsys.readouterr().err


@pytest.mark.parametrize("size, zoom", [(64, 3.0), (128, 1.5), (192, 1.0), (256, 1.0)])
def test_the_encoder_of_the_strong_recipe_sees_192_pixels_or_more(size, zoom):
    network = _recipe_network(find_recipe("strong"), size, "single", TINY)
    assert network["zoom"] == zoom
    parser = build_parser(**network, size=size).eval()
    with torch.no_grad():
        assert parser(torch.zeros(1, 3, size, size)).shape == (1, 19, size, size)


@pytest.mark.parametrize("count, epochs", [(3700, 10), (900, 10), (700, 12), (350, 24)])
def test_few_faces_are_seen_more_often(count, epochs):
    assert _enough_epochs(find_recipe("strong"), count) == epochs
    assert _enough_epochs(find_recipe("paper"), count) == 30


def test_a_part_of_the_faces_is_in_each_larger_part(folder, tmp_path):
    rows = np.arange(10, 50)
    few, more = (_draw_faces(rows, count, seed=3) for count in (7, 20))
    assert len(few) == 7 and set(few) < set(more) < set(rows)
    assert (_draw_faces(rows, None, 3) == rows).all()
    with pytest.raises(InputError, match="count 41: there are 40 faces"):
        _draw_faces(rows, 41, 3)
    options = {"network": TINY, "training": {"epochs": 1, "precision": "no"}, "count": 5}
    train_on_folders([folder], tmp_path, size=64, threads=1, device="cpu", **options)
    assert read_json(tmp_path / "run.json")["train"] == 5


def test_the_fair_recipe_is_the_strong_one_with_another_objective(folder, tmp_path):
    strong, fair = find_recipe("strong"), find_recipe("fair")
    assert fair == {**strong, "training": {**strong["training"], "objective": "fair"}}
    train_on_folders(
        [folder], tmp_path, "fair", size=64, network=TINY, training={"epochs": 1, "precision": "no"}
    )
    spec = load_parser(tmp_path).spec
    assert spec.standardise and spec.clean and spec.coordinates
    assert read_json(tmp_path / "run.json")["parameters"]["training"]["augment"]["worse"] == 0.3


def test_trainings_on_more_faces_beside_one_another(folder, tmp_path):
    options = {"network": TINY, "training": {"epochs": 1, "precision": "no"}, "size": 64}
    for count in (8, 4):
        out = tmp_path / str(count)
        train_on_folders([folder], out, valid_share=0.25, count=count, device="cpu", **options)
    table = label_efficiency([tmp_path / "8", tmp_path / "4"])
    assert table.faces.tolist() == [4, 8] and table.held_out.tolist() == [4, 4]
    scores = pd.read_csv(tmp_path / "8" / "scores.csv").set_index("class").iou
    assert table.iou_mean[1] == scores["mean"] and (table.minutes > 0).all()
    (tmp_path / "8" / "scores.csv").unlink()
    with pytest.raises(InputError, match="8 has no scores.csv: train it with --valid-share"):
        label_efficiency([tmp_path / "8"])
