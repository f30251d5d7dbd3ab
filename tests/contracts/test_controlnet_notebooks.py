"The notebooks of the ControlNet from faces to Table IV and Figure 7, with the stand-in"

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, make_faces, make_parser
from PIL import Image

from fairparse.core.records import (
    DIFFUSION_HISTORY,
    QUALITY,
    open_face_set,
    read_arrays,
    read_table,
)
from fairparse.core.runs import InputError, read_json, write_json
from fairparse.diffusion.controlnet import load_base, read_purpose
from fairparse.diffusion.tiny import reconstruction
from fairparse.gan.pix2pixhd import Generator, GeneratorSpec, save_generator
from fairparse.parsing.unet import load_parser, save_parser
from fairparse.quality.painters import controlnet_painter, paint_faces
from fairparse.robustness.sweep import make_maps
from fairparse.workflow.notebooks import execute_notebook, job_environment

FEW = {
    "epochs": 1,
    "max_steps": 3,
    "batch_size": 2,
    "steps": 2,
    "checked": 3,
    "training": {"checkpoint_every": 1},
}


def run_notebook(name, log, **values):
    with job_environment(1):
        execute_notebook(ROOT / "nbs" / "paper" / f"{name}.ipynb", log, values)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "A face set, untrained parsers and GANs, and ControlNets of three steps on two parsers' maps"
    tree = tmp_path_factory.mktemp("tree")
    make_faces(tree / "faces", 16, train=8, valid=3)
    for k, name in enumerate(("single", "linear")):
        save_parser(make_parser(k).eval(), tree / "parsers" / name / "seed0", "model")
        write_json(tree / "parsers" / name / "seed0" / "run.json", {"parameters": {"fold": -1}})
    for k, name in enumerate(("single", "linear", "truth")):
        torch.manual_seed(k)
        save_generator(
            Generator(GeneratorSpec(channels=4, downsamplings=1, blocks=1, size=32)),
            tree / "gans" / name / "seed0",
        )
    for name in ("single", "linear"):
        train(tree, name)
    return tree


def train(tree, name, **values):
    folder = tree / "controlnets" / name / "seed0"
    run_notebook(
        "50_train_controlnet",
        folder / "log.ipynb",
        **{
            **FEW,
            "out": str(folder),
            "faces": str(tree / "faces"),
            "maps": str(tree / "parsers" / name / "seed0"),
            **values,
        },
    )
    return folder


def test_a_training_leaves_a_controlnet_with_its_record(tree):
    folder = tree / "controlnets" / "linear" / "seed0"
    record, history, purpose = (
        read_json(folder / "run.json"),
        read_table(folder / "history.parquet", DIFFUSION_HISTORY),
        read_purpose(folder),
    )
    assert (
        history.step.tolist() == [1, 2, 3]
        and np.isfinite(history.valid_loss.iloc[-1])
        and history.valid_loss.iloc[:-1].isna().all()
    )
    assert (
        record["train"] == 8
        and record["valid"] == 3
        and 0 < record["miou_ceiling"] < 1
        and {"miou_followed", "miou_floor", "miou_autoencoder", "follow_share", "images_per_second"}
        <= set(record)
    )
    assert (purpose.base, purpose.size, purpose.prompt) == (
        "standin",
        32,
        "a photo of a face",
    ) and purpose.base_sha256 == load_base("standin").fingerprint()
    assert Image.open(folder / "samples" / "step_000003.png").size == (96, 96)
    assert (
        len(list((tree / "controlnets" / "cache").glob("latents_*.npy"))) == 1
    )  # shared by both trainings


def test_only_training_faces_are_trained_on(tree):
    log = json.loads((tree / "controlnets" / "linear" / "seed0" / "log.ipynb").read_text())
    assert any(
        "8 training faces of 32 pixels, 1 prompts" in "".join(output.get("text", ""))
        for cell in log["cells"]
        for output in cell.get("outputs", [])
    )


