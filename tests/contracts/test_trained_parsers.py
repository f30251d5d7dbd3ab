"A parser of `fairparse train` goes where one of 20_train_parser goes, without fold and attributes"

import pytest
from helpers import ROOT, make_faces
from PIL import Image
from trainers import forget

from fairparse.core.runs import InputError, read_json
from fairparse.data.worlds import render_faces
from fairparse.parsing.recipes import train_on_folders
from fairparse.workflow.notebooks import NotebookError, execute_notebook, job_environment

SMALL = {"encoder": "tu-mobilenetv3_small_050", "encoder_weights": "none"}
SMALL |= {"decoder_channels": [32, 24, 16]}


def run_notebook(name, log, **values):
    with job_environment(1):
        execute_notebook(ROOT / "nbs" / "paper" / f"{name}.ipynb", log, values)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    "Its folder; the faces that it learnt from lie in it, none of them held out"
    forget()
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("parser")
    images, masks, _ = render_faces(8, 32)
    for kind, pictures in (("images", images), ("labels", masks)):
        (raw / kind).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(raw / kind / f"{number}.png")
    few = {"epochs": 1, "batch_size": 4}
    train_on_folders([raw], out, size=32, network=SMALL, training=few, threads=1)
    assert "fold" not in read_json(out / "run.json")["parameters"]
    return out


def test_it_makes_the_maps_of_a_gan(parser, tmp_path):
    run_notebook(
        "40_train_pix2pixhd",
        tmp_path / "log.ipynb",
        out=str(tmp_path / "gan"),
        maps=str(parser),
        faces=str(parser / "faces"),
        epochs=1,
        channels=4,
    )
    assert (tmp_path / "gan" / "generator.safetensors").is_file()
    assert "no record of a fold" in (tmp_path / "log.ipynb").read_text()


def test_it_makes_the_maps_of_a_controlnet(parser, tmp_path):
    run_notebook(
        "50_train_controlnet",
        tmp_path / "log.ipynb",
        out=str(tmp_path / "a" / "b"),
        maps=str(parser),
        faces=str(parser / "faces"),
        max_steps=1,
        batch_size=2,
        steps=1,
    )
    assert read_json(tmp_path / "a" / "b" / "run.json")["train"] == 8


def test_it_belongs_to_no_fold(parser, tmp_path):
    with pytest.raises(
        (NotebookError, InputError), match="no record of a fold, and fold 2 is tested"
    ):
        run_notebook(
            "40_train_pix2pixhd",
            tmp_path / "log.ipynb",
            out=str(tmp_path / "gan"),
            maps=str(parser),
            faces=str(parser / "faces"),
            fold=2,
        )


def test_faces_without_a_test_split_are_refused_before_a_training(tmp_path):
    make_faces(tmp_path / "faces", 6, train=6, valid=0)
    with pytest.raises((NotebookError, InputError), match="no faces for testing.*--split seeded"):
        run_notebook(
            "20_train_parser",
            tmp_path / "log.ipynb",
            out=str(tmp_path / "parser"),
            faces=str(tmp_path / "faces"),
            objective="single",
        )
    assert not (tmp_path / "parser").exists()