def test_a_finished_training_is_not_repeated_and_one_with_more_steps_starts_again(tree, tmp_path):
    folder = tree / "controlnets" / "linear" / "seed0"
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    (folder / "run.json").unlink()
    train(tree, "linear")
    assert (
        folder / "diffusion_pytorch_model.safetensors"
    ).read_bytes() == weights and "resumed after step 3 of 3" in (folder / "log.ipynb").read_text()
    train(
        tree,
        "linear",
        out=str(tmp_path / "a" / "b"),
        cache=str(tree / "controlnets" / "cache"),
        max_steps=2,
    )
    assert read_table(
        tmp_path / "a" / "b" / "history.parquet", DIFFUSION_HISTORY
    ).step.tolist() == [1, 2]
    assert (
        tmp_path / "a" / "b" / "diffusion_pytorch_model.safetensors"
    ).read_bytes() != weights and not (tmp_path / "a" / "cache").exists()


@pytest.mark.parametrize(
    "values,message",
    [
        ({"training": {"learning_rate": 1}}, "unknown settings"),
        ({"size": 30}, "multiple of 4"),
        ({"colours": [[0, 0, 0]] * 19}, "share the colour"),
        ({"prompt": "attributes"}, None),
        ({"fold": 1}, "was trained with fold -1, and fold 1 is tested"),
        ({"base": "nowhere"}, "neither a folder"),
        ({"precision": "fp16"}, "needs a CUDA device"),
        ({"controlnet": "nobody"}, "neither a folder"),
    ],
)
def test_wrong_parameters_are_named(tree, tmp_path, values, message):
    from fairparse.workflow.notebooks import NotebookError

    run = lambda: train(
        tree, "linear", out=str(tmp_path / "a" / "b"), cache=str(tmp_path / "cache"), **values
    )  # noqa: E731
    if message is None:  # Hat and Smiling are no words of a prompt together, but Smiling is one
        run()
        assert read_purpose(tmp_path / "a" / "b").prompt == "attributes"
        return
    with pytest.raises((NotebookError, InputError), match=message):
        run()
    assert not (tmp_path / "a" / "b" / "run.json").exists()


def test_own_colours_pass_the_strict_command():
    from fairparse.workflow.notebooks import check_parameters

    colours = [[i, 2 * i, 255 - i] for i in range(19)]
    path = ROOT / "nbs" / "paper" / "50_train_controlnet.ipynb"
    assert (
        check_parameters(path, {"colours": colours})["colours"]
        == colours
        == check_parameters(path, {}, {"colours": json.dumps(colours)})["colours"]
    )


# ---- scores, Table IV and Figure 7

needs_perceptual = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("stlpips_pytorch", "torchsummary")),
    reason="stlpips-pytorch (extra offline) is not installed",
)


@pytest.fixture(scope="module")
def scored(tree):
    common = {
        "faces": str(tree / "faces"),
        "parsers": str(tree / "parsers"),
        "gans": str(tree / "gans"),
        "controlnets": str(tree / "controlnets"),
        "seeds": [0],
        "perturbations": ["blur"],
        "halves": 6,
        "examples": 2,
        "sampling": {"steps": 2},
    }
    for maps in ("truth", "single", "linear"):
        run_notebook(
            "70_score",
            tree / "score" / maps / "log.ipynb",
            **common,
            out=str(tree / "score" / maps),
            maps=maps,
            generators=["own", "shared"] if maps == "truth" else ["own", "shared", "controlnet"],
        )
    return tree


@needs_perceptual
def test_the_controlnet_is_scored_beside_the_gans_on_clean_maps(scored):
    quality = read_table(scored / "score" / "linear" / "quality.parquet", QUALITY)
    assert set(quality.model) == {"pix2pixhd_own", "pix2pixhd_shared", "controlnet"} and set(
        quality[quality.model == "controlnet"].perturbation
    ) == {"none"}
    one = {
        model: set(part.metric)
        for model, part in quality[quality.perturbation == "none"].groupby("model")
    }
    assert (
        one["controlnet"] == one["pix2pixhd_own"]
        and read_json(scored / "score" / "linear" / "run.json")["controlnet_base"] == "standin"
    )


@needs_perceptual
def test_the_examples_are_what_the_saved_controlnet_paints(scored):
    from fairparse.diffusion.sample import SamplingConfig

    arrays, faces = (
        read_arrays(scored / "score" / "linear" / "examples.npz", "maps", "controlnet"),
        open_face_set(scored / "faces"),
    )
    rows = faces.rows("test")[:2]
    assert arrays["controlnet"].shape == (1, 2, 32, 32, 3)
    maps = make_maps(load_parser(scored / "parsers" / "linear" / "seed0"), faces, rows)
    painter = controlnet_painter(
        scored / "controlnets" / "linear" / "seed0", sampling=SamplingConfig(steps=2)
    )
    again = paint_faces(painter, maps, faces.index.iloc[rows], batch_size=1)
    assert (
        (maps == arrays["maps"][0]).all()
        and np.abs(again.astype(int) - arrays["controlnet"][0]).max() <= 1
        and again.std() > 5
    )


@needs_perceptual
def test_table_4_and_figure_7(scored):
    run_notebook(
        "80_table4_synthesis",
        scored / "t4.ipynb",
        out=str(scored / "tables" / "table4_synthesis.csv"),
        score=str(scored / "score"),
        objectives=["single", "linear"],
    )
    table = pd.read_csv(scored / "tables" / "table4_synthesis.csv")
    rows = table[table.model == "controlnet"]
    assert rows.maps.tolist() == ["single", "linear"] and set(rows.generator) == {
        "a ControlNet for each parser (stand-in base)"
    }
    assert (
        rows.reported_fid.tolist() == [261.01, 257.18]
        and rows.reported_lpips.tolist() == [0.7867, 0.7848]
        and rows.fd128_classifier_test.notna().all()
    )
    run_notebook(
        "85_figure7_controlnet",
        scored / "f7.ipynb",
        out=str(scored / "figures" / "figure7_controlnet.png"),
        score=str(scored / "score"),
        faces_shown=2,
    )
    assert min(Image.open(scored / "figures" / "figure7_controlnet.png").size) > 200
    shown = pd.read_csv(scored / "figures" / "figure7_controlnet.csv")
    assert (
        len(shown) == 4
        and set(shown.model) == {"controlnet"}
        and set(shown.base) == {"stand-in base"}
    )


# ---- what is shipped


def test_the_shipped_models_are_small_and_say_how_they_were_made():
    assets = ROOT / "fairparse" / "assets"
    files = [
        p
        for name in ("tiny_diffusion", "tiny_controlnet")
        for p in (assets / name).rglob("*")
        if p.is_file()
    ]
    assert 5e6 < sum(p.stat().st_size for p in files) < 10e6 and {p.suffix for p in files} == {
        ".json",
        ".safetensors",
    }
    for name in ("tiny_diffusion", "tiny_controlnet"):
        record = read_json(assets / name / "record.json")
        assert (
            record["licence"] == "Apache-2.0"
            and "fairparse.diffusion.tiny" in record["regenerate"]
            and record["training"]["faces"] > 1000
        )


def test_the_shipped_autoencoder_is_as_good_as_its_record_says():
    from fairparse.diffusion.tiny import SEED
    from fairparse.measure.standin import draw_training_faces

    record = read_json(ROOT / "fairparse" / "assets" / "tiny_diffusion" / "record.json")
    images = draw_training_faces(64, record["training"]["faces"], SEED)[0]  # held-out ones
    assert reconstruction(load_base("standin").vae, images) == pytest.approx(
        record["held_out_psnr_db"], abs=0.5
    )


def test_the_sampler_of_the_standin_starts_where_that_of_stable_diffusion_does():
    from diffusers import PNDMScheduler, UniPCMultistepScheduler

    scheduler = load_base("standin").scheduler
    for kind, first in ((UniPCMultistepScheduler, 999), (PNDMScheduler, None)):
        own = kind.from_config(scheduler.config)
        own.set_timesteps(20)
        assert first in (None, int(own.timesteps[0])) and len(own.timesteps) <= 21


def test_the_published_controlnets_follow_their_maps():
    table = pd.read_csv(ROOT / "outputs" / "published" / "tables" / "table4_synthesis.csv")
    rows = table[table.model == "controlnet"]
    assert rows.maps.tolist() == ["single", "linear"] and (rows.follow_share >= 50).all()
